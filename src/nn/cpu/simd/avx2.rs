//! Two 256-bit registers.

use std::arch::x86_64::*;

use super::Simd;

#[derive(Clone, Copy)]
pub struct Avx2;

impl Simd for Avx2 {
    type V = [__m256; 2];
    type I = [__m256i; 2];
    const F32_ROWS: usize = 4;
    const INT_ROWS: usize = 2;
    const WIDE: bool = false;

    ops! {
        fn splat(x: f32) -> Self::V {
            [_mm256_set1_ps(x); 2]
        }
        fn load(p: *const f32) -> Self::V {
            [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))]
        }
        fn store(p: *mut f32, v: Self::V) {
            _mm256_storeu_ps(p, v[0]);
            _mm256_storeu_ps(p.add(8), v[1]);
        }
        fn load_f16(p: *const u16) -> Self::V {
            [_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast()))]
        }
        fn load_bf16(p: *const u16) -> Self::V {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8).cast()));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        }
        fn store_f16(p: *mut u16, v: Self::V) {
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]));
            _mm_storeu_si128(p.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]));
        }
        fn add(a: Self::V, b: Self::V) -> Self::V {
            [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])]
        }
        fn sub(a: Self::V, b: Self::V) -> Self::V {
            [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])]
        }
        fn mul(a: Self::V, b: Self::V) -> Self::V {
            [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])]
        }
        fn div(a: Self::V, b: Self::V) -> Self::V {
            [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])]
        }
        fn max(a: Self::V, b: Self::V) -> Self::V {
            [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])]
        }
        fn min(a: Self::V, b: Self::V) -> Self::V {
            [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])]
        }
        fn abs(a: Self::V) -> Self::V {
            let sign = _mm256_set1_ps(-0.0);
            [_mm256_andnot_ps(sign, a[0]), _mm256_andnot_ps(sign, a[1])]
        }
        fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
        }
        fn round(a: Self::V) -> Self::V {
            const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            [_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])]
        }
        fn scale2(a: Self::V, n: Self::V) -> Self::V {
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n[0]), bias));
            let high = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n[1]), bias));
            [_mm256_mul_ps(a[0], _mm256_castsi256_ps(low)), _mm256_mul_ps(a[1], _mm256_castsi256_ps(high))]
        }
        fn zero_below(a: Self::V, x: Self::V, limit: f32) -> Self::V {
            let limit = _mm256_set1_ps(limit);
            [
                _mm256_and_ps(a[0], _mm256_cmp_ps::<_CMP_GE_OQ>(x[0], limit)),
                _mm256_and_ps(a[1], _mm256_cmp_ps::<_CMP_GE_OQ>(x[1], limit)),
            ]
        }
        fn sum(a: Self::V) -> f32 {
            let s = _mm256_add_ps(a[0], a[1]);
            let s = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps::<1>(s));
            let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps::<1>(s, s)))
        }
        fn largest(a: Self::V) -> f32 {
            let s = _mm256_max_ps(a[0], a[1]);
            let s = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps::<1>(s));
            let s = _mm_max_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps::<1>(s, s)))
        }
        fn prefetch(p: *const u8) {
            _mm_prefetch::<_MM_HINT_T0>(p.cast())
        }
        fn isplat(x: i32) -> Self::I {
            [_mm256_set1_epi32(x); 2]
        }
        fn load_bytes(p: *const u8) -> Self::I {
            [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())]
        }
        fn dot<const SMALL: bool>(acc: Self::I, w: Self::I, x: Self::I) -> Self::I {
            [dot_half::<SMALL>(acc[0], w[0], x[0]), dot_half::<SMALL>(acc[1], w[1], x[1])]
        }
        fn low_nibbles(a: Self::I) -> Self::I {
            let mask = _mm256_set1_epi8(0x0f);
            [_mm256_and_si256(a[0], mask), _mm256_and_si256(a[1], mask)]
        }
        fn high_nibbles(a: Self::I) -> Self::I {
            let mask = _mm256_set1_epi8(0x0f);
            [
                _mm256_and_si256(_mm256_srli_epi16::<4>(a[0]), mask),
                _mm256_and_si256(_mm256_srli_epi16::<4>(a[1]), mask),
            ]
        }
        fn to_f32(a: Self::I) -> Self::V {
            [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])]
        }
        fn store_i8(p: *mut i8, v: Self::V) -> i32 {
            let (a, b) = (_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
            // packs interleaves 128-bit halves; the permutation puts them back in order
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(p.cast(), bytes);
            let s = _mm256_add_epi32(a, b);
            let s = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256::<1>(s));
            let s = _mm_add_epi32(s, _mm_shuffle_epi32::<0b00_00_11_10>(s));
            _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32::<0b00_00_00_01>(s)))
        }
    }
}

/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn dot_half<const SMALL: bool>(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: the trait's contract.
    unsafe {
        if SMALL {
            // 2·127·127 < 2¹⁵: the pairwise sums do not saturate
            let pairs = _mm256_maddubs_epi16(w, x);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        } else {
            // even and odd bytes widened to 16 bits: exact for every byte
            let even = _mm256_madd_epi16(
                _mm256_and_si256(w, _mm256_set1_epi16(0xff)),
                _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x)),
            );
            let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(w), _mm256_srai_epi16::<8>(x));
            _mm256_add_epi32(acc, _mm256_add_epi32(even, odd))
        }
    }
}
