//! Answers that are followed while they come: the same tokens, step by step, with their probabilities.

use adit::engine::executor::fake::FakeOptions;
use adit::engine::handle::Options;
use adit::engine::request::{Logprob, Request, Sampling};
use serde_json::json;

use crate::grammar::{constrained, fake};
use crate::rig::{engine, eventually, is_whole, request, run};

async fn follow(handle: &adit::engine::handle::Handle, request: Request) -> (Vec<u32>, Vec<Logprob>, usize) {
    let mut following = handle.follow(request).unwrap();
    let (mut tokens, mut logprobs, mut pieces) = (Vec::new(), Vec::new(), 0);
    while let Some(news) = following.next().await {
        assert!(!news.tokens.is_empty());
        pieces += 1;
        tokens.extend(news.tokens);
        logprobs.extend(news.logprobs);
        assert_eq!(news.usage.output_tokens, tokens.len() as u64);
    }
    let completion = following.completion().await.unwrap();
    assert_eq!((&completion.tokens, &completion.logprobs), (&tokens, &logprobs));
    (tokens, logprobs, pieces)
}

#[test]
fn what_is_told_is_the_answer() {
    run(async {
        let handle = engine(FakeOptions::default(), Options::default());
        let whole = handle.generate(request(&[1, 2, 3], 20)).await.unwrap();
        let (tokens, logprobs, pieces) = follow(&handle, request(&[1, 2, 3], 20)).await;
        assert_eq!((tokens.len(), &tokens), (20, &whole.tokens));
        assert!(pieces > 5 && logprobs.is_empty());
        // a listener that only looks at the end has missed nothing
        let mut following = handle.follow(request(&[1, 2, 3], 20)).unwrap();
        eventually("the answer is complete", || handle.stats().completed == 3).await;
        let mut late = Vec::new();
        while let Some(news) = following.next().await {
            late.extend(news.tokens);
        }
        assert_eq!(late, whole.tokens);
        is_whole(&handle).await;
        handle.close().await;
    });
}

#[test]
fn a_listener_that_goes_away_frees_the_sequence() {
    run(async {
        let fake = FakeOptions { step_cost: std::time::Duration::from_millis(2), ..FakeOptions::default() };
        let handle = engine(fake, Options::default());
        let mut following = handle.follow(request(&[1, 2, 3], 400)).unwrap();
        following.next().await.unwrap();
        drop(following);
        is_whole(&handle).await;
        assert_eq!((handle.stats().cancelled, handle.stats().completed), (1, 0));
        handle.close().await;
    });
}

/// Probabilities change no token, and there is one for each: also where the schema or a draft gives several.
#[test]
fn every_token_has_its_probability() {
    run(async {
        let handle = engine(fake(1), Options::default());
        let schema = json!({"type": "object", "properties": {"a": {"enum": ["one", "two"]}}, "required": ["a"],
                            "additionalProperties": false});
        let warm = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
        let mut repeating = request(&[7, 8, 9, 7, 8, 9, 7, 8, 9, 7, 8], 40);
        repeating.sampling = warm;
        for plain in [request(&[1, 2, 3], 20), constrained(&schema, None, 5), repeating] {
            let without = handle.generate(plain.clone()).await.unwrap();
            let asked = Request { logprobs: Some(2), ..plain };
            let (tokens, logprobs, _) = follow(&handle, asked).await;
            assert_eq!((&tokens, tokens.len()), (&without.tokens, logprobs.len()));
            for (token, logprob) in tokens.iter().zip(&logprobs) {
                assert!(logprob.logprob <= logprob.top[0].1 && logprob.top[0].1 <= 0.0);
                assert_eq!(logprob.top.len(), 2);
                if let Some((_, named)) = logprob.top.iter().find(|(other, _)| other == token) {
                    assert_eq!(*named, logprob.logprob);
                }
            }
        }
        is_whole(&handle).await;
        handle.close().await;
    });
}
