//! `POST /v1/jobs/estimate`: what a job would take, with nothing kept.

use axum::Json;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::HeaderMap;

use super::since;
use super::source::Inputs;
use super::submit::{check, inputs_of, singles};
use crate::api::body;
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::domain::model::{ModelState, ModelStatus};
use crate::domain::task::Stage;
use crate::wire::estimate::{Estimate, StageEstimate};
use crate::wire::submit::JobRequest;
use crate::worker::estimate::{self as count, Asked};

/// Estimate a job.
///
/// Takes what a submission takes, checks it as one would be, renders its prompts and counts their tokens. Time is
/// from what the model's engine has done so far, what waits for it, and what is left of its load.
#[utoipa::path(
    post, path = "/v1/jobs/estimate", tag = "jobs",
    request_body(content((JobRequest = "application/json"))),
    responses((status = 200, description = "The estimate.", body = Estimate)),
)]
pub async fn estimate_job(
    Shared(state): Shared<State>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Estimate>, ApiError> {
    let limits = &state.settings.limits;
    let request: JobRequest = body::read_json(body, &headers, limits, state.request_timeout()).await?;
    let options = check(&state, &request)?;
    let (inputs, left_out) = inputs_of(&state, &options, request)?;
    let (catalog, stages) = match inputs {
        Inputs::Catalog(catalog) => {
            let stages = since::expected_items(&state, &options, &catalog).await?;
            (Some(catalog), stages)
        }
        Inputs::Singles(inputs) => {
            let drafts = singles(&options, inputs)?;
            (None, drafts.first().map(|first| first.stage).map(|stage| (stage, drafts)).into_iter().collect())
        }
    };
    options.check_count(stages.first().map_or(0, |(_, drafts)| drafts.len() as u64), limits)?;

    let mut asked = Asked { spec: options.spec.clone(), catalog, drafts: Vec::new() };
    let mut parts = Vec::with_capacity(stages.len());
    for (at, (stage, drafts)) in stages.into_iter().enumerate() {
        asked.drafts = drafts;
        let (part, given_back) = of_stage(&state, stage, at == 0, asked).await?;
        parts.push(part);
        asked = given_back;
    }
    let sum = |of: fn(&StageEstimate) -> Option<u64>| parts.iter().map(of).sum::<Option<u64>>();
    Ok(Json(Estimate {
        items: parts.iter().map(|part| part.items).sum(),
        prompt_tokens: sum(|part| part.prompt_tokens),
        output_tokens: sum(|part| part.output_tokens),
        seconds: parts.iter().map(|part| part.seconds).sum(),
        stages: parts,
        left_out: left_out.total,
    }))
}

async fn of_stage(
    state: &State,
    stage: Stage,
    exact: bool,
    asked: Asked,
) -> Result<(StageEstimate, Asked), ApiError> {
    let model = asked.spec.model_of(stage).to_string();
    let items = asked.drafts.len() as u64;
    let status = state.models.get_status(&model).ok();
    let (tokens, asked) = count::prompt_tokens(&state.models, &model, asked).await?;
    let of_stage = state.store.experience(&model, Some(stage)).await?;
    let of_model = state.store.experience(&model, None).await?;
    let ahead = state.store.waiting_by_model().await?.get(&model).map_or(0, |items| items.unsigned_abs());
    let output_tokens = of_stage.output_per_item().map(|tokens| (tokens * items as f64).round() as u64);
    let seconds = Known {
        items: items as f64,
        rows: tokens.zip(output_tokens).map(|(prompt, output)| (prompt.all - prompt.shared + output) as f64),
        ahead: ahead as f64,
        rows_ahead_per_item: of_model.rows_per_item(),
        rows_per_s: count::rows_per_s(&state.models, &model),
        load_s: load_left(status.as_ref()),
    }
    .seconds();
    let mut unknown = Vec::new();
    if tokens.is_none() {
        unknown.push(format!("model '{model}' is not ready, so that its tokenizer is not at hand"));
    }
    if output_tokens.is_none() {
        unknown.push(format!("model '{model}' has not answered an item of stage {stage} yet"));
    }
    let part = StageEstimate {
        stage,
        model_state: status.as_ref().map_or(ModelState::NotLoaded, ModelStatus::state),
        model,
        items,
        exact,
        prompt_tokens: tokens.map(|tokens| tokens.all),
        prefix_hit_tokens: tokens.map(|tokens| tokens.shared),
        too_long: tokens.map_or(0, |tokens| tokens.too_long),
        output_tokens,
        items_ahead: Some(ahead),
        seconds,
        unknown,
    };
    Ok((part, asked))
}

/// What the time of a stage rests on.
struct Known {
    items: f64,
    /// Tokens that its items take through the forward pass.
    rows: Option<f64>,
    /// Items of other jobs that wait.
    ahead: f64,
    rows_ahead_per_item: Option<f64>,
    rows_per_s: Option<f64>,
    load_s: Option<f64>,
}

impl Known {
    /// Jobs of a class share evenly: until this one has ended, as many items of others as its own are served
    /// beside it, or all of them if they are fewer.
    fn seconds(&self) -> Option<f64> {
        let beside = self.ahead.min(self.items);
        let rows_beside = if beside > 0.0 { beside * self.rows_ahead_per_item? } else { 0.0 };
        Some(self.load_s? + (self.rows? + rows_beside) / self.rows_per_s?)
    }
}

/// Seconds until a model serves; `None` if nobody can tell.
fn load_left(status: Option<&ModelStatus>) -> Option<f64> {
    match status? {
        ModelStatus::Ready { .. } => Some(0.0),
        ModelStatus::Loading { progress, .. } => progress.eta_s,
        ModelStatus::NotLoaded | ModelStatus::Error { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_work_over_rate_with_a_fair_share_of_what_waits() {
        let known = Known {
            items: 10.0,
            rows: Some(2_000.0),
            ahead: 0.0,
            rows_ahead_per_item: None,
            rows_per_s: Some(1_000.0),
            load_s: Some(0.5),
        };
        assert_eq!(known.seconds(), Some(2.5));
        let behind = Known { ahead: 1e6, rows_ahead_per_item: Some(100.0), ..known };
        assert_eq!(behind.seconds(), Some(3.5), "ten of a million run beside it");
        assert_eq!(Known { ahead: 1.0, rows_ahead_per_item: None, ..behind }.seconds(), None);
    }
}
