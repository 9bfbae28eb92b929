//! Random weights, to measure with where there is no checkpoint.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::bf16;
use serde_json::{Map, Value, json};

use crate::nn::Error;
use crate::nn::arch::names::{self, Names, Role, Scheme};
use crate::nn::arch::{self, ModelConfig};

/// Values from a seed: xorshift (Marsaglia 2003), even over an interval around 0.
pub struct Values {
    state: u64,
}

impl Values {
    pub fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 }
    }

    /// The next `n`, from `-size` to `size`.
    pub fn take(&mut self, n: usize, size: f32) -> impl Iterator<Item = f32> {
        (0..n).map(move |_| {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            ((self.state >> 40) as f32 / (1 << 23) as f32 - 1.0) * size
        })
    }
}

/// The shape that a `config.json` describes.
pub fn config(json: &Value) -> Result<ModelConfig, Error> {
    arch::hf::config(Path::new("config.json"), json, None)
}

/// Writes a checkpoint of this `config.json` with weights in bf16 into a directory that is there.
pub fn write(dir: &Path, json: &Value, seed: u64) -> Result<(), Error> {
    let config = config(json)?;
    let file = dir.join("config.json");
    std::fs::write(&file, json.to_string()).map_err(|e| Error::io(&file, e))?;
    let names = Names::new(Scheme::HuggingFace, &config);
    let tensors = names::expected(&config);
    let (mut header, mut end) = (Map::new(), 0);
    for (role, layer, shape) in &tensors {
        let begin = end;
        end += 2 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]});
        header.insert(names.of(*role, *layer), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let file = dir.join("model.safetensors");
    let fail = |e| Error::io(&file, e);
    let mut out = BufWriter::new(File::create(&file).map_err(fail)?);
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(fail)?;
    out.write_all(&header).map_err(fail)?;
    let mut values = Values::new(seed);
    for (role, _, shape) in &tensors {
        let (n, k) = (shape.iter().product::<usize>(), *shape.last().unwrap_or(&1));
        let (size, centre) = match role {
            Role::Embedding | Role::Head | Role::Weight(_) => ((3.0 / k as f32).sqrt(), 0.0),
            Role::Bias(_) => (0.1, 0.0),
            _ => (0.0, 1.0),
        };
        for value in values.take(n, size) {
            out.write_all(&bf16::from_f32(value + centre).to_le_bytes()).map_err(fail)?;
        }
    }
    out.flush().map_err(fail)
}
