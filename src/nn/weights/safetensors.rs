//! Safetensors headers: eight bytes of length, JSON, then data.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Deserialize;

use super::checkpoint::TensorInfo;
use super::dtype::DType;
use crate::nn::Error;

/// Largest header that is read; the format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// Tensors of one file, each checked to lie inside it and to be as long as its shape says.
pub fn read_header(file: &Path) -> Result<Vec<TensorInfo>, Error> {
    let io = |source| Error::io(file, source);
    let handle = File::open(file).map_err(io)?;
    let file_bytes = handle.metadata().map_err(io)?.len();
    if file_bytes < 8 {
        return Err(Error::corrupt(file, format!("only {file_bytes} bytes long")));
    }
    let mut length = [0; 8];
    handle.read_exact_at(&mut length, 0).map_err(io)?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > MAX_HEADER_BYTES || header_bytes > file_bytes - 8 {
        return Err(Error::corrupt(
            file,
            format!("header of {header_bytes} bytes in a file of {file_bytes}"),
        ));
    }
    let mut header = vec![0; header_bytes as usize];
    handle.read_exact_at(&mut header, 8).map_err(io)?;
    let entries: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|e| Error::corrupt(file, format!("header: {e}")))?;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        if name != "__metadata__" {
            let entry: Entry = serde_json::from_value(entry)
                .map_err(|e| Error::corrupt(file, format!("tensor {name}: {e}")))?;
            tensors.push(check(file, name, entry, 8 + header_bytes, file_bytes)?);
        }
    }
    Ok(tensors)
}

fn check(file: &Path, name: String, entry: Entry, data: u64, file_bytes: u64) -> Result<TensorInfo, Error> {
    let dtype = DType::from_safetensors(&entry.dtype)
        .ok_or_else(|| Error::unsupported(file, format!("tensor {name} of type {}", entry.dtype)))?;
    let [begin, end] = entry.data_offsets;
    let bytes = entry
        .shape
        .iter()
        .try_fold(1usize, |n, d| n.checked_mul(*d))
        .and_then(|n| dtype.bytes(n))
        .filter(|bytes| end.checked_sub(begin) == Some(*bytes))
        .ok_or_else(|| {
            let cause = format!("tensor {name}: bytes {begin}..{end} do not fit shape {:?}", entry.shape);
            Error::corrupt(file, cause)
        })?;
    if data.saturating_add(end) > file_bytes {
        let cause = format!("truncated: tensor {name} ends at byte {}, the file at {file_bytes}", data + end);
        return Err(Error::corrupt(file, cause));
    }
    Ok(TensorInfo { name, dtype, shape: entry.shape, bytes, file: file.into(), offset: data + begin })
}
