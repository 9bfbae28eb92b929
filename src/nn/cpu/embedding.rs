//! Rows of the embedding matrix, read out of its panels (a tied head shares them).

use super::buffer::Shared;
use super::packed::Packed;
use super::threads::Threads;

/// `out[i] = scale · table[tokens[i]]`; tokens are below the table's rows.
pub fn gather(table: &Packed, tokens: &[u32], scale: f32, out: &mut [f32], threads: &mut Threads) {
    const ROWS: usize = 8;
    let k = table.k();
    let rows = Shared::new(out);
    threads.run(tokens.len().div_ceil(ROWS), &|task, _| {
        let first = task * ROWS;
        for (i, &token) in tokens.iter().enumerate().skip(first).take(ROWS) {
            // SAFETY: each task writes the rows of its own tokens.
            let row = unsafe { rows.slice(i * k, k) };
            table.unpack_row(token as usize, row);
            if scale != 1.0 {
                row.iter_mut().for_each(|value| *value *= scale);
            }
        }
    });
}
