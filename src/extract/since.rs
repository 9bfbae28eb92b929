//! A job made of an earlier one: per stage, the answers that are carried over and the items of what is left to ask.

use super::ExtractError;
use super::assemble::Concepts;
use super::carry::{Answered, still_named};
use super::pipeline::{Finished, items_of};
use crate::domain::catalog::Catalog;
use crate::domain::item::{Carried, ItemDraft, Outcome, StageItems};
use crate::domain::job::JobSpec;
use crate::domain::task::Stage;

/// The stages that a submission makes: up to the first with something to ask, or all of them, when the job has
/// ended as it came in. `carried` are answers of all stages about `catalog`, see [`super::carry::carried`].
pub fn first_stages(
    spec: &JobSpec,
    catalog: &Catalog,
    carried: &[Carried],
) -> Result<Vec<StageItems>, ExtractError> {
    if catalog.tables.is_empty() {
        return Err(ExtractError::NoTables);
    }
    let mut stages: Vec<StageItems> = Vec::new();
    let mut finished: Vec<Finished> = Vec::new();
    for &stage in spec.task.stages() {
        let of_stage = carried.iter().filter(|one| one.draft.stage == stage).cloned().collect();
        let items = stage_items(stage, catalog, &concepts(spec, catalog, stage, &finished)?, of_stage)?;
        finished.extend(
            items.carried.iter().cloned().map(|Carried { draft, output, .. }| Finished {
                draft,
                outcome: Outcome::Succeeded { output },
            }),
        );
        let is_open = !items.drafts.is_empty();
        stages.push(items);
        if is_open {
            break;
        }
    }
    Ok(stages)
}

/// The stage after `stage`, all of whose items are in `finished`. `carried` are answers of the stage to come.
pub fn next_stage(
    spec: &JobSpec,
    catalog: &Catalog,
    stage: Stage,
    finished: &[Finished],
    carried: Vec<Carried>,
) -> Result<Option<StageItems>, ExtractError> {
    let Some(next) = spec.task.stage_after(stage) else { return Ok(None) };
    stage_items(next, catalog, &concepts(spec, catalog, next, finished)?, carried).map(Some)
}

/// Items of all stages that are to be run, were every table that is asked about a concept of its own. Stages without
/// items are left out.
pub fn expected_items(
    spec: &JobSpec,
    catalog: &Catalog,
    carried: &[Carried],
) -> Result<Vec<(Stage, Vec<ItemDraft>)>, ExtractError> {
    let finished: Vec<Finished> = carried
        .iter()
        .cloned()
        .map(|Carried { draft, output, .. }| Finished { draft, outcome: Outcome::Succeeded { output } })
        .collect();
    let concepts = match spec.task.stages().contains(&Stage::Concept) {
        true => Concepts::of_results(catalog, &finished)?.or_table_names(catalog),
        false => Concepts::of_table_names(catalog),
    };
    let mut stages = Vec::new();
    for &stage in spec.task.stages() {
        let of_stage = carried.iter().filter(|one| one.draft.stage == stage).cloned().collect();
        let items = stage_items(stage, catalog, &concepts, of_stage)?;
        if !items.drafts.is_empty() {
            stages.push((stage, items.drafts));
        }
    }
    Ok(stages)
}

fn concepts(
    spec: &JobSpec,
    catalog: &Catalog,
    stage: Stage,
    finished: &[Finished],
) -> Result<Concepts, ExtractError> {
    if stage == Stage::Concept || !spec.task.stages().contains(&Stage::Concept) {
        return Ok(Concepts::of_table_names(catalog));
    }
    let concepts = Concepts::of_results(catalog, finished)?;
    if concepts.is_empty() {
        let items = finished.iter().filter(|one| one.draft.stage == Stage::Concept).count();
        return Err(ExtractError::NoConcepts { items });
    }
    Ok(concepts)
}

fn stage_items(
    stage: Stage,
    catalog: &Catalog,
    concepts: &Concepts,
    carried: Vec<Carried>,
) -> Result<StageItems, ExtractError> {
    let carried = still_named(catalog, concepts, carried)?;
    let answered = Answered::of(catalog, &carried)?;
    Ok(StageItems { stage, drafts: items_of(stage, catalog, concepts, &answered), carried })
}
