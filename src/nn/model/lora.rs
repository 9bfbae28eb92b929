//! What adapters add to a linear layer's output: `B·(A·x)`, for the rows of the spans that use one.

use super::scratch::{LoraTask, Scratch};
use super::step::{Site, Step};
use crate::nn::cpu::LANES;
use crate::nn::cpu::buffer::Shared;
use crate::nn::cpu::gemm::{Args, Quantised};
use crate::nn::cpu::isa::Isa;
use crate::nn::cpu::linear;
use crate::nn::cpu::packed::Packed;
use crate::nn::cpu::threads::Threads;
use crate::nn::weights::adapter::Pair;

/// Rows that a task of an adapter takes.
const LORA_ROWS: usize = 8;

impl Step<'_> {
    /// Cuts the rows with an adapter into tasks; neighbouring spans of one adapter share them.
    pub(super) fn plan_lora(&self, scratch: &mut Scratch) {
        scratch.lora_tasks.clear();
        for span in &self.batch.spans {
            let Some(slot) = span.adapter.map(|slot| slot as usize) else { continue };
            let n = span.n_tokens as usize;
            let (mut row, end) = (span.first_row as usize, span.first_row as usize + n);
            if let Some(last) = scratch.lora_tasks.last_mut()
                && last.slot == slot
                && last.row + last.rows == row
            {
                let more = (LORA_ROWS - last.rows).min(n);
                last.rows += more;
                row += more;
            }
            while row < end {
                let rows = LORA_ROWS.min(end - row);
                scratch.lora_tasks.push(LoraTask { row, rows, slot });
                row += rows;
            }
        }
    }

    /// `out += B·(A·x)` for the rows of each task, in the columns of each module.
    pub(super) fn add_lora(
        &self,
        site: &Site,
        x: &[f32],
        k: usize,
        (out, stride): (&mut [f32], usize),
        (lora, tasks): (&mut [f32], &[LoraTask]),
        threads: &mut Threads,
    ) {
        assert!(self.m() * stride <= out.len() && self.m() * k <= x.len());
        let widest = self.adapters.iter().flatten().map(|a| a.rank()).max().unwrap_or(0);
        let (out, lora) = (Shared::new(out), Shared::new(lora));
        threads.run(tasks.len(), &|i, _| {
            let task = &tasks[i];
            let Some(adapter) = &self.adapters[task.slot] else { return };
            for (module, part) in site.modules.iter().zip(&site.linear.parts) {
                let Some(Pair { a, b }) = adapter.pair(site.layer, *module) else { continue };
                let rank = a.n();
                // SAFETY: rows of this task alone, in `lora` and in `out`; `Adapter` has checked A and B
                // against the base, so columns fit; `isa` was detected.
                unsafe {
                    let low = lora.slice(task.row * widest, task.rows * widest).as_mut_ptr();
                    let first = x[task.row * k..].as_ptr();
                    product(self.isa, a, (first, k), task.rows, (low, rank), false);
                    let to = out.as_ptr().add(task.row * stride + part.column);
                    product(self.isa, b, (low, rank), task.rows, (to, stride), true);
                }
            }
        });
    }
}

/// One small f32 product on this thread.
///
/// # Safety
/// `x` holds `m` rows of the weight's `k`, `out` `m` rows of its `n`, and this machine has `isa`.
unsafe fn product(
    isa: Isa,
    weight: &Packed,
    (x, x_stride): (*const f32, usize),
    m: usize,
    (out, out_stride): (*mut f32, usize),
    accumulate: bool,
) {
    debug_assert_eq!(LANES * weight.k() * 4, weight.panel_bytes());
    let args = Args {
        x,
        x_stride,
        q: Quantised::NONE,
        m,
        k: weight.k(),
        w: weight.panel(0).as_ptr(),
        panel_bytes: weight.panel_bytes(),
        n_panels: weight.n_panels(),
        n: weight.n(),
        out,
        out_stride,
        bias: std::ptr::null(),
        accumulate,
    };
    // SAFETY: passed on to the caller.
    unsafe { linear::call(isa, &args, weight.format()) }
}
