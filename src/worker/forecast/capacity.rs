//! What an engine can do with items of a kind, and how much of it a claim takes.

use super::world::{Claims, Engine, Item, Part, World};

/// Turns of the simulation per job beyond which bundles are made larger, so that its cost has a bound.
const MAX_CLAIMS: f64 = 1_000.0;

/// The mean item of an engine, over all open work whose size is known.
pub fn usual_item(world: &World, engine: usize) -> Option<Item> {
    let (mut sum, mut n) = (Item::default(), 0.0);
    for part in world.jobs.iter().flat_map(|job| job.stages.iter().flatten()) {
        let Some(item) = part.item.filter(|_| world.lanes[part.lane].engine == engine) else { continue };
        let open = part.open();
        n += open;
        sum.rows += open * item.rows;
        sum.steps += open * item.steps;
        sum.held += open * item.held;
        sum.charge += open * item.charge;
    }
    let mean = |of: f64| of / n;
    (n > 0.0).then(|| Item {
        rows: mean(sum.rows),
        steps: mean(sum.steps),
        held: mean(sum.held),
        charge: mean(sum.charge),
    })
}

/// Items of a bundle: some seconds of work at the rate at which an engine full of usual items serves them.
pub fn budget(world: &World, lane: usize, usual: Option<Item>) -> f64 {
    let Claims { min_items, max_items, target_s, .. } = world.claims;
    let engine = &world.engines[world.lanes[lane].engine];
    let parts = world.jobs.iter().flat_map(|job| job.stages.iter().flatten());
    let open: f64 = parts.filter(|part| part.lane == lane).map(Part::open).sum();
    let wanted = usual.and_then(|item| full_rate(engine, &item)).map_or(min_items, |rate| rate * target_s);
    wanted.clamp(min_items, max_items.max(min_items)).floor().max(open / MAX_CLAIMS)
}

/// Items per second of an engine that has nothing but such items, and plenty of them.
pub fn full_rate(engine: &Engine, item: &Item) -> Option<f64> {
    let cost = engine.cost?;
    let sequences = concurrency(engine, item);
    let rows = sequences * item.rows / item.steps;
    let slowed = (rows / engine.max_step_rows).max(1.0);
    let step_s = (cost.step_s + cost.row_s * rows / slowed) * slowed;
    Some(sequences / (item.steps * step_s).max(1e-9))
}

/// Sequences of such items that run at once.
pub fn concurrency(engine: &Engine, item: &Item) -> f64 {
    (engine.kv_tokens / item.held.max(1.0)).min(engine.max_sequences).max(1.0)
}
