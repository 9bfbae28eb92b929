//! Mixed adapters in one launch against plain sums, row by row.

use adit::nn::cuda::Element;
use adit::nn::cuda::card::Buffer;
use adit::nn::cuda::lora::{Pair, Rows, Site, TILE, Tables, Tile, add, begin, finish_gate};
use half::{bf16, f16};

use super::{card, download, near, poisoned, rounded, unit, upload, values};

/// Adapters by slot: ranks of each module, 0 where it leaves the module alone. The last has nothing at all.
const ADAPTERS: [[usize; 3]; 4] = [[16, 16, 16], [8, 0, 5], [64, 33, 64], [0, 0, 0]];

struct Case {
    inputs: usize,
    /// Of each module.
    outputs: &'static [usize],
    rows: usize,
}

fn check_one<T: Element>(case: &Case) {
    let Some(card) = card() else { return };
    let Case { inputs, outputs, rows } = *case;
    let n_modules = outputs.len();
    let columns: usize = outputs.iter().sum();
    let first = |module: usize| outputs[..module.min(n_modules)].iter().sum::<usize>();
    let padded = |ranks: &[usize; 3]| ranks[..n_modules].iter().max().unwrap().next_multiple_of(TILE);
    // [slot][module] → A, B, rank
    let (mut plain, mut kept, mut pairs): (
        Vec<Vec<(Vec<f32>, Vec<f32>, usize)>>,
        Vec<[Buffer<T>; 2]>,
        Vec<Pair>,
    ) = Default::default();
    for (slot, ranks) in ADAPTERS.iter().enumerate() {
        let rank = padded(ranks);
        let mut modules = Vec::new();
        let (mut a, mut b) = (vec![0f32; n_modules * rank * inputs], vec![0f32; columns * rank]);
        for (module, n) in outputs.iter().enumerate() {
            let (r, seed) = (ranks[module], (10 * slot + module) as u32);
            let own_a = rounded::<T>(&values(100 + seed, r * inputs));
            let own_b = rounded::<T>(&values(200 + seed, n * r));
            a[module * rank * inputs..][..r * inputs].copy_from_slice(&own_a);
            for (column, row) in own_b.chunks(r.max(1)).enumerate() {
                b[(first(module) + column) * rank..][..r].copy_from_slice(row);
            }
            modules.push((own_a, own_b, r));
        }
        plain.push(modules);
        let is_there = rank > 0;
        kept.push([
            upload::<T>(&card, if is_there { &a } else { &[0.0] }),
            upload::<T>(&card, if is_there { &b } else { &[0.0] }),
        ]);
        let [a, b] = kept.last().unwrap();
        pairs.push(if is_there { Pair::new(a, b, rank) } else { Pair::default() });
    }
    // every fifth row has no adapter; the others take turns
    let slot_of = |row: usize| (row % 5 != 4).then_some(row * 7 % ADAPTERS.len());
    let tile_of = |row: u32| slot_of(row as usize).map_or(u32::MAX, |slot| slot as u32);
    let mut list: Vec<u32> = (0..rows as u32).collect();
    list.sort_by_key(|row| tile_of(*row));
    let mut tiles: Vec<Tile> = Vec::new();
    for (at, row) in list.iter().enumerate() {
        let slot = tile_of(*row);
        match tiles.last_mut() {
            Some(tile) if tile.slot == slot && (tile.n as usize) < TILE => tile.n += 1,
            _ => tiles.push(Tile { first: at as u32, n: 1, slot }),
        }
    }
    let n_tiles = tiles.len() as u32;
    // room for more tiles than there are, as a captured step has
    tiles.resize(tiles.len() + 3, Tile { first: u32::MAX, n: 99, slot: 77 });
    let (x, start) = (rounded::<T>(&values(1, rows * inputs)), rounded::<T>(&values(2, rows * columns)));
    let on_card = upload::<T>(&card, &x);
    let mut out = upload::<T>(&card, &start);
    let rank = ADAPTERS.iter().map(padded).max().unwrap();
    let mut low = poisoned::<T>(&card, list.len() * n_modules * rank);
    let site = Site { inputs, outputs: columns, modules: [0, first(1), first(2)], n_modules, rank };
    let on_pairs = card.upload(&pairs, "test").unwrap();
    let on_tiles = card.upload(&tiles, "test").unwrap();
    let (count, on_list) = (card.upload(&[n_tiles], "test").unwrap(), card.upload(&list, "test").unwrap());
    let used = Rows { tiles: on_tiles.all(), n_tiles: count.all(), rows: on_list.all() };
    let tables = Tables { pairs: on_pairs.all(), rows: used };
    let mut gated = poisoned::<T>(&card, rows * columns / 2);
    let is_gate = n_modules == 2 && outputs[0] == outputs[1];
    if is_gate {
        let low = low.all_mut();
        begin(&card, &site, &tables, on_card.all(), &low).unwrap();
        finish_gate(&card, &site, &tables, &low, out.all(), (&gated.all_mut(), false)).unwrap();
    }
    add(&card, &site, &tables, on_card.all(), &low.all_mut(), &out.all_mut()).unwrap();

    let mut want = start;
    for (row, slot) in (0..rows).filter_map(|row| Some((row, slot_of(row)?))) {
        for (module, (a, b, r)) in plain[slot].iter().enumerate() {
            let dot =
                |u: &[f32], v: &[f32]| u.iter().zip(v).map(|(u, v)| f64::from(u * v)).sum::<f64>() as f32;
            let low: Vec<f32> = a.chunks(inputs).map(|a| dot(a, &x[row * inputs..][..inputs])).collect();
            for column in 0..outputs[module] {
                want[row * columns + first(module) + column] += dot(&low, &b[column * r..][..*r]);
            }
        }
    }
    let what = format!("{} {inputs} to {outputs:?}, {rows} rows", T::NAME);
    // A·x is rounded to the type on its way to B
    near(&download(&card, &out), &want, 2.0 * unit::<T>(), &what);
    if is_gate {
        let silu = |x: f32| x / (1.0 + (-x).exp());
        let want: Vec<f32> = want
            .chunks(columns)
            .flat_map(|row| row[..columns / 2].iter().zip(&row[columns / 2..]).map(|(g, u)| silu(*g) * u))
            .collect();
        near(&download(&card, &gated), &want, 2.0 * unit::<T>(), &format!("{what}, through the gate"));
    }
}

fn check<T: Element>() {
    for (inputs, outputs, rows) in [
        (64, &[64, 32, 32][..], 3),
        (144, &[272][..], 77),
        (896, &[896, 128, 128][..], 61),
        (896, &[4864, 4864][..], 1),
        (128, &[96, 96][..], 150),
        (4864, &[896][..], 300),
    ] {
        check_one::<T>(&Case { inputs, outputs, rows });
    }
}

#[test]
fn lora_agrees_in_bf16() {
    check::<bf16>();
}

#[test]
fn lora_agrees_in_f16() {
    check::<f16>();
}
