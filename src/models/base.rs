//! Bases: a checkpoint's weights, KV pool and engine thread, loaded once for every model that names it.
//!
//! Invariants: at most one base per key is in memory or on its way; a base lives exactly as long as models
//! hold leases on it; the last lease's end closes the engine, and only then is the place free again. Bytes
//! are booked before they are allocated, by one plan at a time: two loads cannot both get the same memory.
//! A load that has booked nothing holds nothing: whoever gives it up, in the middle of a download, does not
//! wait for its thread, which ends at its next byte.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::budget::{self, Device, Wish};
use super::device::Place;
use super::error::ModelError;
use super::loader;
use super::texts::Texts;
use crate::domain::model::{LoadProgress, LoadStage, MemoryPlan};
use crate::engine;
use crate::nn::arch::ModelConfig;

/// A loaded base.
pub struct Base {
    pub engine: engine::handle::Handle,
    pub compiler: engine::grammar::Compiler,
    pub texts: Arc<Texts>,
    pub config: ModelConfig,
    pub stop: Arc<[u32]>,
    /// As allocated: weights, KV pool, tables and scratch; no adapter.
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
    /// Booked for the base itself; each holder's adapter is booked beside it.
    planned_bytes: AtomicU64,
    place: Place,
    /// The models that hold a lease, and whether the last one has gone.
    holders: Mutex<Holders>,
}

#[derive(Default)]
struct Holders {
    /// The base as booked, with the adapter of whoever loaded it.
    plan: Option<MemoryPlan>,
    models: Vec<Holder>,
    is_closing: bool,
    /// Memory has been booked, and is being filled.
    is_reading: bool,
}

/// A model that holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub name: String,
    /// Booked for its adapter.
    pub adapter_bytes: u64,
    /// They are allocated, so that the device's free memory shows them.
    pub is_settled: bool,
}

/// What a base's load has come to, and for whom.
pub struct Held {
    pub phase: Phase,
    pub plan: Option<MemoryPlan>,
    /// First come first; the first one is charged for the base.
    pub holders: Vec<Holder>,
}

/// All bases of the process. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Bases {
    slots: Arc<Mutex<HashMap<String, Arc<Slot>>>>,
    /// Held from the look at the device to the booking.
    planning: Arc<Mutex<()>>,
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

    /// Unwinds the load's thread if nobody waits for it any more: the way out of code that knows no other.
    pub fn go_on(&self) {
        if self.is_given_up() {
            // past the hook that prints
            std::panic::resume_unwind(Box::new("the load was given up"));
        }
    }

    /// Where it goes.
    pub fn place(&self) -> Place {
        self.slot.place
    }

    /// Nobody waits for this load any more.
    pub fn is_given_up(&self) -> bool {
        self.slot.is_given_up.load(Ordering::SeqCst)
    }
}

impl Bases {
    /// Takes a lease; the first one starts the load. Waits while an older base of this key is closing.
    pub async fn lease(&self, key: &str, holder: &str, order: &loader::Order, place: Place) -> Lease {
        loop {
            let closing = {
                let mut slots = lock(&self.slots);
                match slots.get(key) {
                    Some(slot) => match join(slot, holder) {
                        Ok(()) => return self.lease_on(key, holder, slot.clone()),
                        Err(closing) => closing,
                    },
                    None => {
                        let slot = Arc::new(Slot::new(holder, place));
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

    /// The base of a key; nothing if nobody holds it.
    pub fn held(&self, key: &str) -> Option<Held> {
        let slots = lock(&self.slots);
        let slot = slots.get(key)?;
        let holders = lock(&slot.holders);
        let phase = slot.phase.borrow().clone();
        let held = || Held { phase, plan: holders.plan.clone(), holders: holders.models.clone() };
        (!holders.is_closing).then(held)
    }

    /// Plans a base on the device as it is, and books it together with the adapter of the model that loads
    /// it. A plan that does not fit is an error and books nothing, and so is one that nobody waits for any more.
    pub fn book(
        &self,
        report: &Report,
        holder: &str,
        plan: impl FnOnce(&Device) -> MemoryPlan,
    ) -> Result<MemoryPlan, ModelError> {
        let _alone = lock(&self.planning);
        let plan = plan(&self.device(report.slot.place, Some(&report.slot)));
        if !plan.fits() {
            return Err(ModelError::InsufficientMemory { plan: Box::new(plan) });
        }
        let mut holders = lock(&report.slot.holders);
        if holders.is_closing {
            return Err(ModelError::Cancelled);
        }
        holders.is_reading = true;
        let base_bytes = plan.needed_bytes() - plan.reserve_bytes - plan.adapter_bytes;
        report.slot.planned_bytes.store(base_bytes, Ordering::SeqCst);
        holders.plan = Some(plan.clone());
        if let Some(holder) = holders.find(holder) {
            holder.adapter_bytes = plan.adapter_bytes;
        }
        Ok(plan)
    }

    /// A device's memory now, with what is booked. `except`: a base that is planning itself.
    fn device(&self, place: Place, except: Option<&Arc<Slot>>) -> Device {
        let memory = place.memory();
        let mut device = Device {
            total_bytes: memory.total_bytes,
            available_bytes: memory.available_bytes,
            ..Device::default()
        };
        for slot in lock(&self.slots).values() {
            if slot.place != place || except.is_some_and(|except| Arc::ptr_eq(except, slot)) {
                continue;
            }
            let planned = slot.planned_bytes.load(Ordering::SeqCst);
            device.committed_bytes += planned;
            if matches!(&*slot.phase.borrow(), Phase::Loading(_)) {
                device.pending_bytes += planned;
            }
            for holder in &lock(&slot.holders).models {
                device.committed_bytes += holder.adapter_bytes;
                device.pending_bytes += if holder.is_settled { 0 } else { holder.adapter_bytes };
            }
        }
        device
    }

    /// The device for a plan that books nothing.
    pub fn device_now(&self, place: Place) -> Device {
        self.device(place, None)
    }

    /// All bytes that are booked on it now.
    pub fn booked_bytes(&self, place: Place) -> u64 {
        self.device(place, None).committed_bytes
    }

    fn forget(&self, key: &str, slot: &Arc<Slot>) {
        let mut slots = lock(&self.slots);
        if slots.get(key).is_some_and(|held| Arc::ptr_eq(held, slot)) {
            slots.remove(key);
        }
    }
}

impl Slot {
    fn new(holder: &str, place: Place) -> Self {
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
            place,
            holders: Mutex::new(Holders { models: vec![Holder::new(holder)], ..Holders::default() }),
        }
    }
}

impl Holder {
    fn new(name: &str) -> Self {
        Self { name: name.into(), adapter_bytes: 0, is_settled: false }
    }
}

impl Holders {
    fn find(&mut self, name: &str) -> Option<&mut Holder> {
        self.models.iter_mut().find(|holder| holder.name == name)
    }
}

fn join(slot: &Arc<Slot>, holder: &str) -> Result<(), watch::Receiver<Phase>> {
    let mut holders = lock(&slot.holders);
    let is_over = match &*slot.phase.borrow() {
        Phase::Failed(_) | Phase::Gone => true,
        // dead, and about to be given back by all who hold it
        Phase::Loaded(base) => base.engine.is_closed(),
        Phase::Loading(_) => false,
    };
    if holders.is_closing || is_over {
        return Err(slot.phase.subscribe());
    }
    holders.models.push(Holder::new(holder));
    Ok(())
}

/// Reads the base on a thread of its own; its end, a panic included, is the slot's next phase.
fn start(slot: Arc<Slot>, bases: Bases, order: loader::Order) {
    let report = Report { slot: slot.clone() };
    let run = move || {
        let work = std::panic::AssertUnwindSafe(|| (order.read)(&order, &bases, &report));
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
        report.slot.phase.send_if_modified(|seen| {
            let is_awaited = !matches!(seen, Phase::Gone);
            if is_awaited {
                *seen = phase;
            }
            is_awaited
        });
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

    pub fn place(&self) -> Place {
        self.slot.place
    }

    /// Books this holder's adapter. One that does not fit is an error with the plan, and books nothing.
    pub fn book_adapter(&self, adapter_bytes: u64, wish: &Wish) -> Result<(), ModelError> {
        let _alone = lock(&self.bases.planning);
        let device = self.bases.device(self.slot.place, None);
        let mut holders = lock(&self.slot.holders);
        let with = holders.models.iter().find(|other| other.name != self.holder);
        let with = with.map_or_else(String::new, |other| other.name.clone());
        let kv_tokens = holders.plan.as_ref().map_or(0, |plan| plan.kv_tokens);
        let Some(own) = holders.find(&self.holder) else { return Ok(()) };
        // what came with the base's own plan is booked already
        if adapter_bytes > own.adapter_bytes {
            let others = Device {
                committed_bytes: device.committed_bytes - own.adapter_bytes,
                pending_bytes: device.pending_bytes - if own.is_settled { 0 } else { own.adapter_bytes },
                ..device
            };
            let plan = budget::plan_shared(adapter_bytes, &others, wish, &with, kv_tokens);
            if !plan.fits() {
                return Err(ModelError::InsufficientMemory { plan: Box::new(plan) });
            }
        }
        own.adapter_bytes = adapter_bytes;
        Ok(())
    }

    /// The adapter is in memory and takes this much.
    pub fn settle_adapter(&self, adapter_bytes: u64) {
        if let Some(own) = lock(&self.slot.holders).find(&self.holder) {
            own.adapter_bytes = adapter_bytes;
            own.is_settled = true;
        }
    }

    /// Gives the lease back. The last one waits until the engine's memory is free; a load under way is
    /// given up first.
    pub async fn release(self) {
        let is_reading = {
            let mut holders = lock(&self.slot.holders);
            holders.models.retain(|holder| holder.name != self.holder);
            if !holders.models.is_empty() {
                return;
            }
            holders.is_closing = true;
            holders.is_reading
        };
        self.slot.is_given_up.store(true, Ordering::SeqCst);
        if is_reading {
            let mut phase = self.slot.phase.subscribe();
            let has_ended = |phase: &Phase| !matches!(phase, Phase::Loading(_));
            let engine = match phase.wait_for(has_ended).await.as_deref() {
                Ok(Phase::Loaded(base)) => Some(base.engine.clone()),
                _ => None,
            };
            if let Some(engine) = engine {
                engine.close().await;
            }
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
