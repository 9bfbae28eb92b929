//! A card: its memory, its stream, its kernels.

use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::cublas;
use candle_core::cuda_backend::cudarc::driver::result::{
    free_host, malloc_host, memcpy_dtod_async, memcpy_dtoh_async, memcpy_htod_async,
};
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUdevice_attribute, CUevent_flags, CUfunction_attribute,
};
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DeviceRepr,
    DriverError, LaunchConfig, PushKernelArg, ValidAsZeroBits,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;

use crate::nn::Error;

mod compiled {
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// Of cuBLAS, so that it allocates nothing while a step is captured; what its documents advise for Hopper.
pub const WORKSPACE_BYTES: usize = 32 << 20;
/// Shared memory that a kernel gets without asking.
const PLAIN_SHARED_BYTES: u32 = 48 << 10;

/// An open card. Everything made by it lives on it.
pub struct Card {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    /// For what goes up while a step runs.
    copies: Arc<CudaStream>,
    /// For launches beside others.
    side: Arc<CudaStream>,
    forked: CudaEvent,
    joined: CudaEvent,
    /// What the stream waits for before it uses what went up.
    has_come: CudaEvent,
    modules: HashMap<&'static str, Arc<CudaModule>>,
    functions: RefCell<HashMap<String, CudaFunction>>,
    _workspace: CudaSlice<u8>,
    n_multiprocessors: usize,
}

/// Memory of a card; freed in stream order.
pub struct Buffer<T> {
    slice: CudaSlice<T>,
    address: u64,
}

/// Memory of the machine that a card reads and writes by itself while the program goes on.
pub struct Pinned<T> {
    at: *mut T,
    len: usize,
    context: Arc<CudaContext>,
}

// SAFETY: it is owned memory of plain values; the card's own accesses are ordered by waiting for the stream.
unsafe impl<T: Send> Send for Pinned<T> {}

impl<T> std::ops::Deref for Pinned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: allocated with this length and filled with zeros, which are values of the type.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }
}

impl<T> std::ops::DerefMut for Pinned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        // SAFETY: allocated by `malloc_host`; whoever drops it has waited for the copies that use it.
        let _ = self.context.bind_to_thread().and_then(|()| unsafe { free_host(self.at.cast()) });
    }
}

/// A place in the stream's order, for the time between two of them.
pub struct Stamp(CudaEvent);

/// A part of a buffer that a kernel reads.
#[derive(Debug)]
pub struct View<'a, T> {
    address: u64,
    len: usize,
    buffer: PhantomData<&'a T>,
}

/// A part of a buffer that a kernel writes, and may read.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    address: u64,
    len: usize,
    buffer: PhantomData<&'a mut T>,
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

impl<'a, T> View<'a, T> {
    /// Nothing, for a kernel that does without.
    pub const NULL: Self = Self { address: 0, len: 0, buffer: PhantomData };

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    pub fn part(&self, range: Range<usize>) -> View<'a, T> {
        assert!(range.start <= range.end && range.end <= self.len, "a part of a buffer lies inside it");
        let address = self.address + (range.start * size_of::<T>()) as u64;
        View { address, len: range.len(), buffer: PhantomData }
    }
}

impl<'a> View<'a, u32> {
    /// Words as structs that consist of them.
    pub fn of<U: DeviceRepr>(&self) -> View<'a, U> {
        assert!(size_of::<U>().is_multiple_of(4) && align_of::<U>() == 4, "structs of words");
        let len = self.len / (size_of::<U>() / 4);
        View { address: self.address, len, buffer: PhantomData }
    }
}

impl<T> ViewMut<'_, T> {
    pub const NULL: Self = Self { address: 0, len: 0, buffer: PhantomData };

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn address(&self) -> u64 {
        self.address
    }
}

impl<T> Buffer<T> {
    pub fn len(&self) -> usize {
        self.slice.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slice.len() == 0
    }

    pub fn bytes(&self) -> u64 {
        (self.len() * size_of::<T>()) as u64
    }

    pub fn all(&self) -> View<'_, T> {
        View { address: self.address, len: self.len(), buffer: PhantomData }
    }

    pub fn part(&self, range: Range<usize>) -> View<'_, T> {
        self.all().part(range)
    }

    pub fn all_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut { address: self.address, len: self.len(), buffer: PhantomData }
    }

    pub fn part_mut(&mut self, range: Range<usize>) -> ViewMut<'_, T> {
        let View { address, len, .. } = self.part(range);
        ViewMut { address, len, buffer: PhantomData }
    }
}

/// A kernel's argument.
#[derive(Clone, Copy)]
pub enum Arg {
    Address(u64),
    Int(i32),
    Word(u32),
    Float(f32),
}

impl<T> From<View<'_, T>> for Arg {
    fn from(view: View<'_, T>) -> Self {
        Self::Address(view.address)
    }
}

impl<T> From<&ViewMut<'_, T>> for Arg {
    fn from(view: &ViewMut<'_, T>) -> Self {
        Self::Address(view.address)
    }
}

impl From<usize> for Arg {
    fn from(value: usize) -> Self {
        Self::Int(i32::try_from(value).expect("sizes of a step are below 2^31"))
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::Word(value)
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

/// Which kernel, by how many threads.
pub struct Launch<'a> {
    /// Its file in `src/kernels`.
    pub file: &'static str,
    pub name: &'a str,
    pub grid: [usize; 2],
    pub threads: usize,
    /// Of dynamic shared memory.
    pub shared_bytes: usize,
}

/// Free and total bytes of a card, without opening it for work. What the driver keeps for this process is not free.
pub fn memory(ordinal: usize) -> Result<(u64, u64), Error> {
    let context = context(ordinal)?;
    let (free, total) = context.mem_get_info().map_err(|e| driver(&format!("card {ordinal}"), 0, e))?;
    Ok((free as u64, total as u64))
}

/// The card's name; an error if it is not one that the kernels are made for.
pub fn describe(ordinal: usize) -> Result<String, Error> {
    let context = context(ordinal)?;
    check(&context)?;
    context.name().map_err(|e| driver(&format!("card {ordinal}"), 0, e))
}

fn check(context: &CudaContext) -> Result<(), Error> {
    let which = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
    let major = context.attribute(which).map_err(|e| driver("asking the card", 0, e))?;
    if major == 9 {
        return Ok(());
    }
    let cause = format!("of compute capability {major}; the kernels are made for 9.0 (Hopper)");
    Err(Error::Device { what: "the card".into(), cause })
}

/// Making and giving back a context takes long: it stays.
fn context(ordinal: usize) -> Result<Arc<CudaContext>, Error> {
    static CONTEXTS: Mutex<BTreeMap<usize, Arc<CudaContext>>> = Mutex::new(BTreeMap::new());
    let fail = |e| driver(&format!("card {ordinal}"), 0, e);
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let context = match contexts.entry(ordinal) {
        Entry::Occupied(there) => there.into_mut(),
        Entry::Vacant(free) => free.insert(CudaContext::new(ordinal).map_err(fail)?),
    };
    context.bind_to_thread().map_err(fail)?;
    Ok(context.clone())
}

impl Card {
    /// Cards of this machine; 0 where there is no driver.
    pub fn count() -> usize {
        CudaContext::device_count().ok().and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
    }

    /// Opens a card and loads the kernels. An error where there is no driver, no such card, or one of another
    /// generation.
    pub fn open(ordinal: usize) -> Result<Self, Error> {
        let device = CudaDevice::new_with_stream(ordinal).map_err(|e| failed("opening the card", e))?;
        // SAFETY: all work goes to this one stream, so nothing has to wait for anything.
        unsafe { device.disable_event_tracking() };
        let stream = device.cuda_stream();
        let context = stream.context();
        let copies = context.new_stream().map_err(|e| driver("a second stream", 0, e))?;
        let side = context.new_stream().map_err(|e| driver("a third stream", 0, e))?;
        let forked = context.new_event(None).map_err(|e| driver("an event", 0, e))?;
        let joined = context.new_event(None).map_err(|e| driver("an event", 0, e))?;
        let has_come = context.new_event(None).map_err(|e| driver("an event", 0, e))?;
        let attribute = |which| context.attribute(which).map_err(|e| driver("asking the card", 0, e));
        check(context)?;
        let n_multiprocessors = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let mut modules = HashMap::new();
        for (name, code) in compiled::MODULES {
            let module = context.load_module(Ptx::from_binary(code.to_vec()));
            modules.insert(*name, module.map_err(|e| driver(&format!("kernels of {name}"), 0, e))?);
        }
        // SAFETY: cuBLAS alone uses it, and writes before it reads.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE_BYTES) }
            .map_err(|e| driver("workspace of cuBLAS", WORKSPACE_BYTES, e))?;
        let blas = device.cublas_handle();
        // SAFETY: the handle is alive, and the workspace lives as long as the card.
        let set = unsafe {
            let address = workspace.device_ptr(&stream).0 as *mut _;
            cublas::sys::cublasSetWorkspace_v2(*blas.handle(), address, WORKSPACE_BYTES)
        };
        set.result().map_err(|e| Error::Device { what: "cuBLAS".into(), cause: format!("{e:?}") })?;
        Ok(Self {
            device,
            stream,
            copies,
            side,
            forked,
            joined,
            has_come,
            modules,
            functions: RefCell::new(HashMap::new()),
            _workspace: workspace,
            n_multiprocessors: n_multiprocessors as usize,
        })
    }

    pub fn name(&self) -> String {
        self.stream.context().name().unwrap_or_else(|_| "a card without a name".into())
    }

    pub fn n_multiprocessors(&self) -> usize {
        self.n_multiprocessors
    }

    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    pub(super) fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// Free and total bytes, as the driver sees them.
    pub fn memory(&self) -> Result<(u64, u64), Error> {
        let (free, total) =
            self.stream.context().mem_get_info().map_err(|e| driver("asking for memory", 0, e))?;
        Ok((free as u64, total as u64))
    }

    /// Memory of zeros.
    pub fn zeroed<T: DeviceRepr + ValidAsZeroBits>(
        &self,
        n: usize,
        what: &'static str,
    ) -> Result<Buffer<T>, Error> {
        // an empty allocation is none to the driver
        let slice = self.stream.alloc_zeros::<T>(n.max(1)).map_err(|e| out_of_memory::<T>(what, n, e))?;
        Ok(self.own(slice))
    }

    /// A copy of the values.
    pub fn upload<T: DeviceRepr>(&self, values: &[T], what: &'static str) -> Result<Buffer<T>, Error> {
        let slice = self.stream.clone_htod(values).map_err(|e| out_of_memory::<T>(what, values.len(), e))?;
        Ok(self.own(slice))
    }

    fn own<T>(&self, slice: CudaSlice<T>) -> Buffer<T> {
        let address = slice.device_ptr(&self.stream).0;
        Buffer { slice, address }
    }

    /// Writes values from the start of a buffer on. The values may change once this has returned.
    pub fn write<T: DeviceRepr>(&self, values: &[T], to: &mut Buffer<T>) -> Result<(), Error> {
        assert!(values.len() <= to.len(), "a buffer holds what is written to it");
        self.stream.memcpy_htod(values, &mut to.slice).map_err(|e| driver("writing to the card", 0, e))
    }

    /// Writes values into a part of a buffer. They may change once this has returned: the driver has taken them.
    pub fn write_part<T: DeviceRepr>(&self, values: &[T], to: &ViewMut<T>) -> Result<(), Error> {
        assert!(values.len() == to.len(), "a part is written whole");
        self.stream.context().bind_to_thread().map_err(|e| driver("writing to the card", 0, e))?;
        // SAFETY: the part lies in a live buffer of this card.
        let done = unsafe { memcpy_htod_async(to.address, values, self.stream.cu_stream()) };
        done.map_err(|e| driver("writing to the card", size_of_val(values), e))
    }

    /// Waits for all work and reads the first `n` values.
    pub fn read<T: DeviceRepr>(&self, from: &Buffer<T>, n: usize) -> Result<Vec<T>, Error> {
        let values = self.stream.clone_dtoh(&from.slice.slice(0..n));
        let values = values.map_err(|e| driver("reading from the card", 0, e))?;
        self.wait()?;
        Ok(values)
    }

    /// Waits for all work and reads values into memory that is there.
    pub fn read_into<T: DeviceRepr>(&self, from: &Buffer<T>, to: &mut [T]) -> Result<(), Error> {
        let part = from.slice.slice(0..to.len());
        self.stream.memcpy_dtoh(&part, to).map_err(|e| driver("reading from the card", 0, e))?;
        self.wait()
    }

    /// Memory of the machine for copies beside a step, all zeros.
    pub fn pinned<T: DeviceRepr + ValidAsZeroBits>(&self, n: usize) -> Result<Pinned<T>, Error> {
        let context = self.stream.context().clone();
        let bytes = n.max(1) * size_of::<T>();
        context.bind_to_thread().map_err(|e| driver("pinned memory", bytes, e))?;
        // SAFETY: the whole allocation is zeroed, which the type allows; page alignment is enough for any.
        let at = unsafe {
            let at = malloc_host(bytes, 0).map_err(|e| driver("pinned memory", bytes, e))?;
            at.cast::<u8>().write_bytes(0, bytes);
            at.cast::<T>()
        };
        Ok(Pinned { at, len: n, context })
    }

    /// Copies the first `n` values up in the stream's order, while the program goes on: they must not change before
    /// the stream has been waited for.
    pub fn write_pinned<T: DeviceRepr>(
        &self,
        from: &Pinned<T>,
        n: usize,
        to: &mut Buffer<T>,
    ) -> Result<(), Error> {
        assert!(n <= to.len() && n <= from.len(), "a buffer holds what is written to it");
        let fail = |e| driver("writing to the card", n * size_of::<T>(), e);
        self.stream.context().bind_to_thread().map_err(fail)?;
        // SAFETY: the buffer lives on this card and is as long; the memory is pinned and outlives the step.
        unsafe { memcpy_htod_async(to.address, &from[..n], self.stream.cu_stream()) }.map_err(fail)
    }

    /// The same beside whatever the stream is doing; what is launched from here on finds the values. Nothing that was
    /// launched before and still runs uses the buffer.
    pub fn send<T: DeviceRepr>(&self, from: &Pinned<T>, n: usize, to: &mut Buffer<T>) -> Result<(), Error> {
        assert!(n <= to.len() && n <= from.len(), "a buffer holds what is written to it");
        let fail = |e| driver("writing to the card", n * size_of::<T>(), e);
        self.stream.context().bind_to_thread().map_err(fail)?;
        // SAFETY: as above; no other stream uses the buffer now, and the stream waits for the copy.
        unsafe { memcpy_htod_async(to.address, &from[..n], self.copies.cu_stream()) }.map_err(fail)?;
        self.has_come.record(&self.copies).map_err(fail)?;
        self.stream.wait(&self.has_come).map_err(fail)
    }

    /// Waits for all work and reads the first `n` values.
    pub fn read_pinned<T: DeviceRepr>(
        &self,
        from: &Buffer<T>,
        n: usize,
        to: &mut Pinned<T>,
    ) -> Result<(), Error> {
        assert!(n <= from.len() && n <= to.len(), "memory holds what is read into it");
        let fail = |e| driver("reading from the card", n * size_of::<T>(), e);
        self.stream.context().bind_to_thread().map_err(fail)?;
        // SAFETY: the buffer is as long, the memory is pinned, and is used after the wait alone.
        unsafe { memcpy_dtoh_async(&mut to[..n], from.address, self.stream.cu_stream()) }.map_err(fail)?;
        self.wait()
    }

    /// Waits for all work and reads a part into memory that is there.
    pub fn read_part<T: DeviceRepr>(&self, from: View<T>, to: &mut [T]) -> Result<(), Error> {
        assert!(from.len() == to.len(), "as much is read as there is room for");
        let fail = |e| driver("reading from the card", size_of_val(to), e);
        self.stream.context().bind_to_thread().map_err(fail)?;
        // SAFETY: the part lies in a live buffer of this card; the wait is before anyone sees the values.
        unsafe { memcpy_dtoh_async(&mut *to, from.address, self.stream.cu_stream()) }
            .map_err(|e| driver("reading from the card", 0, e))?;
        self.wait()
    }

    /// A stamp that has not been set.
    pub fn stamp(&self) -> Result<Stamp, Error> {
        let made = self.stream.context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        Ok(Stamp(made.map_err(|e| driver("an event", 0, e))?))
    }

    /// Sets a stamp behind all work so far.
    pub fn set(&self, stamp: &Stamp) -> Result<(), Error> {
        stamp.0.record(&self.stream).map_err(|e| driver("taking the time", 0, e))
    }

    /// Milliseconds between two stamps that were set; waits for the later one.
    pub fn between_ms(&self, begun: &Stamp, ended: &Stamp) -> Result<f32, Error> {
        begun.0.elapsed_ms(&ended.0).map_err(|e| driver("taking the time", 0, e))
    }

    /// Zeros, in stream order.
    pub fn clear<T: DeviceRepr + ValidAsZeroBits>(&self, buffer: &mut Buffer<T>) -> Result<(), Error> {
        self.stream.memset_zeros(&mut buffer.slice).map_err(|e| driver("clearing memory", 0, e))
    }

    /// Copies within the card.
    pub fn copy<T: DeviceRepr>(&self, from: View<T>, to: &ViewMut<T>) -> Result<(), Error> {
        assert!(from.len() == to.len(), "as much is written as is read");
        let bytes = from.len() * size_of::<T>();
        self.stream.context().bind_to_thread().map_err(|e| driver("copying", 0, e))?;
        // SAFETY: both parts lie in live buffers of this card, and a mutable one overlaps no other.
        let done = unsafe { memcpy_dtod_async(to.address, from.address, bytes, self.stream.cu_stream()) };
        done.map_err(|e| driver("copying", bytes, e))
    }

    /// Waits for all work.
    pub fn wait(&self) -> Result<(), Error> {
        self.stream.synchronize().map_err(|e| driver("waiting for the card", 0, e))
    }

    /// From here on [`Card::launch_beside`] begins behind what was launched so far.
    pub(super) fn fork(&self) -> Result<(), Error> {
        let fail = |e| driver("a fork", 0, e);
        self.forked.record(&self.stream).map_err(fail)?;
        self.side.wait(&self.forked).map_err(fail)
    }

    /// What is launched from here on begins behind what was launched beside.
    pub(super) fn join(&self) -> Result<(), Error> {
        let fail = |e| driver("a join", 0, e);
        self.joined.record(&self.side).map_err(fail)?;
        self.stream.wait(&self.joined).map_err(fail)
    }

    /// Hands a kernel to the stream.
    ///
    /// # Safety
    /// The arguments are those of the kernel, in order and type, and what it reads and writes lies inside the
    /// buffers that they point at.
    pub(super) unsafe fn launch(&self, launch: &Launch, args: &[Arg]) -> Result<(), Error> {
        // SAFETY: passed on to the caller.
        unsafe { self.launch_on(&self.stream, launch, args) }
    }

    /// The same beside the stream, between [`Card::fork`] and [`Card::join`].
    ///
    /// # Safety
    /// That of [`Card::launch`]; and nothing that is launched before the join writes what it reads or writes, or reads
    /// what it writes.
    pub(super) unsafe fn launch_beside(&self, launch: &Launch, args: &[Arg]) -> Result<(), Error> {
        // SAFETY: passed on to the caller.
        unsafe { self.launch_on(&self.side, launch, args) }
    }

    unsafe fn launch_on(&self, stream: &Arc<CudaStream>, launch: &Launch, args: &[Arg]) -> Result<(), Error> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        let mut functions = self.functions.borrow_mut();
        if !functions.contains_key(launch.name) {
            functions.insert(launch.name.to_string(), self.function(launch)?);
        }
        let mut builder = stream.launch_builder(&functions[launch.name]);
        for arg in args {
            match arg {
                Arg::Address(value) => builder.arg(value),
                Arg::Int(value) => builder.arg(value),
                Arg::Word(value) => builder.arg(value),
                Arg::Float(value) => builder.arg(value),
            };
        }
        let shape = LaunchConfig {
            grid_dim: (launch.grid[0] as u32, launch.grid[1] as u32, 1),
            block_dim: (launch.threads as u32, 1, 1),
            shared_mem_bytes: launch.shared_bytes as u32,
        };
        // SAFETY: passed on to the caller.
        unsafe { builder.launch(shape) }.map_err(|e| driver(launch.name, 0, e))?;
        Ok(())
    }

    fn function(&self, launch: &Launch) -> Result<CudaFunction, Error> {
        let fail = |e| driver(&format!("kernel {}", launch.name), 0, e);
        let module = self.modules.get(launch.file).expect("kernels are named by their file");
        let function = module.load_function(launch.name).map_err(fail)?;
        if launch.shared_bytes as u32 > PLAIN_SHARED_BYTES {
            let which = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(which, launch.shared_bytes as i32).map_err(fail)?;
        }
        Ok(function)
    }
}

fn failed(what: &str, cause: impl std::fmt::Display) -> Error {
    Error::Device { what: what.into(), cause: cause.to_string() }
}

fn out_of_memory<T>(what: &'static str, n: usize, error: DriverError) -> Error {
    use candle_core::cuda_backend::cudarc::driver::sys::CUresult;
    match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::OutOfMemory { what, bytes: (n * size_of::<T>()) as u64 },
        _ => driver(what, n * size_of::<T>(), error),
    }
}

pub(super) fn driver(what: &str, bytes: usize, error: DriverError) -> Error {
    let of = if bytes > 0 { format!(" ({bytes} bytes)") } else { String::new() };
    failed(&format!("{what}{of}"), error)
}
