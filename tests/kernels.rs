//! Kernels: each instruction set against the portable one, on odd shapes.
#![allow(clippy::unwrap_used)]

use adit::nn::cache::KvShape;
use adit::nn::cpu::activation::{gelu_mul, silu_mul};
use adit::nn::cpu::attention;
use adit::nn::cpu::buffer::Shared;
use adit::nn::cpu::isa::Isa;
use adit::nn::cpu::kv_write::{Place, write_f16, write_f32};
use adit::nn::cpu::linear::{self, Linear, Part, QuantisedRows, Rows};
use adit::nn::cpu::norm::{add_rms_norm, rms_norm};
use adit::nn::cpu::packed::{Format, Packed};
use adit::nn::cpu::rope::rotate;
use adit::nn::cpu::threads::Threads;
use adit::nn::weights::dtype::DType;
use adit::nn::weights::ggml;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

/// Values in -1..1 from a counter.
fn values(seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 * 2.0 - 1.0
        })
        .collect()
}

fn near(a: &[f32], b: &[f32], tolerance: f32, what: &str) {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(1f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{what}: element {i} is {a}, its twin {b}");
    }
}

fn product(weight: &Linear, x: &[f32], m: usize, n: usize, isa: Isa, threads: &mut Threads) -> Vec<f32> {
    let k = weight.parts[0].weight.k();
    let mut quantised = QuantisedRows::new(m, k).unwrap();
    if weight.wants_quantised() {
        quantised.fill(x, m, k, isa, threads);
    }
    let mut out = vec![0.5; m * n];
    let rows = Rows { x, quantised: Some(&quantised), m };
    linear::forward(weight, &rows, &mut out, n, true, isa, threads);
    out
}

/// Σ w·x + 0.5 in f64.
fn plain(w: &[f32], x: &[f32], m: usize, n: usize, k: usize) -> Vec<f32> {
    let at = |row: usize, column: usize| {
        let sum: f64 = (0..k).map(|i| f64::from(x[row * k + i]) * f64::from(w[column * k + i])).sum();
        (sum + 0.5) as f32
    };
    (0..m * n).map(|i| at(i / n, i % n)).collect()
}

fn single(weight: Packed) -> Linear {
    Linear { parts: vec![Part { weight: weight.into(), bias: None, column: 0 }] }
}

#[test]
fn float_products_agree_with_plain_sums() {
    let mut threads = Threads::new(2).unwrap();
    for (m, n, k) in [(1, 16, 16), (3, 17, 31), (9, 65, 48), (14, 100, 7), (131, 33, 20)] {
        let (w, x) = (values(1, n * k), values(2, m * k));
        let bytes16 = |to: fn(f32) -> [u8; 2]| w.iter().flat_map(|v| to(*v)).collect::<Vec<u8>>();
        let stored = [
            (DType::F32, w.iter().flat_map(|v| v.to_le_bytes()).collect()),
            (DType::F16, bytes16(|v| half::f16::from_f32(v).to_le_bytes())),
            (DType::Bf16, bytes16(|v| half::bf16::from_f32(v).to_le_bytes())),
        ];
        for (dtype, raw) in stored {
            let packed = Packed::pack(dtype, &raw, n, k, &|row| row, &mut threads).unwrap();
            let mut seen = vec![0.0; n * k];
            (0..n).for_each(|row| packed.unpack_row(row, &mut seen[row * k..(row + 1) * k]));
            let weight = single(packed);
            for isa in Isa::available() {
                let got = product(&weight, &x, m, n, isa, &mut threads);
                near(&got, &plain(&seen, &x, m, n, k), 1e-5, &format!("{dtype:?} {m}×{n}×{k} {isa:?}"));
            }
        }
    }
}

/// Every block format: exact weights, and products within the rounding of the rows.
#[test]
fn block_products_agree_with_dequantised_weights() {
    let mut threads = Threads::new(2).unwrap();
    for (n, k) in [(37, 512), (20, 2048)] {
        let w = Tensor::from_vec(values(3, n * k), (n, k), &Device::Cpu).unwrap();
        use GgmlDType::*;
        for ggml in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K, Q2K, Q3K] {
            let quantised = QTensor::quantize(&w, ggml).unwrap();
            let reference: Vec<f32> =
                quantised.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let raw = quantised.data().unwrap();
            let packed = Packed::pack(DType::Quantised(ggml), &raw, n, k, &|row| row, &mut threads).unwrap();
            assert!(matches!(packed.format(), Format::Blocks(_)));
            let mut seen = vec![0.0; n * k];
            (0..n).for_each(|row| packed.unpack_row(row, &mut seen[row * k..(row + 1) * k]));
            let exact = ggml::kind(ggml).is_some();
            near(&seen, &reference, if exact { 1e-7 } else { 5e-3 }, &format!("weights of {ggml:?}"));
            let weight = single(packed);
            for m in [1, 2, 7, 13, 32, 43, 139] {
                let x = values(4, m * k);
                let twin = product(&weight, &x, m, n, Isa::Portable, &mut threads);
                near(&twin, &plain(&seen, &x, m, n, k), 2e-2, &format!("{ggml:?}, {m} rows"));
                for isa in Isa::available() {
                    let got = product(&weight, &x, m, n, isa, &mut threads);
                    near(&got, &twin, 1e-5, &format!("{ggml:?}, {m} rows, {isa:?}"));
                    let last = product(&weight, &x[(m - 1) * k..], 1, n, isa, &mut threads);
                    assert_eq!(got[(m - 1) * n..], last, "{ggml:?} {isa:?}: the last of {m} rows alone");
                    let first = product(&weight, &x[..k], 1, n, isa, &mut threads);
                    assert_eq!(got[..n], first, "{ggml:?} {isa:?}: the first of {m} rows alone");
                }
            }
        }
    }
}

/// Random blocks of every format, read as llama.cpp's own Python reads them (`tests/golden/make_ggml.py`).
#[test]
fn blocks_hold_the_values_that_ggml_reads_in_them() {
    use GgmlDType::*;
    let mut threads = Threads::new(1).unwrap();
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ggml.safetensors");
    let bytes = std::fs::read(file).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (n, k) = (2, 512);
    let kinds = [
        ("Q4_0", Q4_0),
        ("Q4_1", Q4_1),
        ("Q5_0", Q5_0),
        ("Q5_1", Q5_1),
        ("Q8_0", Q8_0),
        ("Q4_K", Q4K),
        ("Q5_K", Q5K),
        ("Q6_K", Q6K),
        ("Q2_K", Q2K),
        ("Q3_K", Q3K),
    ];
    for (name, ggml) in kinds {
        let raw = golden.tensor(&format!("{name}.raw")).unwrap();
        let values = golden.tensor(&format!("{name}.values")).unwrap();
        let values: Vec<f32> =
            values.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let packed =
            Packed::pack(DType::Quantised(ggml), raw.data(), n, k, &|row| row, &mut threads).unwrap();
        let mut seen = vec![0.0; n * k];
        (0..n).for_each(|row| packed.unpack_row(row, &mut seen[row * k..(row + 1) * k]));
        // what has no exact kind is rounded to 8 bits when packed
        let tolerance = if ggml::kind(ggml).is_some() { 1e-6 } else { 5e-3 };
        near(&seen, &values, tolerance, name);
    }
}

#[test]
fn row_operations_agree_with_their_twins() {
    for n in [16, 48, 576] {
        let (x, w) = (values(5, n), values(6, n));
        let wide: Vec<f32> = x.iter().map(|v| v * 120.0).collect();
        for isa in Isa::available() {
            let (mut out, mut twin) = (vec![0.0; n], vec![0.0; n]);
            // SAFETY: the set is available, lengths are equal and multiples of 16.
            unsafe {
                rms_norm(isa, &x, &w, 1e-5, &mut out);
                rms_norm(Isa::Portable, &x, &w, 1e-5, &mut twin);
                near(&out, &twin, 1e-6, "rms_norm");
                silu_mul(isa, &wide, &w, &mut out);
                let plain: Vec<f32> = wide.iter().zip(&w).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                near(&out, &plain, 1e-6, "silu_mul");
                let small: Vec<f32> = x.iter().map(|v| v * 6.0).collect();
                for gate in [&small, &wide] {
                    gelu_mul(isa, gate, &w, &mut out);
                    near(&out, &gelu(gate, &w), 1e-6, "gelu_mul");
                }
                rms_norm(isa, &x, &w, 1e-5, &mut twin);
                twin.iter_mut().zip(&wide).for_each(|(sum, v)| *sum += v);
                out.copy_from_slice(&wide);
                add_rms_norm(isa, &x, &w, 1e-5, &mut out);
                near(&out, &twin, 1e-6, "add_rms_norm");
            }
        }
    }
    for half in [8, 16, 40] {
        let x = values(7, 6 * half);
        let (cos, sin) = (values(8, half), values(9, half));
        for isa in Isa::available() {
            let (mut got, mut twin) = (x.clone(), x.clone());
            // SAFETY: the set is available; `x` holds three heads.
            unsafe {
                rotate(isa, &mut got, &cos, &sin);
                rotate(Isa::Portable, &mut twin, &cos, &sin);
            }
            near(&got, &twin, 1e-6, "rotate");
        }
    }
}

/// Tanh's approximation of GELU, in f64.
fn gelu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let one = |(g, u): (&f32, &f32)| {
        let (g, root) = (f64::from(*g), (2.0 / std::f64::consts::PI).sqrt());
        (0.5 * g * (1.0 + (root * (g + 0.044715 * g.powi(3))).tanh()) * f64::from(*u)) as f32
    };
    gate.iter().zip(up).map(one).collect()
}

/// Sequences' keys and values in scattered blocks of a pool with two KV heads, the second of which is read.
/// They begin with the same `shared` positions, in the same blocks.
struct Pool {
    data: Vec<f32>,
    /// Tables of `n_blocks` each.
    tables: Vec<u32>,
    n_blocks: usize,
    /// Of each sequence: `[length, dim]`.
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

fn pool(n_sequences: usize, length: usize, shared: usize, dim: usize, block_tokens: usize) -> Pool {
    let (n_blocks, n_shared) = (length.div_ceil(block_tokens), shared / block_tokens);
    let n_all = n_shared + n_sequences * (n_blocks - n_shared) + 3;
    let half = dim * block_tokens;
    // what was left in the pool by others is finite, but anything
    let mut data = values(11, n_all * 2 * 2 * half);
    let scattered = |i: usize| (i * 7 + 2) as u32 % n_all as u32;
    let distinct: std::collections::HashSet<_> = (0..n_all).map(scattered).collect();
    assert_eq!(distinct.len(), n_all, "{n_all} blocks");
    let own = |sequence: usize, i: usize| n_shared + sequence * (n_blocks - n_shared) + i - n_shared;
    let mut pool = Pool { data: Vec::new(), tables: Vec::new(), n_blocks, keys: vec![], values: vec![] };
    for sequence in 0..n_sequences {
        let table: Vec<u32> = (0..n_blocks)
            .map(|i| if i < n_shared { scattered(i) } else { scattered(own(sequence, i)) })
            .collect();
        let mut k = values(12, length * dim);
        let mut v = values(13, length * dim);
        k[shared * dim..].copy_from_slice(&values(20 + sequence as u32, (length - shared) * dim));
        v[shared * dim..].copy_from_slice(&values(40 + sequence as u32, (length - shared) * dim));
        for position in 0..length {
            let head = (table[position / block_tokens] as usize * 2 + 1) * 2 * half;
            for d in 0..dim {
                data[head + d * block_tokens + position % block_tokens] = k[position * dim + d];
                data[head + half + position % block_tokens * dim + d] = v[position * dim + d];
            }
        }
        pool.tables.extend(table);
        pool.keys.push(k);
        pool.values.push(v);
    }
    Pool { data, ..pool }
}

/// Softmax over the positions in `seen`, in f64.
fn plain_attention(query: &[f32], keys: &[f32], values: &[f32], seen: std::ops::Range<usize>) -> Vec<f32> {
    let dim = query.len();
    let dot = |p: usize| -> f64 {
        query.iter().zip(&keys[p * dim..]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum()
    };
    let weights: Vec<f64> = seen.clone().map(|p| dot(p).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let value = |d: usize| -> f64 {
        seen.clone().zip(&weights).map(|(p, w)| w / sum * f64::from(values[p * dim + d])).sum()
    };
    (0..dim).map(|d| value(d) as f32).collect()
}

/// Rows `first..first + rows` of a sequence.
#[derive(Clone, Copy)]
struct Piece {
    sequence: usize,
    first: usize,
    rows: usize,
}

struct Case<'a> {
    pool: &'a Pool,
    halves: &'a [half::f16],
    queries: &'a [f32],
    length: usize,
    group: usize,
    dim: usize,
    block_tokens: usize,
}

impl Case<'_> {
    fn run(&self, isa: Isa, window: usize, shared: usize, parts: &[Piece], as_halves: bool) -> Vec<f32> {
        let (group, dim) = (self.group, self.dim);
        let query = |part: &Piece| {
            let from = (part.sequence * self.length + part.first) * group * dim;
            self.queries[from..from + part.rows * group * dim].to_vec()
        };
        let queries: Vec<f32> = parts.iter().flat_map(query).collect();
        let segment = |part: &Piece| attention::Segment {
            rows: part.rows,
            first_length: part.first + 1,
            first_block: part.sequence * self.pool.n_blocks,
        };
        let segments: Vec<_> = parts.iter().map(segment).collect();
        let longest = parts.iter().map(|part| part.first + part.rows).max().unwrap();
        let stride = longest.next_multiple_of(16);
        let n_queries = queries.len() / dim;
        let (mut scores, mut out) = (vec![f32::NAN; n_queries * stride], vec![0.5; n_queries * dim]);
        let second_head = 2 * dim * self.block_tokens;
        macro_rules! args {
            ($data:expr) => {
                attention::Args {
                    queries: &queries,
                    group,
                    segments: &segments,
                    tables: &self.pool.tables,
                    shared,
                    window,
                    head_dim: dim,
                    block_tokens: self.block_tokens,
                    pool: &$data[second_head..],
                    block_stride: 2 * second_head,
                }
            };
        }
        // SAFETY: the set is available; the kernel asserts its extents.
        unsafe {
            match as_halves {
                true => attention::attend_f16(isa, &args!(self.halves), &mut scores, stride, &mut out),
                false => attention::attend_f32(isa, &args!(self.pool.data), &mut scores, stride, &mut out),
            }
        }
        out
    }
}

/// Windows that end inside a vector, at its edge, and beyond the sequence; tiles whose rows begin in
/// different vectors, of one sequence and of several that share their beginning. A row's numbers do not
/// depend on the tile that it shares.
#[test]
fn attention_agrees_with_plain_sums() {
    let (length, shared) = (83, 32);
    let part = |sequence, first, rows| Piece { sequence, first, rows };
    let tiles = [
        (0, vec![part(0, 0, 4)]),
        (0, vec![part(1, 14, 5)]),
        (0, vec![part(0, 60, 23)]),
        (32, vec![part(0, 40, 1), part(1, 81, 2), part(2, 32, 3)]),
        (32, vec![part(2, 70, 1), part(0, 82, 1), part(1, 33, 1), part(2, 33, 5)]),
    ];
    for (dim, block_tokens, group) in [(16, 16, 1), (48, 32, 3), (80, 16, 7), (64, 16, 3), (256, 16, 4)] {
        let pool = pool(3, length, shared, dim, block_tokens);
        let queries = values(14, 3 * length * group * dim);
        let halves: Vec<half::f16> = pool.data.iter().map(|v| half::f16::from_f32(*v)).collect();
        let case = Case { pool: &pool, halves: &halves, queries: &queries, length, group, dim, block_tokens };
        for (isa, window) in
            Isa::available().into_iter().flat_map(|isa| [1, 7, 16, 33, 82, usize::MAX].map(|w| (isa, w)))
        {
            for (shared, parts) in &tiles {
                let out = case.run(isa, window, *shared, parts, false);
                let rounded = case.run(isa, window, *shared, parts, true);
                let rows = parts.iter().flat_map(|p| (p.first..p.first + p.rows).map(|at| (p.sequence, at)));
                for (i, (sequence, at)) in rows.enumerate() {
                    let seen = (at + 1).saturating_sub(window)..at + 1;
                    let range = i * group * dim..(i + 1) * group * dim;
                    let what = format!("{dim} {isa:?} window {window}, row {at} of sequence {sequence}");
                    for head in 0..group {
                        let query = &queries[((sequence * length + at) * group + head) * dim..][..dim];
                        let (keys, values) = (&pool.keys[sequence], &pool.values[sequence]);
                        let plain = plain_attention(query, keys, values, seen.clone());
                        let own = range.start + head * dim..range.start + (head + 1) * dim;
                        near(&out[own.clone()], &plain, 1e-5, &what);
                        near(&rounded[own], &plain, 5e-3, &format!("{what}, halves"));
                    }
                    let alone = [part(sequence, at, 1)];
                    let mine = range.clone();
                    assert_eq!(out[mine.clone()], case.run(isa, window, 0, &alone, false), "{what}: alone");
                    assert_eq!(rounded[mine], case.run(isa, window, 0, &alone, true), "{what}: alone");
                }
            }
        }
    }
}

/// What is written is what attention reads, and every set rounds to halves alike.
#[test]
fn keys_and_values_lie_where_attention_reads_them() {
    let shape = KvShape { n_layers: 2, n_blocks: 3, n_kv_heads: 2, head_dim: 32, block_tokens: 16 };
    let (k, v) = (values(21, 64), values(22, 64));
    let place = Place { layer: 1, block: 2, slot: 5 };
    for isa in Isa::available() {
        let n = shape.layer(1).end;
        let (mut wide, mut halves) = (vec![0f32; n], vec![half::f16::ZERO; n]);
        // SAFETY: the set is available, and nobody else writes.
        unsafe {
            write_f32(isa, &Shared::new(&mut wide), &shape, place, &k, &v);
            write_f16(isa, &Shared::new(&mut halves), &shape, place, &k, &v);
        }
        for (head, d) in (0..2).flat_map(|head| (0..32).map(move |d| (head, d))) {
            let first = shape.offset(1, 2, head);
            let places =
                [(first + d * 16 + 5, k[head * 32 + d]), (first + 512 + 5 * 32 + d, v[head * 32 + d])];
            for (at, value) in places {
                assert_eq!(wide[at], value, "{isa:?}");
                assert_eq!(halves[at], half::f16::from_f32(value), "{isa:?}");
            }
        }
        assert_eq!(wide.iter().filter(|v| **v != 0.0).count(), 128, "and nothing else is written");
    }
}

#[test]
fn every_task_runs_once_and_a_panic_reaches_the_caller() {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    let mut threads = Threads::new(4).unwrap();
    for n in (0..2000).map(|i| i % 37) {
        let seen: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
        threads.run(n, &|i, thread| {
            assert!(thread < 4);
            seen[i].fetch_add(1, Relaxed);
        });
        assert!(seen.iter().all(|count| count.load(Relaxed) == 1));
    }
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        threads.run(64, &|i, _| assert!(i != 40, "planted"));
    }));
    assert!(panics.is_err());
    threads.run(8, &|_, _| ());
}
