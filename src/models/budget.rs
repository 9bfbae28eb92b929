//! The memory plan: a pure function of file headers, device and settings.

use crate::domain::model::MemoryPlan;

/// KV positions of an automatic pool on a CPU: a batch of some dozen sequences. More helps only batches larger than
/// its cores can run, and costs memory that a small model otherwise does not need.
pub const MAX_CPU_KV_TOKENS: u64 = 6_144;
/// An automatic pool that would hold fewer positions is no pool: the load is refused instead.
const MIN_AUTO_KV_TOKENS: u64 = 1_024;

/// What the headers of a checkpoint say about its size in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    pub weights_bytes: u64,
    pub adapter_bytes: u64,
    /// A copy of the linear layers with an adapter merged in, if one may be made.
    pub merged_bytes: u64,
    /// Adapters of the other models on this base: an automatic pool leaves room for them.
    pub other_adapter_bytes: u64,
    pub activation_bytes: u64,
    pub kv_bytes_per_token: u64,
    /// Longest sequence of the checkpoint.
    pub context_tokens: u64,
}

/// The device at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub total_bytes: u64,
    /// Free, or freed on demand.
    pub available_bytes: u64,
    /// Planned for bases that are loaded or being loaded.
    pub committed_bytes: u64,
    /// The part of it that is being loaded, so that `available_bytes` does not show it yet.
    pub pending_bytes: u64,
}

/// What the settings ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wish {
    /// Share of the device, above 0 and at most 1.
    pub utilization: f64,
    pub reserve_bytes: u64,
    /// 0: automatic.
    pub kv_tokens: u64,
    /// Positions of an automatic pool at most.
    pub max_auto_kv_tokens: u64,
    pub block_tokens: u64,
    /// Sequences that run at once.
    pub max_sequences: u64,
}

/// Bytes that a further model may use.
pub fn budget_bytes(device: &Device, utilization: f64) -> u64 {
    let share = (device.total_bytes as f64 * utilization) as u64;
    let share_left = share.saturating_sub(device.committed_bytes);
    share_left.min(device.available_bytes.saturating_sub(device.pending_bytes))
}

/// Plans a base with its first adapter. Whether it fits is the plan's own answer.
pub fn plan(footprint: &Footprint, device: &Device, wish: &Wish) -> MemoryPlan {
    let budget_bytes = budget_bytes(device, wish.utilization);
    let fixed = footprint.weights_bytes
        + footprint.adapter_bytes
        + footprint.merged_bytes
        + footprint.activation_bytes
        + wish.reserve_bytes;
    let kv_tokens = if wish.kv_tokens > 0 {
        wish.kv_tokens
    } else {
        let left = budget_bytes.saturating_sub(fixed + footprint.other_adapter_bytes)
            / footprint.kv_bytes_per_token.max(1);
        let useful = footprint.context_tokens.saturating_mul(wish.max_sequences);
        let most = wish.max_auto_kv_tokens.min(useful).max(1);
        left.min(most).max(MIN_AUTO_KV_TOKENS.min(most))
    };
    // whole blocks: an explicit wish is rounded up, and so is the smallest automatic pool
    let kv_tokens = kv_tokens.div_ceil(wish.block_tokens.max(1)) * wish.block_tokens.max(1);
    let mut plan = MemoryPlan {
        weights_bytes: footprint.weights_bytes,
        adapter_bytes: footprint.adapter_bytes,
        merged_bytes: footprint.merged_bytes,
        kv_bytes: kv_tokens * footprint.kv_bytes_per_token,
        activation_bytes: footprint.activation_bytes,
        reserve_bytes: wish.reserve_bytes,
        budget_bytes,
        kv_tokens,
        shares_base_with: None,
    };
    // rounding up may have passed the budget by less than a block
    let is_over_by_rounding = wish.kv_tokens == 0 && !plan.fits() && kv_tokens > MIN_AUTO_KV_TOKENS;
    if is_over_by_rounding {
        plan.kv_tokens -= wish.block_tokens.max(1);
        plan.kv_bytes = plan.kv_tokens * footprint.kv_bytes_per_token;
    }
    plan
}

/// Plans a model whose base is there already, or on its way: only its adapter is new, and without one it
/// costs nothing.
pub fn plan_shared(
    adapter_bytes: u64,
    device: &Device,
    wish: &Wish,
    with: &str,
    kv_tokens: u64,
) -> MemoryPlan {
    MemoryPlan {
        adapter_bytes,
        reserve_bytes: if adapter_bytes > 0 { wish.reserve_bytes } else { 0 },
        budget_bytes: budget_bytes(device, wish.utilization),
        kv_tokens,
        shares_base_with: Some(with.to_string()),
        ..MemoryPlan::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn footprint() -> Footprint {
        Footprint {
            weights_bytes: 4 * GIB,
            adapter_bytes: 0,
            merged_bytes: 0,
            other_adapter_bytes: 0,
            activation_bytes: GIB / 4,
            kv_bytes_per_token: 256 << 10,
            context_tokens: 32_768,
        }
    }

    fn device(total: u64) -> Device {
        Device { total_bytes: total, available_bytes: total, ..Device::default() }
    }

    fn wish() -> Wish {
        Wish {
            utilization: 1.0,
            reserve_bytes: GIB / 4,
            kv_tokens: 0,
            max_auto_kv_tokens: MAX_CPU_KV_TOKENS,
            block_tokens: 16,
            max_sequences: 64,
        }
    }

    #[test]
    fn a_large_device_gets_the_largest_automatic_pool() {
        let plan = plan(&footprint(), &device(64 * GIB), &wish());
        assert!(plan.fits());
        assert_eq!(plan.kv_tokens, MAX_CPU_KV_TOKENS);
        assert_eq!(plan.kv_bytes, MAX_CPU_KV_TOKENS * footprint().kv_bytes_per_token);
    }

    #[test]
    fn a_tight_device_gets_the_pool_that_is_left() {
        let plan = plan(&footprint(), &device(5 * GIB + GIB / 2), &wish());
        assert!(plan.fits(), "{plan:?}");
        assert_eq!(plan.kv_tokens, 4_096);
        for total in (5 * GIB..6 * GIB).step_by(10_000_019) {
            let plan = super::plan(&footprint(), &device(total), &wish());
            assert!(plan.fits(), "{total}: {plan:?}");
            assert_eq!(plan.kv_tokens % 16, 0);
        }
    }

    #[test]
    fn what_does_not_fit_says_so_with_its_numbers() {
        let plan = plan(&footprint(), &device(4 * GIB), &wish());
        assert!(!plan.fits());
        assert_eq!(plan.kv_tokens, MIN_AUTO_KV_TOKENS);
        assert!(plan.needed_bytes() > plan.budget_bytes);
    }

    #[test]
    fn an_explicit_pool_is_kept_even_if_it_does_not_fit() {
        let plan = plan(&footprint(), &device(8 * GIB), &Wish { kv_tokens: 1_000_001, ..wish() });
        assert_eq!(plan.kv_tokens, 1_000_016);
        assert!(!plan.fits());
    }

    #[test]
    fn utilization_bounds_all_models_together_and_pending_loads_count() {
        let mut device = device(10 * GIB);
        assert_eq!(budget_bytes(&device, 0.5), 5 * GIB);
        device.committed_bytes = 4 * GIB;
        assert_eq!(budget_bytes(&device, 0.5), GIB);
        device.available_bytes = 6 * GIB;
        device.pending_bytes = 4 * GIB;
        assert_eq!(budget_bytes(&device, 1.0), 2 * GIB);
        device.committed_bytes = 40 * GIB;
        assert_eq!(budget_bytes(&device, 1.0), 0);
    }

    #[test]
    fn a_shared_base_costs_its_adapter_only() {
        let plan = plan_shared(7, &device(GIB), &wish(), "concept", 512);
        assert_eq!(plan.needed_bytes(), 7 + wish().reserve_bytes);
        assert!(plan.fits());
        assert_eq!(plan.shares_base_with.as_deref(), Some("concept"));
        let full = Device { available_bytes: GIB / 4 + 6, ..device(GIB) };
        assert!(!plan_shared(7, &full, &wish(), "concept", 512).fits());
        assert!(plan_shared(6, &full, &wish(), "concept", 512).fits());
        let none = Device { available_bytes: 0, ..full };
        assert!(plan_shared(0, &none, &wish(), "concept", 512).fits(), "no adapter, no bytes");
    }

    #[test]
    fn an_automatic_pool_leaves_room_for_the_other_adapters() {
        let tight = device(5 * GIB + GIB / 2);
        let alone = plan(&footprint(), &tight, &wish());
        let shared = plan(&Footprint { other_adapter_bytes: GIB / 4, ..footprint() }, &tight, &wish());
        assert_eq!(alone.kv_bytes - shared.kv_bytes, GIB / 4);
        assert_eq!(shared.adapter_bytes, 0);
    }
}
