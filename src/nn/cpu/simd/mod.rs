//! Sixteen lanes, three ways: the operations that kernels are written in.
//!
//! All functions are `#[inline(always)]`, so that they take on the target features of the kernel that
//! [`super::isa::dispatch`] compiles around them.

/// Declares operations whose contract is the trait's.
macro_rules! declare {
    ($($(#[$doc:meta])* fn $name:ident $(<const $flag:ident: bool>)? ($($arg:ident: $ty:ty),*) $(-> $out:ty)?;)*) => {$(
        $(#[$doc])*
        /// # Safety
        /// That of [`Simd`].
        unsafe fn $name $(<const $flag: bool>)? ($($arg: $ty),*) $(-> $out)?;
    )*};
}

/// Implements operations: what each body calls is good wherever the trait's contract holds.
macro_rules! ops {
    ($(fn $name:ident $(<const $flag:ident: bool>)? ($($arg:ident: $ty:ty),*) $(-> $out:ty)? $body:block)*) => {$(
        // SAFETY: the contract of `Simd`, kept by the caller.
        #[inline(always)]
        #[allow(unused_unsafe)]
        unsafe fn $name $(<const $flag: bool>)? ($($arg: $ty),*) $(-> $out)? { unsafe { $body } }
    )*};
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use portable::Portable;

/// # Safety
/// Of every function: the machine has the instructions of the implementation, and pointers are good for
/// 16 elements (64 bytes for [`Simd::load_bytes`]), of any alignment.
pub trait Simd: Copy {
    /// 16 × f32.
    type V: Copy;
    /// 16 × i32, or 64 bytes.
    type I: Copy;
    /// Rows of the largest f32 and the largest integer register tile: one panel each, two for f32 if
    /// `WIDE`.
    const F32_ROWS: usize;
    const INT_ROWS: usize;
    const WIDE: bool;

    declare! {
        fn splat(x: f32) -> Self::V;
        fn load(p: *const f32) -> Self::V;
        fn store(p: *mut f32, v: Self::V);
        fn load_f16(p: *const u16) -> Self::V;
        fn load_bf16(p: *const u16) -> Self::V;
        /// Rounds to the nearest, ties to even.
        fn store_f16(p: *mut u16, v: Self::V);
        fn add(a: Self::V, b: Self::V) -> Self::V;
        fn sub(a: Self::V, b: Self::V) -> Self::V;
        fn mul(a: Self::V, b: Self::V) -> Self::V;
        fn div(a: Self::V, b: Self::V) -> Self::V;
        fn max(a: Self::V, b: Self::V) -> Self::V;
        fn min(a: Self::V, b: Self::V) -> Self::V;
        fn abs(a: Self::V) -> Self::V;
        /// a·b + c
        fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
        /// To the nearest integer, ties to even.
        fn round(a: Self::V) -> Self::V;
        /// a·2ⁿ, n integral in -126..=127.
        fn scale2(a: Self::V, n: Self::V) -> Self::V;
        /// `a` where `x >= limit`, else 0.
        fn zero_below(a: Self::V, x: Self::V, limit: f32) -> Self::V;
        /// Sum of the lanes, in an order fixed per implementation.
        fn sum(a: Self::V) -> f32;
        fn largest(a: Self::V) -> f32;

        /// Asks for the cache line of an address, which may lie anywhere.
        fn prefetch(p: *const u8);

        fn isplat(x: i32) -> Self::I;
        fn load_bytes(p: *const u8) -> Self::I;
        /// Per lane: acc + Σ of four products of unsigned bytes of `w` with signed bytes of `x`.
        /// `SMALL` promises that no byte of `w` exceeds 127.
        fn dot<const SMALL: bool>(acc: Self::I, w: Self::I, x: Self::I) -> Self::I;
        fn low_nibbles(a: Self::I) -> Self::I;
        fn high_nibbles(a: Self::I) -> Self::I;
        fn to_f32(a: Self::I) -> Self::V;
        /// Rounds 16 values of -127..=127 to bytes at `p` and returns their sum.
        fn store_i8(p: *mut i8, v: Self::V) -> i32;
    }

    /// eˣ to about 1e-7 relative; 0 below -87.3, capped at e^88.3. Cephes' expf.
    /// # Safety
    /// That of the trait.
    #[inline(always)]
    unsafe fn exp(x: Self::V) -> Self::V {
        // SAFETY: passed on to the caller.
        unsafe {
            let c = Self::min(Self::max(x, Self::splat(-87.3)), Self::splat(88.3));
            let n = Self::round(Self::mul(c, Self::splat(std::f32::consts::LOG2_E)));
            let r = Self::fma(n, Self::splat(-0.693_359_4), c);
            let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
            let mut p = Self::splat(1.987_569_1e-4);
            for k in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
                p = Self::fma(p, r, Self::splat(k));
            }
            let y = Self::fma(Self::mul(r, r), p, Self::add(r, Self::splat(1.0)));
            Self::zero_below(Self::scale2(y, n), x, -87.3)
        }
    }
}
