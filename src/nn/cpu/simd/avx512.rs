//! One 512-bit register; byte dot products by VNNI.

use std::arch::x86_64::*;

use super::Simd;

#[derive(Clone, Copy)]
pub struct Avx512;

impl Simd for Avx512 {
    type V = __m512;
    type I = __m512i;
    const F32_ROWS: usize = 8;
    const INT_ROWS: usize = 8;
    const WIDE: bool = true;

    ops! {
        fn splat(x: f32) -> __m512 {
            _mm512_set1_ps(x)
        }
        fn load(p: *const f32) -> __m512 {
            _mm512_loadu_ps(p)
        }
        fn store(p: *mut f32, v: __m512) {
            _mm512_storeu_ps(p, v)
        }
        fn load_f16(p: *const u16) -> __m512 {
            _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))
        }
        fn load_bf16(p: *const u16) -> __m512 {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
        fn store_f16(p: *mut u16, v: __m512) {
            _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v))
        }
        fn add(a: __m512, b: __m512) -> __m512 {
            _mm512_add_ps(a, b)
        }
        fn sub(a: __m512, b: __m512) -> __m512 {
            _mm512_sub_ps(a, b)
        }
        fn mul(a: __m512, b: __m512) -> __m512 {
            _mm512_mul_ps(a, b)
        }
        fn div(a: __m512, b: __m512) -> __m512 {
            _mm512_div_ps(a, b)
        }
        fn max(a: __m512, b: __m512) -> __m512 {
            _mm512_max_ps(a, b)
        }
        fn min(a: __m512, b: __m512) -> __m512 {
            _mm512_min_ps(a, b)
        }
        fn abs(a: __m512) -> __m512 {
            _mm512_abs_ps(a)
        }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            _mm512_fmadd_ps(a, b, c)
        }
        fn round(a: __m512) -> __m512 {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
        }
        fn scale2(a: __m512, n: __m512) -> __m512 {
            _mm512_scalef_ps(a, n)
        }
        fn zero_below(a: __m512, x: __m512, limit: f32) -> __m512 {
            let keep = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(x, _mm512_set1_ps(limit));
            _mm512_maskz_mov_ps(keep, a)
        }
        fn sum(a: __m512) -> f32 {
            _mm512_reduce_add_ps(a)
        }
        fn largest(a: __m512) -> f32 {
            _mm512_reduce_max_ps(a)
        }
        fn prefetch(p: *const u8) {
            _mm_prefetch::<_MM_HINT_T0>(p.cast())
        }
        fn isplat(x: i32) -> __m512i {
            _mm512_set1_epi32(x)
        }
        fn load_bytes(p: *const u8) -> __m512i {
            _mm512_loadu_si512(p.cast())
        }
        fn dot<const SMALL: bool>(acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
            _mm512_dpbusd_epi32(acc, w, x)
        }
        fn low_nibbles(a: __m512i) -> __m512i {
            _mm512_and_si512(a, _mm512_set1_epi8(0x0f))
        }
        fn high_nibbles(a: __m512i) -> __m512i {
            _mm512_and_si512(_mm512_srli_epi16::<4>(a), _mm512_set1_epi8(0x0f))
        }
        fn to_f32(a: __m512i) -> __m512 {
            _mm512_cvtepi32_ps(a)
        }
        fn store_i8(p: *mut i8, v: __m512) -> i32 {
            let i = _mm512_cvtps_epi32(v);
            _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(i));
            _mm512_reduce_add_epi32(i)
        }
    }
}
