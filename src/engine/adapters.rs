//! Adapters that the executor holds, and who uses them.

use std::collections::HashMap;
use std::sync::Arc;

use super::executor::Executor;
use super::handle::Reply;
use super::request::{AdapterId, EngineError};
use crate::nn::weights::adapter::Adapter;

#[derive(Default)]
pub(super) struct Adapters {
    slots: HashMap<AdapterId, Slot>,
    n_added: u32,
    /// Sequences that wait or run on the base alone.
    n_base_users: usize,
}

struct Slot {
    number: u32,
    /// Sequences that wait or run with it.
    n_users: usize,
    /// Set when it is to go with its last user.
    removal: Option<Reply<()>>,
}

impl Adapters {
    pub(super) fn add(
        &mut self,
        executor: &mut dyn Executor,
        adapter: Arc<Adapter>,
    ) -> Result<AdapterId, EngineError> {
        let number = executor.add_adapter(adapter).map_err(|error| EngineError::Device(error.to_string()))?;
        // ids are never used twice: the prefix cache tells adapters apart by them
        let id = AdapterId(self.n_added);
        self.n_added += 1;
        self.slots.insert(id, Slot { number, n_users: 0, removal: None });
        Ok(id)
    }

    /// Refuses new users at once; answers when the last one is gone.
    pub(super) fn remove(&mut self, executor: &mut dyn Executor, id: AdapterId, reply: Reply<()>) {
        match self.slots.get_mut(&id) {
            Some(slot) if slot.removal.is_none() => {
                slot.removal = Some(reply);
                self.free_if_unused(executor, id);
            }
            Some(_) | None => {
                let _ = reply.send(Err(EngineError::UnknownAdapter(id)));
            }
        }
    }

    pub(super) fn take(&mut self, id: Option<AdapterId>) -> Result<(), EngineError> {
        let Some(id) = id else {
            self.n_base_users += 1;
            return Ok(());
        };
        match self.slots.get_mut(&id) {
            Some(slot) if slot.removal.is_none() => {
                slot.n_users += 1;
                Ok(())
            }
            Some(_) | None => Err(EngineError::UnknownAdapter(id)),
        }
    }

    pub(super) fn let_go(&mut self, executor: &mut dyn Executor, id: Option<AdapterId>) {
        let Some(id) = id else {
            self.n_base_users -= 1;
            return;
        };
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.n_users -= 1;
        }
        self.free_if_unused(executor, id);
    }

    /// The adapter that all sequences use that wait or run.
    pub(super) fn only_user(&self) -> Option<AdapterId> {
        let mut used = self.slots.iter().filter(|(_, slot)| slot.n_users > 0).map(|(id, _)| *id);
        let only = used.next().filter(|_| self.n_base_users == 0)?;
        used.next().is_none().then_some(only)
    }

    /// The executor's number for it.
    pub(super) fn slot(&self, id: AdapterId) -> Option<u32> {
        self.slots.get(&id).map(|slot| slot.number)
    }

    fn free_if_unused(&mut self, executor: &mut dyn Executor, id: AdapterId) {
        let is_done = self.slots.get(&id).is_some_and(|slot| slot.n_users == 0 && slot.removal.is_some());
        if is_done && let Some(slot) = self.slots.remove(&id) {
            executor.remove_adapter(slot.number);
            if let Some(reply) = slot.removal {
                let _ = reply.send(Ok(()));
            }
        }
    }
}
