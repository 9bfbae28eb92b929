//! Attention of a step: rows into tiles, new keys and values into the pool, tiles over the pool.

use std::cmp::Reverse;

use half::f16;

use super::Layer;
use super::scratch::{AttentionTask, PlannedSegment, Scratch};
use super::step::{ROWS, Step};
use crate::nn::batch::Span;
use crate::nn::cache::{KvData, KvPool, KvShape};
use crate::nn::cpu::attention::{self, Args, Segment};
use crate::nn::cpu::buffer::{Plain, Shared};
use crate::nn::cpu::isa::Isa;
use crate::nn::cpu::kv_write::{self, Place};
use crate::nn::cpu::norm::rms_norm;
use crate::nn::cpu::rope::{self, rotate};
use crate::nn::cpu::threads::Threads;

/// Largest head that is normed on the stack.
const MAX_HEAD_DIM: usize = 512;

/// A tile that may take more rows.
struct OpenTile<'a> {
    first_segment: u32,
    rows: usize,
    /// Blocks that its segments begin with, complete before this step.
    shared: &'a [u32],
    cost: u32,
}

/// Calls of the kernels for one way of storing K and V.
trait Kernels: Plain {
    /// # Safety
    /// That of the kernels of [`attention`].
    unsafe fn attend(isa: Isa, args: &Args<Self>, scores: &mut [f32], stride: usize, out: &mut [f32]);
    /// # Safety
    /// That of the kernels of [`kv_write`].
    unsafe fn write(isa: Isa, pool: &Shared<Self>, shape: &KvShape, place: Place, k: &[f32], v: &[f32]);
}

impl Kernels for f32 {
    /// # Safety
    /// That of the trait.
    unsafe fn attend(isa: Isa, args: &Args<Self>, scores: &mut [f32], stride: usize, out: &mut [f32]) {
        // SAFETY: passed on to the caller.
        unsafe { attention::attend_f32(isa, args, scores, stride, out) }
    }
    /// # Safety
    /// That of the trait.
    unsafe fn write(isa: Isa, pool: &Shared<Self>, shape: &KvShape, place: Place, k: &[f32], v: &[f32]) {
        // SAFETY: passed on to the caller.
        unsafe { kv_write::write_f32(isa, pool, shape, place, k, v) }
    }
}

impl Kernels for f16 {
    /// # Safety
    /// That of the trait.
    unsafe fn attend(isa: Isa, args: &Args<Self>, scores: &mut [f32], stride: usize, out: &mut [f32]) {
        // SAFETY: passed on to the caller.
        unsafe { attention::attend_f16(isa, args, scores, stride, out) }
    }
    /// # Safety
    /// That of the trait.
    unsafe fn write(isa: Isa, pool: &Shared<Self>, shape: &KvShape, place: Place, k: &[f32], v: &[f32]) {
        // SAFETY: passed on to the caller.
        unsafe { kv_write::write_f16(isa, pool, shape, place, k, v) }
    }
}

impl Step<'_> {
    /// Cuts the rows into tiles, the same for every layer. Sequences whose tables begin alike stand next to
    /// each other, and the rows that do not fill a tile of their own share one.
    pub(super) fn plan_attention(&self, block_tokens: usize, threads: usize, scratch: &mut Scratch) {
        let Scratch { attention_tasks, segments, span_order, tile_sizes, .. } = scratch;
        let past_blocks = |span: &Span| &self.batch.blocks_of(span)[..span.past as usize / block_tokens];
        let n_heads = self.config.n_kv_heads;
        // small tiles where there are few rows: every thread needs several
        let most = tile_sizes.rows.min((self.m() * n_heads).div_ceil(4 * threads)).max(1);
        span_order.clear();
        span_order.extend(0..self.batch.spans.len() as u32);
        span_order.sort_unstable_by(|a, b| {
            let of = |i: u32| past_blocks(&self.batch.spans[i as usize]);
            of(*a).cmp(of(*b)).then(a.cmp(b))
        });
        attention_tasks.clear();
        segments.clear();
        let mut open: Option<OpenTile> = None;
        let mut close = |tile: Option<OpenTile>, n_segments: usize| {
            let Some(tile) = tile else { return };
            let n_segments = n_segments as u32 - tile.first_segment;
            let shared = if n_segments > 1 { tile.shared.len() * block_tokens } else { 0 };
            attention_tasks.extend((0..n_heads as u32).map(|kv_head| AttentionTask {
                first_segment: tile.first_segment,
                n_segments,
                shared: shared as u32,
                kv_head,
                cost: tile.cost,
            }));
        };
        for i in span_order.iter() {
            let span = &self.batch.spans[*i as usize];
            let (n, own) = (span.n_tokens as usize, past_blocks(span));
            for first in (0..n).step_by(most) {
                let rows = most.min(n - first);
                let segment = Segment {
                    rows,
                    first_length: span.past as usize + first + 1,
                    first_block: span.first_block as usize,
                };
                let cost = (rows * (segment.first_length + rows)) as u32;
                let joined = open.as_mut().filter(|tile| tile.rows + rows <= most).and_then(|tile| {
                    let common = tile.shared.iter().zip(own).take_while(|(a, b)| a == b).count();
                    (common > 0).then_some((tile, common))
                });
                match joined {
                    Some((tile, common)) => {
                        tile.rows += rows;
                        tile.shared = &tile.shared[..common];
                        tile.cost += cost;
                    }
                    None => {
                        close(open.take(), segments.len());
                        let first_segment = segments.len() as u32;
                        open = Some(OpenTile { first_segment, rows, shared: own, cost });
                    }
                }
                segments.push(PlannedSegment { first_row: span.first_row + first as u32, segment });
            }
        }
        close(open.take(), segments.len());
        // the last tasks of a region should be short
        attention_tasks.sort_unstable_by_key(|task| (Reverse(task.cost), task.first_segment, task.kv_head));
    }

    /// Norms (where the family has them) and turns q and k, and writes k and v into the pool.
    pub(super) fn write_kv(
        &self,
        index: usize,
        layer: &Layer,
        pool: &mut KvPool,
        qkv: &mut [f32],
        threads: &mut Threads,
    ) {
        let shape = pool.shape();
        match pool.data_mut() {
            KvData::F16(data) => self.write_kv_as::<f16>(index, layer, data, &shape, qkv, threads),
            KvData::F32(data) => self.write_kv_as::<f32>(index, layer, data, &shape, qkv, threads),
        }
    }

    fn write_kv_as<T: Kernels>(
        &self,
        index: usize,
        layer: &Layer,
        pool: &mut [T],
        shape: &KvShape,
        qkv: &mut [f32],
        threads: &mut Threads,
    ) {
        let pool = Shared::new(pool);
        let (q_dim, kv_dim) = (self.config.q_dim(), self.config.kv_dim());
        let width = q_dim + 2 * kv_dim;
        let rows = Shared::new(qkv);
        let rope = self.rope_of(index);
        threads.run(self.m().div_ceil(ROWS), &|task, _| {
            for row in task * ROWS..self.m().min((task + 1) * ROWS) {
                let span = self.span_of(row);
                let position = span.past as usize + row - span.first_row as usize;
                // SAFETY: each task has its own rows.
                let values = unsafe { rows.slice(row * width, width) };
                let (q, kv) = values.split_at_mut(q_dim);
                let (k, v) = kv.split_at_mut(kv_dim);
                if let Some((q_norm, k_norm)) = &layer.qk_norms {
                    self.norm_heads(q, q_norm);
                    self.norm_heads(k, k_norm);
                }
                let (cos, sin) = rope.at(position);
                let block = self.batch.blocks_of(span)[position / shape.block_tokens] as usize;
                let place = Place { layer: index, block, slot: position % shape.block_tokens };
                // SAFETY: `isa` was detected; no two rows have the same position of the same sequence, and
                // `check_batch` saw to it that no block is written by two.
                unsafe {
                    rotate(self.isa, q, cos, sin);
                    rotate(self.isa, k, cos, sin);
                    T::write(self.isa, &pool, shape, place, k, v);
                }
            }
        });
    }

    fn rope_of(&self, layer: usize) -> &rope::Table {
        self.local_rope.filter(|_| self.config.window_of(layer).is_some()).unwrap_or(self.rope)
    }

    fn norm_heads(&self, heads: &mut [f32], weight: &[f32]) {
        let dim = self.config.head_dim;
        let mut copy = [0f32; MAX_HEAD_DIM];
        for head in heads.chunks_exact_mut(dim) {
            copy[..dim].copy_from_slice(head);
            // SAFETY: `isa` was detected.
            unsafe { rms_norm(self.isa, &copy[..dim], weight, self.config.rms_eps as f32, head) }
        }
    }

    fn span_of(&self, row: usize) -> &Span {
        let after = self.batch.spans.partition_point(|span| span.first_row as usize <= row);
        &self.batch.spans[after - 1]
    }

    pub(super) fn attend(&self, index: usize, pool: &KvPool, scratch: &mut Scratch, threads: &mut Threads) {
        let shape = pool.shape();
        match pool.data() {
            KvData::F16(data) => self.attend_as::<f16>(index, data, &shape, scratch, threads),
            KvData::F32(data) => self.attend_as::<f32>(index, data, &shape, scratch, threads),
        }
    }

    fn attend_as<T: Kernels>(
        &self,
        index: usize,
        pool: &[T],
        shape: &KvShape,
        scratch: &mut Scratch,
        threads: &mut Threads,
    ) {
        let layer = &pool[shape.layer(index)];
        let sizes = scratch.tile_sizes;
        let (qkv, tasks, segments) = (&scratch.qkv, &scratch.attention_tasks, &scratch.segments);
        let tiles = Shared::new(&mut scratch.tiles);
        let attended = Shared::new(&mut scratch.attended);
        let (dim, scale) = (self.config.head_dim, self.config.attention_scale);
        let width = self.config.n_heads / self.config.n_kv_heads * dim;
        let (q_dim, stride) = (self.config.q_dim(), self.config.q_dim() + 2 * self.config.kv_dim());
        threads.run(tasks.len(), &|i, thread| {
            let task = tasks[i];
            let planned = &segments[task.first_segment as usize..][..task.n_segments as usize];
            let rows = planned.iter().flat_map(|planned| {
                let first = planned.first_row as usize;
                first..first + planned.segment.rows
            });
            let head = task.kv_head as usize * width;
            // SAFETY: one tile per thread.
            let tile = unsafe { tiles.slice(thread * sizes.total, sizes.total) };
            let (queries, rest) = tile.split_at_mut(sizes.queries);
            let (out, scores) = rest.split_at_mut(sizes.queries);
            for (row, queries) in rows.clone().zip(queries.chunks_exact_mut(width)) {
                let from = &qkv[row * stride + head..][..width];
                queries.iter_mut().zip(from).for_each(|(to, q)| *to = q * scale);
            }
            let mut own = [Segment { rows: 0, first_length: 0, first_block: 0 }; attention::TILE];
            let own = &mut own[..planned.len()];
            own.iter_mut().zip(planned).for_each(|(segment, planned)| *segment = planned.segment);
            let args = Args {
                queries,
                group: width / dim,
                segments: own,
                tables: &self.batch.blocks,
                shared: task.shared as usize,
                window: self.config.window_of(index).unwrap_or(usize::MAX),
                head_dim: dim,
                block_tokens: shape.block_tokens,
                pool: &layer[task.kv_head as usize * 2 * shape.half()..],
                block_stride: shape.n_kv_heads * 2 * shape.half(),
            };
            // SAFETY: `isa` was detected; the kernel asserts its extents; each task writes its own rows' heads.
            unsafe {
                T::attend(self.isa, &args, scores, sizes.score_stride, out);
                for (row, out) in rows.zip(out.chunks_exact(width)) {
                    attended.slice(row * q_dim + head, width).copy_from_slice(out);
                }
            }
        });
    }
}
