//! Requests that wait: by priority, then fairly between groups, then by age.
//!
//! Fairness is start-time fair queueing (Goyal, Vin, Cheng 1996): admitting a request of cost c moves its
//! group's finish tag to max(virtual time, finish tag) + c; the group whose next request has the least start
//! tag goes first. So a group of one goes ahead of a group of a million, which has been served before.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::engine::handle::SequenceId;

/// Groups that wait for nothing are remembered up to this number.
const MAX_IDLE_GROUPS: usize = 1_024;

/// A request's place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Ascending with age.
    pub id: SequenceId,
    pub priority: u8,
    pub group: u64,
    /// Work in tokens; 0 for one that was charged before.
    pub cost: u64,
}

/// What [`FairQueue::visit`] does after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    Next,
    SkipGroup,
    Stop,
}

#[derive(Default)]
pub struct FairQueue {
    levels: BTreeMap<Reverse<u8>, Level>,
    len: usize,
}

#[derive(Default)]
struct Level {
    groups: HashMap<u64, Group>,
    virtual_time: u64,
}

#[derive(Default)]
struct Group {
    waiting: BTreeMap<SequenceId, Ticket>,
    finish: u64,
}

impl FairQueue {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn push(&mut self, ticket: Ticket) {
        let level = self.levels.entry(Reverse(ticket.priority)).or_default();
        let group = level.groups.entry(ticket.group).or_default();
        if group.waiting.insert(ticket.id, ticket).is_none() {
            self.len += 1;
        }
    }

    /// Takes a request out without charging its group.
    pub fn remove(&mut self, ticket: &Ticket) {
        self.take(ticket, false);
    }

    /// Takes a request out to run it.
    pub fn admit(&mut self, ticket: &Ticket) {
        self.take(ticket, true);
    }

    fn take(&mut self, ticket: &Ticket, is_charged: bool) {
        let Some(level) = self.levels.get_mut(&Reverse(ticket.priority)) else { return };
        let Some(group) = level.groups.get_mut(&ticket.group) else { return };
        let Some(ticket) = group.waiting.remove(&ticket.id) else { return };
        self.len -= 1;
        if is_charged {
            let start = level.virtual_time.max(group.finish);
            group.finish = start.saturating_add(ticket.cost);
            // a request of cost 0 was charged when it was first admitted and moves no time
            if ticket.cost > 0 {
                level.virtual_time = start;
            }
        }
        level.forget_idle();
    }

    /// Shows requests in the order in which they should be admitted, until told to stop.
    pub fn visit(&self, mut look: impl FnMut(&Ticket) -> Visit) {
        for level in self.levels.values() {
            let mut order = BTreeSet::new();
            for (&number, group) in &level.groups {
                if let Some((&id, _)) = group.waiting.first_key_value() {
                    order.insert((level.virtual_time.max(group.finish), id, number));
                }
            }
            while let Some((start, id, number)) = order.pop_first() {
                let waiting = &level.groups[&number].waiting;
                let ticket = &waiting[&id];
                match look(ticket) {
                    Visit::Stop => return,
                    Visit::SkipGroup => continue,
                    Visit::Next => {}
                }
                if let Some((&next, _)) = waiting.range(id + 1..).next() {
                    order.insert((start.saturating_add(ticket.cost), next, number));
                }
            }
        }
    }
}

impl Level {
    /// A finish tag in the past says nothing; of those in the future, the largest debts are kept.
    fn forget_idle(&mut self) {
        let virtual_time = self.virtual_time;
        let is_idle = |group: &Group| group.waiting.is_empty();
        if self.groups.len() <= MAX_IDLE_GROUPS {
            return;
        }
        self.groups.retain(|_, group| !is_idle(group) || group.finish > virtual_time);
        let mut idle: Vec<(u64, u64)> = self
            .groups
            .iter()
            .filter(|(_, group)| is_idle(group))
            .map(|(&number, group)| (group.finish, number))
            .collect();
        if idle.len() > MAX_IDLE_GROUPS {
            idle.sort_unstable();
            for (_, number) in &idle[..idle.len() - MAX_IDLE_GROUPS / 2] {
                self.groups.remove(number);
            }
        }
    }
}
