//! Cards in a build without them.

use super::device::{Ceilings, Loaded, Memory, Sizes};
use crate::nn::Error;
use crate::nn::arch::ModelConfig;
use crate::nn::model::LoadOptions;
use crate::nn::weights::checkpoint::Checkpoint;

const WHY: &str = "this adit was built without the feature cuda";

pub fn look(_number: usize) -> Result<String, String> {
    Err(WHY.into())
}

pub fn memory(_number: usize) -> Option<Memory> {
    None
}

pub fn sizes(_checkpoint: &Checkpoint, _max_rows: usize, _logit_rows: usize) -> Sizes {
    Sizes::default()
}

pub fn load(
    number: usize,
    _checkpoint: &Checkpoint,
    _options: &LoadOptions,
    _on_bytes: &mut dyn FnMut(u64),
) -> Result<Loaded, Error> {
    Err(none(number))
}

pub fn random(number: usize, _config: &ModelConfig, _options: &LoadOptions) -> Result<Loaded, Error> {
    Err(none(number))
}

pub fn ceilings(number: usize) -> Result<Ceilings, Error> {
    Err(none(number))
}

fn none(number: usize) -> Error {
    Error::Device { what: format!("card {number}"), cause: WHY.into() }
}
