//! Answers that are followed while they come: the same tokens, step by step, with their probabilities.

use adit::engine::executor::fake::FakeOptions;
use adit::engine::handle::Options;
use adit::engine::request::{Branch, Logprob, Request, Sampling};
use serde_json::json;

use crate::grammar::{ENV, constrained, fake};
use crate::rig::{engine, eventually, generate_all, is_whole, request, run};

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

/// Where the grammar leaves a choice, the answer has its probability among what was allowed: the same whatever runs
/// beside it, and the one that follows from the model's own probabilities.
#[test]
fn choices_have_their_probability_among_what_was_allowed() {
    run(async {
        let handle = engine(fake(1), Options::default());
        let schema = json!({"type": "object", "properties": {"a": {"enum": ["one", "two"]}, "b": {"type": "string"}},
                            "required": ["a", "b"], "additionalProperties": false});
        let asked = Request { branches: true, ..constrained(&schema, Some(12), 5) };
        let plain = handle.generate(constrained(&schema, Some(12), 5)).await.unwrap();
        let alone = handle.generate(asked.clone()).await.unwrap();
        assert_eq!(alone.tokens, plain.tokens, "looking changes nothing");
        assert!(plain.branches.is_empty());
        let others =
            (1..20).map(|prompt| Request { branches: true, ..constrained(&schema, Some(12), prompt) });
        let together = generate_all(&handle, others.chain([asked.clone()]).collect()).await;
        assert_eq!(together.last().unwrap().branches, alone.branches);

        // the closed choice: the few tokens that begin "one" or "two", and their shares
        let Branch { at, logprob, n_allowed } = alone.branches[0];
        assert!((2..=8).contains(&n_allowed), "{n_allowed}");
        let named = handle.generate(Request { logprobs: Some(255), ..asked }).await.unwrap();
        let text = |tokens: &[u32]| String::from_utf8_lossy(&ENV.tok_trie().decode(tokens)).into_owned();
        let before = text(&alone.tokens[..at as usize]);
        let same = (0..named.tokens.len()).find(|at| text(&named.tokens[..*at]) == before).unwrap();
        let weight = |logprob: f32| f64::from(logprob).exp();
        let rest = ["one", "two"];
        let allowed = named.logprobs[same].top.iter().filter(|(token, _)| {
            let begun = text(&[*token]);
            !begun.is_empty()
                && rest.iter().any(|word| word.starts_with(&begun) || format!("{word}\"").starts_with(&begun))
        });
        let sum: f64 = allowed.map(|(_, logprob)| weight(*logprob)).sum();
        let own = named.logprobs[same].top.iter().find(|(token, _)| *token == alone.tokens[at as usize]);
        let expected = weight(own.expect("it is among the named").1) / sum;
        assert!((weight(logprob) - expected).abs() < 0.05, "{} for {expected}", weight(logprob));
        // the free string: far more was allowed, and every choice is a probability
        assert!(alone.branches.iter().any(|branch| branch.n_allowed > 50));
        assert!(alone.branches.iter().all(|branch| branch.logprob <= 0.0 && branch.n_allowed > 1));
        assert!(alone.branches.is_sorted_by(|a, b| a.at < b.at));
        is_whole(&handle).await;
        handle.close().await;
    });
}
