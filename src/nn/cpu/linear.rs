//! Linear layers of a step: several matrices that read the same rows and write side by side.

use std::sync::Arc;

use super::LANES;
#[cfg(target_arch = "x86_64")]
use super::amx;
use super::buffer::{Buffer, Shared};
use super::gemm::{self, Args, Quantised};
use super::isa::Isa;
use super::packed::{Format, Packed};
use super::quant;
use super::threads::Threads;
use crate::nn::Error;

/// Matrices over one input whose outputs lie next to each other: q|k|v, gate|up, or a single one.
pub struct Linear {
    pub parts: Vec<Part>,
}

pub struct Part {
    pub weight: Arc<Packed>,
    /// Padded to whole panels.
    pub bias: Option<Arc<Buffer<f32>>>,
    /// First column of the common output.
    pub column: usize,
}

impl Linear {
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|p| p.weight.bytes() + p.bias.as_ref().map_or(0, |bias| bias.bytes())).sum()
    }

    /// Whether some part wants its input quantised.
    pub fn wants_quantised(&self) -> bool {
        self.parts.iter().any(|p| matches!(p.weight.format(), Format::Blocks(_)))
    }
}

/// Rows in the form that the kernels read: f32, and in integer blocks where a part wants them.
pub struct Rows<'a> {
    pub x: &'a [f32],
    pub quantised: Option<&'a QuantisedRows>,
    pub m: usize,
}

/// Space for quantised rows.
pub struct QuantisedRows {
    bytes: Buffer<i8>,
    scales: Buffer<f32>,
    sums: Buffer<i32>,
    weighted_sums: Buffer<f32>,
}

impl QuantisedRows {
    pub fn new(max_rows: usize, max_k: usize) -> Result<Self, Error> {
        Ok(Self {
            bytes: Buffer::zeroed(max_rows * max_k, "activations")?,
            scales: Buffer::zeroed(max_rows * max_k.div_ceil(32), "activations")?,
            sums: Buffer::zeroed(max_rows * max_k.div_ceil(16), "activations")?,
            weighted_sums: Buffer::zeroed(max_rows * max_k.div_ceil(32), "activations")?,
        })
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.bytes() + self.scales.bytes() + self.sums.bytes() + self.weighted_sums.bytes()
    }

    /// Quantises `x[m, k]`.
    pub fn fill(&mut self, x: &[f32], m: usize, k: usize, isa: Isa, threads: &mut Threads) {
        const ROWS: usize = 8;
        let bytes = Shared::new(&mut self.bytes);
        let scales = Shared::new(&mut self.scales);
        let sums = Shared::new(&mut self.sums);
        let weighted = Shared::new(&mut self.weighted_sums);
        threads.run(m.div_ceil(ROWS), &|task, _| {
            for row in task * ROWS..m.min((task + 1) * ROWS) {
                // SAFETY: each task writes its own rows; `isa` was detected.
                unsafe {
                    quant::quantise_row(
                        isa,
                        &x[row * k..(row + 1) * k],
                        bytes.slice(row * k, k),
                        scales.slice(row * k / 32, k / 32),
                        sums.slice(row * k / 16, k / 16),
                        weighted.slice(row * k / 32, k / 32),
                    );
                }
            }
        });
    }
}

/// `out[m, out_stride] (+)= rows · weightsᵀ + bias`, part beside part from column 0.
pub fn forward(
    linear: &Linear,
    rows: &Rows,
    out: &mut [f32],
    out_stride: usize,
    accumulate: bool,
    isa: Isa,
    threads: &mut Threads,
) {
    let sizes = linear.parts.iter().map(|p| p.weight.n_panels());
    let widest = linear.parts.iter().map(|p| p.column + p.weight.n()).max().unwrap_or(0);
    assert!(widest <= out_stride && rows.m * out_stride <= out.len(), "output too small");
    let out = Out { values: Shared::new(out), stride: out_stride, accumulate };
    let grain = Grain::of(sizes, rows.m, threads.count());
    threads.run(grain.n_tasks(), &|task, _| {
        let cut = grain.task(linear.parts.iter().map(|p| p.weight.n_panels()), task);
        let Part { weight, bias, column } = &linear.parts[cut.part];
        // SAFETY: extents were asserted; each task writes the columns of its own panels and rows.
        unsafe { product(weight, bias.as_ref().map(|bias| &***bias), rows, &cut, &out, *column, isa) }
    });
}

/// The same for a single matrix without bias: a head that may be the embedding.
pub fn forward_one(
    weight: &Packed,
    rows: &Rows,
    out: &mut [f32],
    out_stride: usize,
    isa: Isa,
    threads: &mut Threads,
) {
    assert!(weight.n() <= out_stride && rows.m * out_stride <= out.len(), "output too small");
    let out = Out { values: Shared::new(out), stride: out_stride, accumulate: false };
    let grain = Grain::of([weight.n_panels()].into_iter(), rows.m, threads.count());
    threads.run(grain.n_tasks(), &|task, _| {
        let cut = grain.task([weight.n_panels()].into_iter(), task);
        // SAFETY: as in `forward`.
        unsafe { product(weight, None, rows, &cut, &out, 0, isa) }
    });
}

struct Out {
    values: Shared<f32>,
    stride: usize,
    accumulate: bool,
}

/// # Safety
/// Rows and columns of the cut lie inside `out`, and no other task writes them; this machine has `isa`.
unsafe fn product(
    weight: &Packed,
    bias: Option<&[f32]>,
    rows: &Rows,
    cut: &Cut,
    out: &Out,
    column: usize,
    isa: Isa,
) {
    assert!(rows.x.len() >= rows.m * weight.k());
    // SAFETY: `Packed` says how far the weights reach; the rest is the caller's contract.
    unsafe {
        let first = cut.row * out.stride + column + cut.panel * LANES;
        let args = Args {
            x: rows.x[cut.row * weight.k()..].as_ptr(),
            x_stride: weight.k(),
            q: rows.quantised.map_or(Quantised::NONE, |q| view(q, cut.row, weight.k())),
            m: cut.n_rows,
            k: weight.k(),
            w: weight.panel(cut.panel).as_ptr(),
            panel_bytes: weight.panel_bytes(),
            n_panels: cut.n_panels,
            n: weight.n() - cut.panel * LANES,
            out: out.values.as_ptr().add(first),
            out_stride: out.stride,
            bias: bias.map_or(std::ptr::null(), |b| b[cut.panel * LANES..].as_ptr()),
            accumulate: out.accumulate,
        };
        call(isa, &args, weight.format());
    }
}

fn view(rows: &QuantisedRows, row: usize, k: usize) -> Quantised {
    Quantised {
        bytes: rows.bytes[row * k..].as_ptr(),
        scales: rows.scales[row * k / 32..].as_ptr(),
        sums: rows.sums[row * k / 16..].as_ptr(),
        weighted_sums: rows.weighted_sums[row * k / 32..].as_ptr(),
    }
}

/// # Safety
/// That of the kernels of [`gemm`].
pub unsafe fn call(isa: Isa, args: &Args, format: Format) {
    // SAFETY: passed on to the caller.
    unsafe {
        match format {
            Format::F32 => gemm::gemm_f32(isa, args),
            Format::F16 => gemm::gemm_f16(isa, args),
            Format::Bf16 => gemm::gemm_bf16(isa, args),
            Format::Blocks(kind) => {
                assert!(!args.q.bytes.is_null(), "rows were not quantised");
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Amx if args.m >= amx::MIN_ROWS => amx::gemm_blocks(args, kind),
                    _ => gemm::gemm_blocks(isa, args, kind),
                }
            }
        }
    }
}

/// How a product is cut into tasks: blocks of rows, and in each a few panels of one part at a time.
struct Grain {
    /// Tasks of one block of rows.
    chunks: usize,
    panels: usize,
    rows: usize,
    m: usize,
}

/// One task: some panels of a part, some rows.
struct Cut {
    part: usize,
    panel: usize,
    n_panels: usize,
    row: usize,
    n_rows: usize,
}

impl Grain {
    /// Rows whose values stay in a core's second cache while panels pass.
    const MAX_ROWS: usize = 128;

    /// `parts`: panels of each part.
    fn of(parts: impl Iterator<Item = usize> + Clone, m: usize, threads: usize) -> Self {
        let n_panels = parts.clone().sum::<usize>();
        // several tasks a thread, so that a thread that others disturb leaves its share to the rest
        let panels = (n_panels / (threads * 6)).clamp(2, 16) & !1;
        Self { chunks: parts.map(|n| n.div_ceil(panels)).sum(), panels, rows: m.clamp(1, Self::MAX_ROWS), m }
    }

    fn n_tasks(&self) -> usize {
        self.chunks * self.m.div_ceil(self.rows)
    }

    fn task(&self, parts: impl Iterator<Item = usize>, task: usize) -> Cut {
        let row = task / self.chunks * self.rows;
        let mut chunk = task % self.chunks;
        for (part, n_panels) in parts.enumerate() {
            let here = n_panels.div_ceil(self.panels);
            if chunk < here {
                let panel = chunk * self.panels;
                let n_panels = self.panels.min(n_panels - panel);
                return Cut { part, panel, n_panels, row, n_rows: self.rows.min(self.m - row) };
            }
            chunk -= here;
        }
        unreachable!("task {task} lies beyond the last panel")
    }
}
