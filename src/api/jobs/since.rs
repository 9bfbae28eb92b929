//! A submission that names an earlier job: what is carried over, and what is left to ask.

use sha2::{Digest, Sha256};

use crate::api::caller::Caller;
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::api::validate::Options;
use crate::domain::basis::{Asked, Basis, StageBasis};
use crate::domain::catalog::Catalog;
use crate::domain::code::Code;
use crate::domain::id::JobId;
use crate::domain::item::{Carried, ItemDraft, Outcome, StageItems};
use crate::domain::job::JobSpec;
use crate::domain::task::Stage;
use crate::extract::carry::{self, Tables};
use crate::extract::pipeline::{self, Finished};
use crate::extract::{ExtractError, prompt, since};
use crate::store::rerun::{EarlierItem, EarlierJob, Rerun};
use crate::store::submit::{NewJob, Submission};

/// Who will answer a schema job, and how it is asked.
pub(super) fn basis(state: &State, spec: &JobSpec) -> Result<Basis, ExtractError> {
    let of_stage = |stage: &Stage| {
        let name = spec.model_of(*stage);
        let model = state.settings.models.iter().find(|model| model.name == name);
        let head = prompt::head(spec, *stage)?;
        let digest = Sha256::digest(head).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(StageBasis {
            stage: *stage,
            model: name.into(),
            path: model.map(|model| model.path.clone()).unwrap_or_default(),
            adapter: model.and_then(|model| model.adapter.clone()),
            prompt: digest,
        })
    };
    spec.task.stages().iter().map(of_stage).collect::<Result<_, _>>().map(Basis)
}

/// Opens the submission of a schema job and puts its items into it.
pub(super) async fn open(
    state: &State,
    caller: &Caller,
    options: &Options,
    job: NewJob,
    catalog: &Catalog,
) -> Result<Submission, ApiError> {
    let limits = &state.settings.limits;
    let Some(earlier) = options.since else {
        let drafts = pipeline::first_items(&options.spec, Some(catalog))?;
        options.check_count(drafts.len() as u64, limits)?;
        let mut submission = state.store.submit_begin(job).await?;
        submission.charge_to(caller.charge());
        for draft in drafts {
            submission.push(draft).await?;
        }
        return Ok(submission);
    };
    let basis = job.basis.clone();
    let mut submission = state.store.submit_begin(job).await?;
    submission.charge_to(caller.charge());
    if submission.is_repeated() {
        // answered as before, even if the earlier job is gone meanwhile
        return Ok(submission);
    }
    let earlier = submission.hold(earlier).await?.ok_or_else(|| not_found(earlier))?;
    let earlier_catalog = comparable(caller, &earlier, Asked { spec: &options.spec, basis: basis.as_ref() })?;
    let items = submission.items_of(earlier.id).await?;
    let plan = Plan::of(&options.spec, &earlier, earlier_catalog, catalog, items)?;
    let stages = since::first_stages(&options.spec, catalog, &plan.carried)?;
    let drafts: usize = stages.iter().map(|stage: &StageItems| stage.drafts.len()).sum();
    options.check_count(drafts as u64, limits)?;
    submission.write_rerun(&plan.rerun, &plan.carried, &stages).await?;
    Ok(submission)
}

/// Items that a job would have to run, by stage, of all stages that have some.
pub(super) async fn expected_items(
    state: &State,
    caller: &Caller,
    options: &Options,
    catalog: &Catalog,
) -> Result<Vec<(Stage, Vec<ItemDraft>)>, ApiError> {
    let Some(earlier) = options.since else {
        return Ok(pipeline::expected_items(&options.spec, catalog)?);
    };
    let found = state.store.earlier_job(earlier).await?;
    let (earlier, items) = found.ok_or_else(|| not_found(earlier))?;
    let basis = basis(state, &options.spec)?;
    let earlier_catalog = comparable(caller, &earlier, Asked { spec: &options.spec, basis: Some(&basis) })?;
    let plan = Plan::of(&options.spec, &earlier, earlier_catalog, catalog, items)?;
    Ok(since::expected_items(&options.spec, catalog, &plan.carried)?)
}

/// What an earlier job has to give.
struct Plan {
    rerun: Rerun,
    carried: Vec<Carried>,
}

impl Plan {
    fn of(
        spec: &JobSpec,
        earlier: &EarlierJob,
        earlier_catalog: &Catalog,
        catalog: &Catalog,
        items: Vec<EarlierItem>,
    ) -> Result<Self, ExtractError> {
        let finished: Vec<Finished> = items
            .iter()
            .map(|item| Finished { draft: item.draft.clone(), outcome: item.outcome.clone() })
            .collect();
        let model = pipeline::assemble(spec, earlier_catalog, &finished)?;
        let tables = Tables::new(earlier_catalog, catalog);
        let answers = items.into_iter().filter_map(|item| match item.outcome {
            Outcome::Succeeded { output } => Some(Carried { seq: item.seq, draft: item.draft, output }),
            _ => None,
        });
        let carried = carry::carried(&tables, answers.collect())?;
        Ok(Self { rerun: Rerun { since: earlier.id, tables: tables.changes(), model }, carried })
    }
}

/// The catalog of an earlier job whose answers are answers of the new one's questions.
fn comparable<'a>(caller: &Caller, earlier: &'a EarlierJob, now: Asked) -> Result<&'a Catalog, ApiError> {
    let id = earlier.id;
    if earlier.tenant != caller.tenant() {
        return Err(not_found(id));
    }
    let incompatible =
        |field: &str, detail: String| ApiError::new(Code::IncompatibleJob, detail).pointer(field);
    let Some(catalog) = &earlier.catalog else {
        let task = earlier.spec.task;
        return Err(incompatible("/since", format!("job {id} of task {task} reads no database schema")));
    };
    let before = Asked { spec: &earlier.spec, basis: earlier.basis.as_ref() };
    if let Some(mismatch) = now.mismatch(&before) {
        let detail = format!(
            "job {id} was asked differently: {}; submit without since to ask everything anew",
            mismatch.detail
        );
        return Err(incompatible(&mismatch.field, detail));
    }
    if !earlier.state.is_final() {
        let detail =
            format!("job {id} is {}; another can be made from it once it has ended", earlier.state.as_str());
        return Err(ApiError::new(Code::InvalidState, detail).pointer("/since"));
    }
    Ok(catalog)
}

fn not_found(id: JobId) -> ApiError {
    ApiError::job_not_found(id).pointer("/since")
}
