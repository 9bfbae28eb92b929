//! Which instruction set the kernels run on.

/// A set of instructions for which the kernels are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// All of [`Isa::Avx512`], and the tile unit for products of integer blocks (Sapphire Rapids and later).
    Amx,
    /// AVX-512 F, BW, DQ, VL and VNNI (Ice Lake, Zen 4 and later).
    Avx512,
    /// AVX2, FMA and F16C.
    Avx2,
    /// Plain Rust, left to the compiler's vectoriser (NEON on aarch64).
    Portable,
}

impl Isa {
    /// The best that this machine has.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// All that this machine has, best first; never empty.
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("f16c")
            {
                if super::amx::usable() {
                    all.push(Self::Amx);
                }
                all.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                all.push(Self::Avx2);
            }
        }
        all.push(Self::Portable);
        all
    }
}

/// Compiles a generic kernel for each instruction set and puts a function in front that picks one.
///
/// `dispatch! { pub fn name(a: T, …) = kernel; }` makes an unsafe function `name(isa, a, …)`; its contract is the
/// kernel's, and that `isa` is one of [`Isa::available`].
macro_rules! dispatch {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $kernel:ident;)*) => {$(
        $(#[$doc])*
        /// # Safety
        /// The kernel's contract holds, and this machine has `isa`.
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name(isa: $crate::nn::cpu::isa::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
            #[allow(clippy::too_many_arguments)]
            // SAFETY: called below, where the caller has promised the set.
            unsafe fn avx512($($arg: $ty),*) {
                // SAFETY: passed on to the caller.
                unsafe { $kernel::<$crate::nn::cpu::simd::Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            // SAFETY: as above.
            unsafe fn avx2($($arg: $ty),*) {
                // SAFETY: passed on to the caller.
                unsafe { $kernel::<$crate::nn::cpu::simd::Avx2>($($arg),*) }
            }
            // SAFETY: passed on to the caller.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    $crate::nn::cpu::isa::Isa::Amx | $crate::nn::cpu::isa::Isa::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::nn::cpu::isa::Isa::Avx2 => avx2($($arg),*),
                    _ => $kernel::<$crate::nn::cpu::simd::Portable>($($arg),*),
                }
            }
        }
    )*};
}
pub(crate) use dispatch;
