//! A few threads that stay, for parallel regions of some microseconds.
//!
//! The caller works too and never waits for a thread that has not begun: on a machine that others use,
//! a region then costs what the caller alone needs, not what the unluckiest thread needs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Looks at the gate before a thread sleeps, and before the caller yields: some 20 µs.
const SPINS: u32 = 1_000;
/// Gate: bit 0 is "open", bits 1..32 count the threads inside, the rest is the region's number.
const OPEN: u64 = 1;
const INSIDE: u64 = 2;
const INSIDE_MASK: u64 = 0xffff_fffe;
const REGION: u64 = 1 << 32;

pub struct Threads {
    shared: Arc<State>,
    handles: Vec<JoinHandle<()>>,
}

struct State {
    gate: AtomicU64,
    next: AtomicUsize,
    n_tasks: AtomicUsize,
    /// Address of the region's closure and of the function that calls it.
    closure: AtomicUsize,
    call: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    wake: Condvar,
}

/// # Safety
/// The first argument is the address of the closure it was made for, still alive.
type Call = unsafe fn(usize, usize, usize);

impl Threads {
    /// `n` threads including the caller; 0: the cores this process may use.
    pub fn new(n: usize) -> std::io::Result<Self> {
        let n = if n == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { n };
        let shared = Arc::new(State {
            gate: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            n_tasks: AtomicUsize::new(0),
            closure: AtomicUsize::new(0),
            call: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut threads = Self { shared, handles: Vec::with_capacity(n - 1) };
        for id in 1..n {
            let state = threads.shared.clone();
            let builder = std::thread::Builder::new().name(format!("adit-nn-{id}"));
            threads.handles.push(builder.spawn(move || state.work(id))?);
        }
        Ok(threads)
    }

    /// Threads that may work at once, the caller included.
    pub fn count(&self) -> usize {
        self.handles.len() + 1
    }

    /// Calls `task(i, thread)` once for each `i < n_tasks`, `thread < count()`, and returns when all are
    /// done. Exclusive, because a region uses the pool alone.
    pub fn run<F: Fn(usize, usize) + Sync>(&mut self, n_tasks: usize, task: &F) {
        if n_tasks <= 1 || self.handles.is_empty() {
            (0..n_tasks).for_each(|i| task(i, 0));
            return;
        }
        /// # Safety
        /// `closure` is the address of a live F.
        unsafe fn call<F: Fn(usize, usize) + Sync>(closure: usize, i: usize, thread: usize) {
            // SAFETY: `closure` is the address of an F that outlives the region: `Region` closes on drop.
            unsafe { (*(closure as *const F))(i, thread) }
        }
        let state = &*self.shared;
        let entry: Call = call::<F>;
        state.next.store(0, SeqCst);
        state.n_tasks.store(n_tasks, SeqCst);
        state.closure.store(std::ptr::from_ref(task) as usize, SeqCst);
        state.call.store(entry as usize, SeqCst);
        let region = Region(state);
        state.gate.fetch_add(REGION | OPEN, SeqCst);
        if state.sleepers.load(SeqCst) > 0 {
            let _bed = state.bed.lock().unwrap_or_else(PoisonError::into_inner);
            state.wake.notify_all();
        }
        while let Some(i) = state.claim() {
            task(i, 0);
        }
        drop(region);
        assert!(!state.panicked.swap(false, SeqCst), "a kernel panicked in another thread");
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        {
            let _bed = self.shared.bed.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_all();
        }
        for handle in self.handles.drain(..) {
            // a panic was already reported by the region it happened in
            let _ = handle.join();
        }
    }
}

/// An open region. Closing it keeps new threads out and waits for those inside.
struct Region<'a>(&'a State);

impl Drop for Region<'_> {
    fn drop(&mut self) {
        self.0.gate.fetch_and(!OPEN, SeqCst);
        let mut spins = 0;
        while self.0.gate.load(SeqCst) & INSIDE_MASK != 0 {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

impl State {
    fn claim(&self) -> Option<usize> {
        let i = self.next.fetch_add(1, SeqCst);
        (i < self.n_tasks.load(SeqCst)).then_some(i)
    }

    fn work(&self, thread: usize) {
        let mut last = 0;
        while let Some(gate) = self.enter(last) {
            last = gate;
            let (closure, call) = (self.closure.load(SeqCst), self.call.load(SeqCst));
            // SAFETY: `run` stored a Call before it opened the gate that `enter` found open.
            let call: Call = unsafe { std::mem::transmute(call) };
            let done = catch_unwind(AssertUnwindSafe(|| {
                while let Some(i) = self.claim() {
                    // SAFETY: the region cannot end while this thread is counted inside.
                    unsafe { call(closure, i, thread) }
                }
            }));
            if done.is_err() {
                self.panicked.store(true, SeqCst);
            }
            self.gate.fetch_sub(INSIDE, SeqCst);
        }
    }

    /// Waits for a region later than `last` and goes inside: returns its number, or None to stop.
    fn enter(&self, last: u64) -> Option<u64> {
        let mut spins = 0;
        loop {
            if self.stop.load(SeqCst) {
                return None;
            }
            let gate = self.gate.load(SeqCst);
            if gate & OPEN != 0 && gate / REGION != last {
                if self.gate.compare_exchange(gate, gate + INSIDE, SeqCst, SeqCst).is_ok() {
                    return Some(gate / REGION);
                }
                continue;
            }
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                self.sleep(last);
                spins = 0;
            }
        }
    }

    fn sleep(&self, last: u64) {
        let bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, SeqCst);
        let gate = self.gate.load(SeqCst);
        // counted as a sleeper before looking: `run` opens first and counts sleepers after
        let idle = gate & OPEN == 0 || gate / REGION == last;
        if idle && !self.stop.load(SeqCst) {
            drop(self.wake.wait(bed).unwrap_or_else(PoisonError::into_inner));
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }
}
