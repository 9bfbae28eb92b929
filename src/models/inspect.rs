//! What a load would need, read off file headers. Blocking and quick; loads nothing, books nothing.

use std::path::{Path, PathBuf};

use super::base::{Bases, Held, Phase};
use super::budget::{self, Footprint, Wish};
use super::device::Place;
use super::error::ModelError;
use super::hub;
use super::loader::Order;
use super::source::Source;
use crate::config::settings;
use crate::domain::model::MemoryPlan;
use crate::nn::cache::KvType;
use crate::nn::weights::adapter::Adapter;
use crate::nn::weights::checkpoint::Checkpoint;

/// What makes two bases one: where they are read from and where they run. A value the device cannot give is refused.
pub fn base_key(model: &settings::Model, engine: &settings::Engine) -> Result<String, ModelError> {
    if model.tensor_parallel_size > 1 {
        return Err(ModelError::Unsupported(format!(
            "tensor_parallel_size {} on a device without several GPUs",
            model.tensor_parallel_size
        )));
    }
    let place = Place::of(model, engine)?;
    let path = match Source::parse(&model.path)? {
        Source::Local(path) => path.display().to_string(),
        Source::Hub { repo, revision } => format!("hub:{repo}@{revision}"),
    };
    Ok(if place.is_card() { format!("{path} on {place}") } else { path })
}

/// Bytes the model of an order needs now; `None` where that is not known before a download. Where others
/// hold its base, loaded or on its way, only its adapter is new.
pub fn plan(order: &Order, bases: &Bases) -> Result<Option<MemoryPlan>, ModelError> {
    let model = &order.model;
    let engine = &order.settings.engine;
    let key = base_key(model, engine)?;
    let place = Place::of(model, engine)?;
    let mut device = bases.device_now(place);
    // a base that has not been booked yet may not fit: then each of its models is planned in full
    if let Some(Held { phase: Phase::Loading(_) | Phase::Loaded(_), plan: Some(plan), holders }) =
        bases.held(&key)
    {
        let own = holders.iter().find(|holder| holder.name == model.name);
        let booked_bytes = own.map_or(0, |own| own.adapter_bytes);
        let first = &holders[0].name;
        if *first == model.name {
            return Ok(Some(MemoryPlan { adapter_bytes: booked_bytes, ..plan }));
        }
        device.committed_bytes = device.committed_bytes.saturating_sub(booked_bytes);
        let adapter_bytes = adapter_bytes(order).max(booked_bytes);
        return Ok(Some(budget::plan_shared(
            adapter_bytes,
            &device,
            &wish(order, place),
            first,
            plan.kv_tokens,
        )));
    }
    let Some(path) = local(order)? else { return Ok(None) };
    let footprint = footprint(&Checkpoint::open(&path)?, order, place);
    Ok(Some(budget::plan(&footprint, &device, &wish(order, place))))
}

/// Bytes of the order's adapter as it will lie in memory; 0 while it has to be downloaded, or is damaged,
/// which its load reports.
fn adapter_bytes(order: &Order) -> u64 {
    adapter_bytes_of(&order.model, order)
}

fn adapter_bytes_of(model: &settings::Model, order: &Order) -> u64 {
    let dir = match model.adapter.as_deref().map(Source::parse) {
        Some(Ok(Source::Local(dir))) => Some(dir),
        Some(Ok(Source::Hub { repo, revision })) => {
            hub::cached(&repo, &revision, &hub::Options::new(&order.settings))
        }
        _ => None,
    };
    dir.map_or(0, |dir| adapter_bytes_in(&dir))
}

/// The other configured models of the order's base.
fn others(order: &Order) -> impl Iterator<Item = &settings::Model> {
    let key = |model: &settings::Model| base_key(model, &order.settings.engine).ok();
    let own = key(&order.model);
    order.all.iter().filter(move |other| other.name != order.model.name && own.is_some() && key(other) == own)
}

/// As it will lie in memory, of an adapter's directory.
pub fn adapter_bytes_in(dir: &Path) -> u64 {
    Adapter::inspect(dir).unwrap_or(0)
}

/// Sizes of a checkpoint, with the order's adapter.
pub fn footprint(checkpoint: &Checkpoint, order: &Order, place: Place) -> Footprint {
    let engine = order.settings.engine.resolved(place.is_card());
    let sizes = place.sizes(checkpoint, &engine, kv_type(&engine));
    let is_adapted = |model: &settings::Model| model.adapter.is_some();
    let may_merge = engine.merge_adapters && (is_adapted(&order.model) || others(order).any(is_adapted));
    Footprint {
        merged_bytes: if may_merge { checkpoint.merged_bytes() } else { 0 },
        weights_bytes: sizes.weights_bytes,
        adapter_bytes: adapter_bytes(order),
        other_adapter_bytes: others(order).map(|other| adapter_bytes_of(other, order)).sum(),
        activation_bytes: sizes.activation_bytes,
        kv_bytes_per_token: sizes.kv_bytes_per_token,
        context_tokens: checkpoint.config().max_positions as u64,
    }
}

/// How the settings want K and V held.
pub fn kv_type(engine: &settings::Engine) -> KvType {
    match engine.kv_type {
        settings::KvType::F16 => KvType::F16,
        settings::KvType::F32 => KvType::F32,
    }
}

/// A base, with all that is added to it, may use the largest share that one of its models has: whoever
/// happens to load it, the outcome is the same.
pub fn wish(order: &Order, place: Place) -> Wish {
    let engine = order.settings.engine.resolved(place.is_card());
    let shares = others(order).map(|other| other.gpu_memory_utilization);
    Wish {
        utilization: shares.fold(order.model.gpu_memory_utilization, f64::max),
        reserve_bytes: order.settings.loading.reserve_bytes,
        kv_tokens: engine.kv_tokens as u64,
        max_auto_kv_tokens: if place.is_card() { u64::MAX } else { budget::MAX_CPU_KV_TOKENS },
        block_tokens: engine.block_tokens as u64,
        max_sequences: engine.max_sequences as u64,
    }
}

/// Where the checkpoint lies on this machine; `None` if it has to be downloaded first.
fn local(order: &Order) -> Result<Option<PathBuf>, ModelError> {
    match Source::parse(&order.model.path)? {
        Source::Local(path) => Ok(Some(path)),
        Source::Hub { repo, revision } => {
            Ok(hub::cached(&repo, &revision, &hub::Options::new(&order.settings)))
        }
    }
}
