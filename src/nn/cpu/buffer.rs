//! Zeroed memory on cache-line boundaries, with an error instead of an abort when there is none.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::nn::Error;

const ALIGN: usize = 64;

/// Types for which all bits zero is a value, and that need no drop.
pub trait Plain: Copy + Send + Sync + 'static {}
impl Plain for f32 {}
impl Plain for i32 {}
impl Plain for half::f16 {}
impl Plain for i8 {}
impl Plain for u8 {}

/// From here on memory is mapped, not allocated: an allocator keeps freed blocks of a thread that is gone,
/// and a model that was unloaded would still be resident.
const MAPPED_BYTES: usize = 1 << 17;

pub struct Buffer<T: Plain> {
    ptr: NonNull<T>,
    len: usize,
    /// Owner of the memory, if it is mapped.
    mapping: Option<memmap2::MmapMut>,
}

// SAFETY: a Buffer owns its memory alone, like a Vec, and T is Send and Sync.
unsafe impl<T: Plain> Send for Buffer<T> {}
// SAFETY: as above; shared access only reads.
unsafe impl<T: Plain> Sync for Buffer<T> {}

impl<T: Plain> Buffer<T> {
    /// `len` zeros; `what` names them in the error.
    pub fn zeroed(len: usize, what: &'static str) -> Result<Self, Error> {
        if len == 0 {
            return Ok(Self::empty());
        }
        let no_memory =
            || Error::OutOfMemory { what, bytes: (len as u64).saturating_mul(size_of::<T>() as u64) };
        let layout = Self::layout(len).ok_or_else(no_memory)?;
        if layout.size() >= MAPPED_BYTES {
            let mut mapping = memmap2::MmapMut::map_anon(layout.size()).map_err(|_| no_memory())?;
            // a mapping begins on a page, which is more than ALIGN, and reads as zeros
            let ptr = NonNull::new(mapping.as_mut_ptr().cast::<T>()).ok_or_else(no_memory)?;
            return Ok(Self { ptr, len, mapping: Some(mapping) });
        }
        // SAFETY: the layout is not of size zero.
        let ptr = unsafe { alloc_zeroed(layout) }.cast::<T>();
        Ok(Self { ptr: NonNull::new(ptr).ok_or_else(no_memory)?, len, mapping: None })
    }

    pub fn empty() -> Self {
        Self { ptr: NonNull::dangling(), len: 0, mapping: None }
    }

    pub fn bytes(&self) -> u64 {
        (self.len * size_of::<T>()) as u64
    }

    fn layout(len: usize) -> Option<Layout> {
        Layout::array::<T>(len).ok()?.align_to(ALIGN).ok()
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.len > 0
            && self.mapping.is_none()
            && let Some(layout) = Self::layout(self.len)
        {
            // SAFETY: not mapped, so allocated in `zeroed` with this same layout.
            unsafe { dealloc(self.ptr.as_ptr().cast(), layout) }
        }
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `len` values were allocated and zeroed, which is a value of every Plain type.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

/// A slice that several tasks of one parallel region write, each its own part.
#[derive(Clone, Copy)]
pub struct Shared<T> {
    ptr: *mut T,
    len: usize,
}

// SAFETY: access goes through `slice`, whose contract is that parts do not overlap.
unsafe impl<T: Plain> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Shared<T> {}

impl<T: Plain> Shared<T> {
    pub fn new(slice: &mut [T]) -> Self {
        Self { ptr: slice.as_mut_ptr(), len: slice.len() }
    }

    pub fn as_ptr(&self) -> *mut T {
        self.ptr
    }

    /// # Safety
    /// No other task of the region touches these elements, and the slice it was made of is still borrowed.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, first: usize, n: usize) -> &mut [T] {
        assert!(first + n <= self.len, "part {first}+{n} of a slice of {}", self.len);
        // SAFETY: in bounds by the assertion, unaliased by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(first), n) }
    }
}
