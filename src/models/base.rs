//! Bases: a checkpoint's weights, KV pool and engine thread, loaded once for every model that names it.
//!
//! Invariants: at most one base per key is in memory or on its way; a base lives exactly as long as models
//! hold leases on it; the last lease's end closes the engine, and only then is the place free again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::budget::Device;
use super::error::ModelError;
use super::texts::Texts;
use super::{device, loader};
use crate::domain::model::{LoadProgress, LoadStage, MemoryPlan};
use crate::engine;
use crate::nn::arch::ModelConfig;

/// A loaded base.
pub struct Base {
    pub engine: engine::handle::Handle,
    pub compiler: engine::grammar::Compiler,
    pub texts: Texts,
    pub config: ModelConfig,
    pub stop: Arc<[u32]>,
    pub plan: MemoryPlan,
    /// As allocated: weights, KV pool, scratch.
    pub memory_bytes: u64,
}

/// What a base's load has come to.
#[derive(Clone)]
pub enum Phase {
    Loading(LoadProgress),
    Loaded(Arc<Base>),
    Failed(Arc<ModelError>),
    /// Closed and forgotten: whoever wants it loads it anew.
    Gone,
}

struct Slot {
    phase: watch::Sender<Phase>,
    is_given_up: AtomicBool,
    planned_bytes: AtomicU64,
    /// Names of the models that hold a lease, and whether the last one has gone.
    holders: Mutex<Holders>,
}

#[derive(Default)]
struct Holders {
    names: Vec<String>,
    is_closing: bool,
}

/// All bases of the process. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Bases {
    slots: Arc<Mutex<HashMap<String, Arc<Slot>>>>,
    /// Bases that were read from their files since the start.
    loads: Arc<AtomicU64>,
}

/// A model's claim on a base.
pub struct Lease {
    bases: Bases,
    key: String,
    holder: String,
    slot: Arc<Slot>,
}

/// What a load thread sees of its slot.
pub struct Report {
    slot: Arc<Slot>,
}

impl Report {
    pub fn progress(&self, progress: LoadProgress) {
        self.slot.phase.send_replace(Phase::Loading(progress));
    }

    /// The plan's bytes count against every other plan from now on.
    pub fn commit(&self, plan: &MemoryPlan) {
        self.slot.planned_bytes.store(plan.needed_bytes() - plan.reserve_bytes, Ordering::SeqCst);
    }

    /// Nobody waits for this load any more.
    pub fn is_given_up(&self) -> bool {
        self.slot.is_given_up.load(Ordering::SeqCst)
    }
}

impl Bases {
    /// Takes a lease; the first one starts the load. Waits while an older base of this key is closing.
    pub async fn lease(&self, key: &str, holder: &str, order: &loader::Order) -> Lease {
        loop {
            let closing = {
                let mut slots = lock(&self.slots);
                match slots.get(key) {
                    Some(slot) => match join(slot, holder) {
                        Ok(()) => return self.lease_on(key, holder, slot.clone()),
                        Err(closing) => closing,
                    },
                    None => {
                        let slot = Arc::new(Slot::new(holder));
                        slots.insert(key.to_string(), slot.clone());
                        self.loads.fetch_add(1, Ordering::SeqCst);
                        start(slot.clone(), self.clone(), order.clone());
                        return self.lease_on(key, holder, slot);
                    }
                }
            };
            let mut closing = closing;
            let _ = closing.wait_for(|phase| matches!(phase, Phase::Gone)).await;
        }
    }

    fn lease_on(&self, key: &str, holder: &str, slot: Arc<Slot>) -> Lease {
        Lease { bases: self.clone(), key: key.into(), holder: holder.into(), slot }
    }

    /// How often a base was read from its files.
    pub fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }

    /// The base of a key, if it is loaded, with the models that hold it.
    pub fn loaded(&self, key: &str) -> Option<(Arc<Base>, Vec<String>)> {
        let slots = lock(&self.slots);
        let slot = slots.get(key)?;
        let holders = lock(&slot.holders);
        match &*slot.phase.borrow() {
            Phase::Loaded(base) if !holders.is_closing => Some((base.clone(), holders.names.clone())),
            _ => None,
        }
    }

    /// The device's memory now, with what all bases have planned. `except`: a load that plans itself.
    pub fn device(&self, except: Option<&Report>) -> Device {
        let memory = device::cpu_memory();
        let mut device = Device {
            total_bytes: memory.total_bytes,
            available_bytes: memory.available_bytes,
            ..Device::default()
        };
        for slot in lock(&self.slots).values() {
            if except.is_some_and(|report| Arc::ptr_eq(&report.slot, slot)) {
                continue;
            }
            let planned = slot.planned_bytes.load(Ordering::SeqCst);
            device.committed_bytes += planned;
            if matches!(&*slot.phase.borrow(), Phase::Loading(_)) {
                device.pending_bytes += planned;
            }
        }
        device
    }

    fn forget(&self, key: &str, slot: &Arc<Slot>) {
        let mut slots = lock(&self.slots);
        if slots.get(key).is_some_and(|held| Arc::ptr_eq(held, slot)) {
            slots.remove(key);
        }
    }
}

impl Slot {
    fn new(holder: &str) -> Self {
        let waiting = LoadProgress {
            stage: LoadStage::Waiting,
            bytes_done: 0,
            bytes_total: 0,
            bytes_per_s: None,
            eta_s: None,
        };
        Self {
            phase: watch::Sender::new(Phase::Loading(waiting)),
            is_given_up: AtomicBool::new(false),
            planned_bytes: AtomicU64::new(0),
            holders: Mutex::new(Holders { names: vec![holder.into()], is_closing: false }),
        }
    }
}

fn join(slot: &Arc<Slot>, holder: &str) -> Result<(), watch::Receiver<Phase>> {
    let mut holders = lock(&slot.holders);
    let has_failed = matches!(&*slot.phase.borrow(), Phase::Failed(_));
    if holders.is_closing || has_failed {
        return Err(slot.phase.subscribe());
    }
    holders.names.push(holder.into());
    Ok(())
}

/// Reads the base on a thread of its own; its end, a panic included, is the slot's next phase.
fn start(slot: Arc<Slot>, bases: Bases, order: loader::Order) {
    let report = Report { slot: slot.clone() };
    let run = move || {
        let work = std::panic::AssertUnwindSafe(|| loader::load(&order, &bases, &report));
        let outcome = std::panic::catch_unwind(work).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(ModelError::Panicked(text.unwrap_or_default()))
        });
        let phase = match outcome {
            Ok(base) => Phase::Loaded(Arc::new(base)),
            Err(cause) => {
                report.slot.planned_bytes.store(0, Ordering::SeqCst);
                Phase::Failed(Arc::new(cause))
            }
        };
        report.slot.phase.send_replace(phase);
    };
    if let Err(source) = std::thread::Builder::new().name("model-load".into()).spawn(run) {
        let cause = ModelError::Io { path: "a thread for the load".into(), source };
        slot.phase.send_replace(Phase::Failed(Arc::new(cause)));
    }
}

impl Lease {
    /// Follows the load; the value may change until it is `Loaded` or `Failed`.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.slot.phase.subscribe()
    }

    /// Gives the lease back. The last one waits until the engine's memory is free; a load under way is
    /// given up first.
    pub async fn release(self) {
        {
            let mut holders = lock(&self.slot.holders);
            if let Some(at) = holders.names.iter().position(|name| *name == self.holder) {
                holders.names.remove(at);
            }
            if !holders.names.is_empty() {
                return;
            }
            holders.is_closing = true;
        }
        self.slot.is_given_up.store(true, Ordering::SeqCst);
        let mut phase = self.slot.phase.subscribe();
        let engine = match phase.wait_for(|phase| !matches!(phase, Phase::Loading(_))).await.as_deref() {
            Ok(Phase::Loaded(base)) => Some(base.engine.clone()),
            _ => None,
        };
        if let Some(engine) = engine {
            engine.close().await;
        }
        // the place is free before anyone who waits for it looks
        self.bases.forget(&self.key, &self.slot);
        self.slot.planned_bytes.store(0, Ordering::SeqCst);
        self.slot.phase.send_replace(Phase::Gone);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
