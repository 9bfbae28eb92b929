//! Choosing tokens.

use adit::nn::cuda::sample::{Draw, Masks, NONE, argmax, draw};

use super::{Bench, VOCAB};

pub fn run(bench: &Bench) {
    let card = &bench.card;
    let words = VOCAB.div_ceil(32);
    for rows in [1, 32, 256] {
        let mut state = 1u32;
        let logits: Vec<f32> = (0..rows * VOCAB)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state as f32 / u32::MAX as f32 * 20.0 - 10.0
            })
            .collect();
        let logits = card.upload(&logits, "bench").unwrap();
        // free text allows most tokens, a key few
        let half: Vec<u32> = vec![0xffff_0fff; rows * words];
        let few: Vec<u32> = (0..rows * words).map(|i| if i % 50 == 3 { 0x10 } else { 0 }).collect();
        let of_row: Vec<u32> = (0..rows as u32).collect();
        let none = card.upload(&vec![NONE; rows], "bench").unwrap();
        let of_row = card.upload(&of_row, "bench").unwrap();
        let mut best = card.zeroed::<u64>(rows, "bench").unwrap();
        for (name, masks, of_row) in
            [("no mask", &half, &none), ("most", &half, &of_row), ("few", &few, &of_row)]
        {
            let masks = card.upload(masks, "bench").unwrap();
            let masks = Masks { masks: masks.all(), words, of_row: of_row.all() };
            let s = bench.seconds(8, |_| {
                card.clear(&mut best)?;
                argmax(card, logits.all(), VOCAB, &masks, &best.all_mut())
            });
            bench.line(
                &format!("argmax of {rows}×{VOCAB}, {name} allowed"),
                s,
                (rows * VOCAB * 4) as f64,
                0.0,
            );
        }
        for (name, top_k, top_p) in [("plain", 0, 1.0), ("top-p", 0, 0.9), ("top-k, top-p", 50, 0.9)] {
            let masks = Masks { masks: none.all(), words, of_row: none.all() };
            let masks_of = |row: u32| Draw {
                row,
                mask: NONE,
                temperature: 0.8,
                top_p,
                top_k,
                at: f64::from(row % 97) / 97.0,
                ..Draw::default()
            };
            let draws: Vec<Draw> = (0..rows as u32).map(masks_of).collect();
            let draws = card.upload(&draws, "bench").unwrap();
            let mut tokens = card.zeroed::<u32>(rows, "bench").unwrap();
            let s = bench.seconds(4, |_| {
                draw(card, logits.all(), VOCAB, &masks, draws.all(), best.all(), &tokens.all_mut())
            });
            bench.line(&format!("draw of {rows}×{VOCAB}, {name}"), s, (rows * VOCAB * 4) as f64, 0.0);
        }
    }
}
