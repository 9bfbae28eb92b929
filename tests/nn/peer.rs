//! Greedy continuations of a real checkpoint against llama.cpp's server, by hand:
//!
//! ```text
//! llama-server -m model.gguf --port 8099 &
//! ADIT_TEST_GGUF=model.gguf ADIT_TEST_PEER=127.0.0.1:8099 \
//!     cargo test --test nn peer -- --ignored --nocapture
//! ```
//!
//! The peer continues each prompt; then one forward pass over prompt and continuation says what we would
//! have chosen at every place after the very same tokens. Up to the first difference that is our own greedy
//! continuation; behind it, it still compares. Both sides round rows to 8 bits, in other places, so they may
//! differ where two tokens are nearly equal, and only there. With `ADIT_TEST_EXACT=1` the same weights as
//! f32, with nothing rounded, say how often either side chose as they do (4 bytes a weight, and slow).

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::{self, Content};
use candle_core::quantized::{GgmlDType, QTensor};
use serde_json::{Value, json};

use adit::clock::Clock;
use adit::models::texts;
use adit::nn::batch::{Batch, Span};
use adit::nn::model::{LoadOptions, Model};
use adit::nn::weights::checkpoint::Checkpoint;

use super::harness::argmax;

const NEW_TOKENS: usize = 32;
const BLOCK: usize = 16;
/// Largest lead that our choice may have over the peer's, in units of the logits' standard deviation at
/// that place (a sure choice leads by several).
const NEAR_TIE: f32 = 0.3;

fn ask(peer: &str, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut stream = TcpStream::connect(peer).expect("ADIT_TEST_PEER is where llama-server listens");
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {peer}\r\nContent-Type: application/json\r\n\
            Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    serde_json::from_str(body).unwrap()
}

fn tokens(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Logits at each place that chooses a token of the continuation.
fn logits(model: &mut Model, tokens: &[u32], prompt: usize) -> Vec<Vec<f32>> {
    let n_blocks = tokens.len().div_ceil(BLOCK) as u32;
    let batch = Batch {
        tokens: tokens.to_vec(),
        spans: vec![Span {
            first_row: 0,
            n_tokens: tokens.len() as u32,
            past: 0,
            first_block: 0,
            n_blocks,
            adapter: None,
        }],
        blocks: (0..n_blocks).collect(),
        logit_rows: (prompt as u32 - 1..tokens.len() as u32 - 1).collect(),
    };
    let vocab = model.config().vocab;
    model.forward(&batch).unwrap().chunks(vocab).map(<[f32]>::to_vec).collect()
}

/// How far our choice leads the peer's.
fn lead(logits: &[f32], peers: u32) -> f32 {
    let n = logits.len() as f32;
    let mean = logits.iter().sum::<f32>() / n;
    let spread = (logits.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n).sqrt();
    (logits[argmax(logits) as usize] - logits[peers as usize]) / spread
}

/// The same weights with nothing left to round.
fn exact(path: &Path, options: &LoadOptions) -> Model {
    let mut file = File::open(path).unwrap();
    let content = Content::read(&mut file).unwrap();
    let mut as_f32 = |name: &String| {
        let values = content.tensor(&mut file, name, &Device::Cpu).unwrap().dequantize(&Device::Cpu);
        (name.clone(), QTensor::quantize(&values.unwrap(), GgmlDType::F32).unwrap())
    };
    let tensors: Vec<(String, QTensor)> = content.tensor_infos.keys().map(&mut as_f32).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
    let metadata: Vec<_> = content.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("exact.gguf");
    gguf_file::write(&mut File::create(&to).unwrap(), &metadata, &tensors).unwrap();
    Model::load(&Checkpoint::open(&to).unwrap(), options, &mut |_| ()).unwrap()
}

#[derive(Default)]
struct Tally {
    tokens: usize,
    equal: usize,
    /// How often the exact model chose as we did, and as the peer did.
    exact: [usize; 2],
    same_texts: usize,
    /// Leads at first differences, and at all.
    first: Vec<f32>,
    all: Vec<f32>,
}

impl Tally {
    fn add(&mut self, logits: &[Vec<f32>], peers: &[u32]) {
        let leads: Vec<f32> = logits.iter().zip(peers).map(|(row, id)| lead(row, *id)).collect();
        self.tokens += peers.len();
        self.equal += leads.iter().filter(|lead| **lead == 0.0).count();
        let mut different = leads.into_iter().filter(|lead| *lead > 0.0).peekable();
        match different.peek() {
            Some(lead) => self.first.push(*lead),
            None => self.same_texts += 1,
        }
        self.all.extend(different);
    }

    fn add_exact(&mut self, logits: &[Vec<f32>], exact: &[Vec<f32>], peers: &[u32]) {
        for ((ours, exact), peers) in logits.iter().zip(exact).zip(peers) {
            let exact = argmax(exact);
            self.exact[0] += usize::from(argmax(ours) == exact);
            self.exact[1] += usize::from(*peers == exact);
        }
    }
}

fn largest(leads: &[f32]) -> f32 {
    leads.iter().copied().fold(0.0, f32::max)
}

#[test]
#[ignore = "needs a checkpoint and llama.cpp's server"]
fn greedy_tokens_are_those_of_llama_cpp() {
    let var = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let (path, peer) = (PathBuf::from(var("ADIT_TEST_GGUF")), var("ADIT_TEST_PEER"));
    let checkpoint = Checkpoint::open(&path).unwrap();
    let texts = texts::read(&checkpoint, &path, Clock::default()).unwrap();
    let options = LoadOptions { kv_tokens: 512, context_tokens: 512, ..LoadOptions::default() };
    let mut model = Model::load(&checkpoint, &options, &mut |_| ()).unwrap();
    let bos = checkpoint.gguf().unwrap().metadata.get("tokenizer.ggml.add_bos_token");
    let bos = bos.and_then(|v| v.to_bool().ok()).unwrap_or(false).then_some(model.config().bos).flatten();

    let mut exact = std::env::var_os("ADIT_TEST_EXACT").map(|_| exact(&path, &options));
    let (mut tally, mut prompts, mut misread) = (Tally::default(), 0, Vec::new());
    for line in include_str!("prompts.txt").lines() {
        let text = line.replace("\\n", "\n");
        let mut prompt: Vec<u32> = bos.into_iter().collect();
        prompt.extend(texts.tokenizer.encode_text(&text).unwrap());
        let theirs = ask(&peer, "/tokenize", &json!({"content": text, "add_special": true}));
        if prompt != tokens(&theirs["tokens"]) {
            misread.push(format!("{line:?}: {prompt:?}, the peer {}", theirs["tokens"]));
        }
        let ask_for = json!({
            "prompt": prompt, "n_predict": NEW_TOKENS, "temperature": 0, "return_tokens": true,
            "cache_prompt": false,
        });
        let continuation = tokens(&ask(&peer, "/completion", &ask_for)["tokens"]);
        prompts += 1;
        let all = [&prompt[..], &continuation].concat();
        if !continuation.is_empty() {
            let logits_of = |model: &mut Model| logits(model, &all, prompt.len());
            let ours = logits_of(&mut model);
            tally.add(&ours, &continuation);
            if let Some(exact) = &mut exact {
                tally.add_exact(&ours, &logits_of(exact), &continuation);
            }
        }
    }
    println!("{}", path.file_name().unwrap().display());
    println!("prompts tokenised alike: {} of {prompts}", prompts - misread.len());
    println!(
        "equal tokens: {} of {} ({:.2} %); continuations equal throughout: {} of {prompts}",
        tally.equal,
        tally.tokens,
        100.0 * tally.equal as f64 / tally.tokens as f64,
        tally.same_texts
    );
    println!(
        "our choice's lead over the peer's in standard deviations of the logits: {:.3} at most at a first \
         difference, {:.3} anywhere",
        largest(&tally.first),
        largest(&tally.all)
    );
    if exact.is_some() {
        let share = |n: usize| 100.0 * n as f64 / tally.tokens as f64;
        let [ours, peers] = tally.exact.map(share);
        println!("chosen as with exact arithmetic: {ours:.2} % of ours, {peers:.2} % of the peer's");
    }
    assert!(misread.is_empty(), "{}", misread.join("\n"));
    assert!(tally.tokens > 1000 && largest(&tally.all) < NEAR_TIE);
}
