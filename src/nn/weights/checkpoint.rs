//! A checkpoint on disk, known by its headers.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Content;
use half::{bf16, f16};
use serde_json::Value;

use super::dtype::DType;
use super::{ggml, safetensors};
use crate::nn::Error;
use crate::nn::arch::names::{self, Names, Role, Scheme};
use crate::nn::arch::{self, ModelConfig};
use crate::nn::cache::KvType;
use crate::nn::cpu::buffer::Buffer;
use crate::nn::cpu::packed::Format;

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// Bytes in the file.
    pub bytes: u64,
    pub file: PathBuf,
    /// Where they begin.
    pub offset: u64,
}

/// A directory (`config.json` and safetensors, single or sharded) or a `.gguf` file.
pub struct Checkpoint {
    config: ModelConfig,
    names: Names,
    /// Where a missing tensor should have been: the index, the file or the directory.
    origin: PathBuf,
    files: Vec<PathBuf>,
    file_bytes: u64,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    gguf: Option<Content>,
}

impl Checkpoint {
    /// Reads headers only. Every tensor is checked to lie inside its file, and every tensor that the
    /// architecture needs to be there in the right shape.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        let checkpoint = if meta.is_dir() { open_directory(path)? } else { open_gguf(path)? };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Bytes of all files.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Bytes that loading reads, all told: what `on_bytes` adds up to.
    pub fn load_bytes(&self) -> u64 {
        self.needed().map(|(_, _, tensor)| tensor.bytes).sum()
    }

    /// Bytes of the weights as they will lie in memory.
    pub fn weight_bytes(&self) -> u64 {
        let packed = |(_, _, tensor): (Role, usize, &TensorInfo)| match *tensor.shape {
            [n, k] => Format::of(tensor.dtype).bytes(n, k),
            _ => 4 * tensor.shape.iter().product::<usize>().next_multiple_of(16) as u64,
        };
        self.needed().map(packed).sum()
    }

    /// Bytes of a copy of the linear layers with an adapter merged in, at most.
    pub fn merged_bytes(&self) -> u64 {
        let packed = |(role, _, tensor): (Role, usize, &TensorInfo)| match (role, &*tensor.shape) {
            (Role::Weight(_), [n, k]) => Format::of(tensor.dtype).changed().bytes(*n, *k),
            _ => 0,
        };
        self.needed().map(packed).sum()
    }

    /// Bytes of K and V of one token position.
    pub fn kv_bytes_per_token(&self, kv_type: KvType) -> u64 {
        (self.config.n_layers * self.config.kv_dim() * 2 * kv_type.bytes()) as u64
    }

    /// Bytes of what a model for steps of `max_rows` rows allocates besides weights and KV: scratch and the
    /// rope tables of its full context, without the attention scores, which grow with the threads.
    pub fn activation_bytes(&self, max_rows: usize) -> u64 {
        crate::nn::model::scratch_bytes(&self.config, max_rows)
            + crate::nn::model::rope_bytes(&self.config, self.config.max_positions)
    }

    /// The GGUF header, for the tokenizer in its metadata.
    pub fn gguf(&self) -> Option<&Content> {
        self.gguf.as_ref()
    }

    /// Whether rows of q and k are in the order of interleaved pairs.
    pub(crate) fn interleaves_rope(&self) -> bool {
        self.names.scheme == Scheme::Gguf && self.config.arch.family().interleaved_in_gguf
    }

    /// What the stored weights of norms lack.
    pub(crate) fn norm_shift(&self) -> f32 {
        let less_one = self.names.scheme == Scheme::HuggingFace && self.config.arch.family().norms_less_one;
        if less_one { 1.0 } else { 0.0 }
    }

    /// The tensor for a role; [`Self::open`] has checked that it is there.
    pub(crate) fn tensor(&self, role: Role, layer: usize) -> Result<&TensorInfo, Error> {
        let name = self.names.of(role, layer);
        match self.by_name.get(&name) {
            Some(index) => Ok(&self.tensors[*index]),
            None => Err(Error::TensorMissing { file: self.origin.clone(), tensor: name }),
        }
    }

    fn needed(&self) -> impl Iterator<Item = (Role, usize, &TensorInfo)> {
        names::expected(&self.config)
            .into_iter()
            .filter_map(|(role, layer, _)| Some((role, layer, self.tensor(role, layer).ok()?)))
    }

    fn check(&self) -> Result<(), Error> {
        for (role, layer, shape) in names::expected(&self.config) {
            let tensor = self.tensor(role, layer)?;
            let error = || (tensor.file.clone(), tensor.name.clone());
            if tensor.shape != shape {
                let ((file, tensor), found) = (error(), tensor.shape.clone());
                return Err(Error::ShapeMismatch { file, tensor, expected: shape, found });
            }
            let row = *shape.last().unwrap_or(&1);
            let block =
                tensor.dtype.block().max(if matches!(tensor.dtype, DType::Quantised(_)) { 32 } else { 1 });
            if !row.is_multiple_of(block) {
                let what = format!("tensor {} with rows of {row} in blocks of {block}", tensor.name);
                return Err(Error::unsupported(&tensor.file, what));
            }
        }
        Ok(())
    }
}

fn build(
    mut config: ModelConfig,
    scheme: Scheme,
    origin: PathBuf,
    files: Vec<PathBuf>,
    mut tensors: Vec<TensorInfo>,
    gguf: Option<Content>,
) -> Result<Checkpoint, Error> {
    let mut file_bytes = 0;
    for file in &files {
        file_bytes += std::fs::metadata(file).map_err(|e| Error::io(file, e))?.len();
    }
    tensors.iter_mut().for_each(|tensor| tensor.name = names::text_part(&tensor.name));
    let by_name: HashMap<String, usize> =
        tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
    let names = Names::new(scheme, &config);
    let embedding = by_name.get(&names.of(Role::Embedding, 0)).map(|index| tensors[*index].dtype);
    let rounded = embedding.filter(|_| scheme == Scheme::HuggingFace);
    config.embedding_scale = config.embedding_scale_for(rounded);
    Ok(Checkpoint { config, names, origin, files, file_bytes, tensors, by_name, gguf })
}

fn read_json(file: &Path) -> Result<Value, Error> {
    let bytes = std::fs::read(file).map_err(|e| Error::io(file, e))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::corrupt(file, e))
}

fn open_directory(dir: &Path) -> Result<Checkpoint, Error> {
    let config_file = dir.join("config.json");
    let generation = read_json(&dir.join("generation_config.json")).ok();
    let config = arch::hf::config(&config_file, &read_json(&config_file)?, generation.as_ref())?;
    let index = dir.join("model.safetensors.index.json");
    if !index.exists() {
        let single = dir.join("model.safetensors");
        let tensors = safetensors::read_header(&single)?;
        return build(config, Scheme::HuggingFace, single.clone(), vec![single], tensors, None);
    }
    let json = read_json(&index)?;
    let map = json
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| Error::corrupt(&index, "no weight_map"))?;
    let mut shards: Vec<&str> = map.values().filter_map(Value::as_str).collect();
    shards.sort_unstable();
    shards.dedup();
    let (mut files, mut tensors) = (Vec::new(), Vec::new());
    for shard in shards {
        // a shard is a plain name beside the index
        if shard.contains(['/', '\\']) || shard.starts_with('.') {
            return Err(Error::corrupt(&index, format!("shard name {shard:?}")));
        }
        let file = dir.join(shard);
        let found = safetensors::read_header(&file)?;
        for (tensor, _) in map.iter().filter(|(_, s)| s.as_str() == Some(shard)) {
            if !found.iter().any(|t| t.name == *tensor) {
                return Err(Error::TensorMissing { file, tensor: tensor.clone() });
            }
        }
        tensors.extend(found);
        files.push(file);
    }
    build(config, Scheme::HuggingFace, index, files, tensors, None)
}

fn open_gguf(path: &Path) -> Result<Checkpoint, Error> {
    if path.extension().is_none_or(|e| e != "gguf") {
        return Err(Error::unsupported(path, "a file that is no .gguf"));
    }
    let io = |source| Error::io(path, source);
    let handle = File::open(path).map_err(io)?;
    let file_bytes = handle.metadata().map_err(io)?.len();
    let content = Content::read(&mut Tracked { inner: BufReader::new(handle), position: 0 })
        .map_err(|e| Error::corrupt(path, format!("header: {e}")))?;
    let mut tensors = Vec::with_capacity(content.tensor_infos.len());
    for (name, info) in &content.tensor_infos {
        let dtype = DType::from_ggml(info.ggml_dtype);
        let shape = info.shape.dims().to_vec();
        let bytes =
            shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).and_then(|n| dtype.bytes(n)).ok_or_else(
                || Error::corrupt(path, format!("tensor {name} of shape {shape:?} as {dtype:?}")),
            )?;
        let offset = content.tensor_data_offset.saturating_add(info.offset);
        let end = offset.saturating_add(bytes);
        if end > file_bytes {
            let cause = format!("truncated: tensor {name} ends at byte {end}, the file at {file_bytes}");
            return Err(Error::corrupt(path, cause));
        }
        tensors.push(TensorInfo { name: name.clone(), dtype, shape, bytes, file: path.into(), offset });
    }
    tensors.sort_by_key(|t| t.offset);
    let divisors = tensors.iter().find(|tensor| tensor.name == "rope_freqs.weight");
    let divisors = divisors.map(|tensor| Reader::new().floats(tensor, &mut |_| ())).transpose()?;
    let config = arch::gguf::config(path, &content, divisors)?;
    build(config, Scheme::Gguf, path.into(), vec![path.into()], tensors, Some(content))
}

/// Knows where it is without asking the system, which candle wants to know at every string of a header.
struct Tracked {
    inner: BufReader<File>,
    position: u64,
}

impl Read for Tracked {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for Tracked {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.inner.seek(to)?;
        Ok(self.position)
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        Ok(self.position)
    }
}

/// Reads tensors through handles that stay open, into one reused buffer.
pub struct Reader {
    handles: HashMap<PathBuf, File>,
    /// As long as the longest tensor so far.
    buffer: Buffer<u8>,
}

impl Reader {
    /// Bytes between two reports of progress.
    const STRIDE: usize = 8 << 20;

    pub fn new() -> Self {
        Self { handles: HashMap::new(), buffer: Buffer::empty() }
    }

    /// The stored bytes; `on_bytes` gets each part as it arrives.
    pub fn bytes(&mut self, tensor: &TensorInfo, on_bytes: &mut dyn FnMut(u64)) -> Result<&[u8], Error> {
        let io = |source| Error::io(&tensor.file, source);
        if !self.handles.contains_key(&tensor.file) {
            self.handles.insert(tensor.file.clone(), File::open(&tensor.file).map_err(io)?);
        }
        let handle = &self.handles[&tensor.file];
        let n = tensor.bytes as usize;
        if self.buffer.len() < n {
            // the old one first: the two of them would be the peak of the load
            self.buffer = Buffer::empty();
            self.buffer = Buffer::zeroed(n, "a tensor read from disk")?;
        }
        for (i, part) in self.buffer[..n].chunks_mut(Self::STRIDE).enumerate() {
            let offset = tensor.offset + (i * Self::STRIDE) as u64;
            handle.read_exact_at(part, offset).map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    Error::corrupt(&tensor.file, format!("truncated inside tensor {}", tensor.name))
                }
                _ => io(e),
            })?;
            on_bytes(part.len() as u64);
        }
        Ok(&self.buffer[..n])
    }

    /// The values as f32.
    pub fn floats(&mut self, tensor: &TensorInfo, on_bytes: &mut dyn FnMut(u64)) -> Result<Vec<f32>, Error> {
        let raw = self.bytes(tensor, on_bytes)?;
        to_floats(tensor, raw)
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

fn to_floats(tensor: &TensorInfo, raw: &[u8]) -> Result<Vec<f32>, Error> {
    let pairs = || raw.chunks_exact(2).map(|b| [b[0], b[1]]);
    Ok(match tensor.dtype {
        DType::F32 => raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        DType::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        DType::Bf16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        DType::Quantised(ggml) => {
            let n = raw.len() / ggml.type_size() * ggml.block_size();
            ggml::dequantise(ggml, raw, n)
                .map_err(|e| Error::corrupt(&tensor.file, format!("tensor {}: {e}", tensor.name)))?
        }
    })
}
