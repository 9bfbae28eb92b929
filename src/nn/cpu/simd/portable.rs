//! Plain Rust; the twin of the other two.

use half::{bf16, f16};

use super::Simd;

#[derive(Clone, Copy)]
pub struct Portable;

#[inline(always)]
fn map2(a: [f32; 16], b: [f32; 16], f: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type V = [f32; 16];
    type I = [i32; 16];
    const F32_ROWS: usize = 4;
    const INT_ROWS: usize = 4;
    const WIDE: bool = false;

    ops! {
        fn splat(x: f32) -> Self::V {
            [x; 16]
        }
        fn load(p: *const f32) -> Self::V {
            p.cast::<[f32; 16]>().read_unaligned()
        }
        fn store(p: *mut f32, v: Self::V) {
            p.cast::<[f32; 16]>().write_unaligned(v)
        }
        fn load_f16(p: *const u16) -> Self::V {
            let bits = p.cast::<[u16; 16]>().read_unaligned();
            bits.map(|b| f16::from_bits(b).to_f32())
        }
        fn load_bf16(p: *const u16) -> Self::V {
            let bits = p.cast::<[u16; 16]>().read_unaligned();
            bits.map(|b| bf16::from_bits(b).to_f32())
        }
        fn store_f16(p: *mut u16, v: Self::V) {
            p.cast::<[u16; 16]>().write_unaligned(v.map(|x| f16::from_f32(x).to_bits()))
        }
        fn add(a: Self::V, b: Self::V) -> Self::V {
            map2(a, b, |a, b| a + b)
        }
        fn sub(a: Self::V, b: Self::V) -> Self::V {
            map2(a, b, |a, b| a - b)
        }
        fn mul(a: Self::V, b: Self::V) -> Self::V {
            map2(a, b, |a, b| a * b)
        }
        fn div(a: Self::V, b: Self::V) -> Self::V {
            map2(a, b, |a, b| a / b)
        }
        fn max(a: Self::V, b: Self::V) -> Self::V {
            map2(a, b, |a, b| if a > b { a } else { b })
        }
        fn min(a: Self::V, b: Self::V) -> Self::V {
            map2(a, b, |a, b| if a < b { a } else { b })
        }
        fn abs(a: Self::V) -> Self::V {
            a.map(f32::abs)
        }
        fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            // two roundings: without the instruction, mul_add is a slow library call
            if cfg!(target_arch = "aarch64") {
                std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
            } else {
                std::array::from_fn(|i| a[i] * b[i] + c[i])
            }
        }
        fn round(a: Self::V) -> Self::V {
            a.map(f32::round_ties_even)
        }
        fn scale2(a: Self::V, n: Self::V) -> Self::V {
            map2(a, n, |a, n| a * f32::from_bits(((n as i32 + 127) as u32) << 23))
        }
        fn zero_below(a: Self::V, x: Self::V, limit: f32) -> Self::V {
            map2(a, x, |a, x| if x >= limit { a } else { 0.0 })
        }
        fn sum(a: Self::V) -> f32 {
            a.iter().sum()
        }
        fn largest(a: Self::V) -> f32 {
            a.iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
        }
        fn prefetch(_p: *const u8) {}
        fn isplat(x: i32) -> Self::I {
            [x; 16]
        }
        fn load_bytes(p: *const u8) -> Self::I {
            p.cast::<[i32; 16]>().read_unaligned()
        }
        fn dot<const SMALL: bool>(acc: Self::I, w: Self::I, x: Self::I) -> Self::I {
            std::array::from_fn(|i| {
                let (w, x) = (w[i].to_le_bytes(), x[i].to_le_bytes());
                let sum: i32 = (0..4).map(|j| i32::from(w[j]) * i32::from(x[j] as i8)).sum();
                acc[i] + sum
            })
        }
        fn low_nibbles(a: Self::I) -> Self::I {
            a.map(|a| a & 0x0f0f_0f0f)
        }
        fn high_nibbles(a: Self::I) -> Self::I {
            a.map(|a| (a >> 4) & 0x0f0f_0f0f)
        }
        fn to_f32(a: Self::I) -> Self::V {
            a.map(|a| a as f32)
        }
        fn store_i8(p: *mut i8, v: Self::V) -> i32 {
            let bytes = v.map(|x| x.round_ties_even() as i8);
            p.cast::<[i8; 16]>().write_unaligned(bytes);
            bytes.iter().map(|&b| i32::from(b)).sum::<i32>()
        }
    }
}
