//! `POST /v1/jobs/estimate`: what a job would take, with nothing kept.

use axum::Json;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::HeaderMap;

use super::since;
use super::source::Inputs;
use super::submit::{check, inputs_of, singles};
use super::view;
use crate::api::body;
use crate::api::caller::Caller;
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::domain::model::{ModelState, ModelStatus};
use crate::wire::estimate::{Estimate, StageEstimate};
use crate::wire::submit::JobRequest;
use crate::worker::estimate::{self as count, Asked, PromptTokens};
use crate::worker::forecast::outlook::{Asking, Prospect};

/// Estimate a job.
///
/// Takes what a submission takes, checks it as one would be, renders its prompts and counts their tokens. Its end is
/// the forecast that the job would have right after its submission.
#[utoipa::path(
    post, path = "/v1/jobs/estimate", tag = "jobs",
    request_body(content((JobRequest = "application/json"))),
    responses((status = 200, description = "The estimate.", body = Estimate)),
)]
pub async fn estimate_job(
    Shared(state): Shared<State>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Estimate>, ApiError> {
    let limits = &state.settings.limits;
    let request: JobRequest = body::read_json(body, &headers, limits, state.request_timeout()).await?;
    let options = check(&state, &request)?;
    let (inputs, left_out) = inputs_of(&state, &options, request)?;
    let (catalog, stages) = match inputs {
        Inputs::Catalog(catalog) => {
            let stages = since::expected_items(&state, &caller, &options, &catalog).await?;
            (Some(catalog), stages)
        }
        Inputs::Singles(inputs) => {
            let drafts = singles(&options, inputs)?;
            (None, drafts.first().map(|first| first.stage).map(|stage| (stage, drafts)).into_iter().collect())
        }
    };
    options.check_count(stages.first().map_or(0, |(_, drafts)| drafts.len() as u64), limits)?;

    let mut asked = Asked { spec: options.spec.clone(), catalog, drafts: Vec::new() };
    let mut counted: Vec<Option<PromptTokens>> = Vec::with_capacity(stages.len());
    let mut asking = Vec::with_capacity(stages.len());
    for (stage, drafts) in stages {
        asked.drafts = drafts;
        let model = options.spec.model_of(stage).to_string();
        let items = asked.drafts.len() as f64;
        let (tokens, given_back) = count::prompt_tokens(&state.models, &model, asked).await?;
        asked = given_back;
        asking.push(Asking { stage, model, items, prompts: tokens.and_then(|tokens| tokens.means(items)) });
        counted.push(tokens);
    }
    let digest = state.store.digest(&options.spec).await?;
    let prospect = state.outlook.prospect(&digest, &asking, options.class, options.weight).await?;
    let waiting = state.store.waiting_by_model().await?;
    let parts: Vec<StageEstimate> = (0..asking.len())
        .map(|at| {
            let model = &asking[at].model;
            let ahead = waiting.get(model).map_or(0, |items| items.unsigned_abs());
            StageEstimate {
                items_ahead: Some(ahead),
                ..of_stage(&state, at, &asking[at], counted[at], &prospect)
            }
        })
        .collect();
    let sum = |of: fn(&StageEstimate) -> Option<u64>| parts.iter().map(of).sum::<Option<u64>>();
    let eta = view::eta(prospect.forecast);
    Ok(Json(Estimate {
        items: parts.iter().map(|part| part.items).sum(),
        prompt_tokens: sum(|part| part.prompt_tokens),
        output_tokens: sum(|part| part.output_tokens),
        seconds: eta.seconds,
        eta,
        stages: parts,
        left_out: left_out.total,
    }))
}

fn of_stage(
    state: &State,
    at: usize,
    asking: &Asking,
    counted: Option<PromptTokens>,
    prospect: &Prospect,
) -> StageEstimate {
    let Asking { stage, model, items, .. } = asking;
    let status = state.models.get_status(model).ok();
    let output_tokens = prospect.tokens[at].map(|tokens| (tokens.answered * items).round() as u64);
    let mut unknown = Vec::new();
    if counted.is_none() {
        unknown.push(format!("model '{model}' is not ready, so that its tokenizer is not at hand"));
    }
    if output_tokens.is_none() {
        unknown.push(format!("model '{model}' has not answered an item of stage {stage} yet"));
    }
    let begins = if at == 0 { Some(0.0) } else { prospect.ends.get(at - 1).copied().flatten() };
    let ends = prospect.ends.get(at).copied().flatten();
    StageEstimate {
        stage: *stage,
        model_state: status.as_ref().map_or(ModelState::NotLoaded, ModelStatus::state),
        model: model.clone(),
        items: *items as u64,
        exact: at == 0,
        prompt_tokens: counted.map(|tokens| tokens.all),
        prefix_hit_tokens: counted.map(|tokens| tokens.shared),
        too_long: counted.map_or(0, |tokens| tokens.too_long),
        output_tokens,
        items_ahead: None,
        seconds: ends.zip(begins).map(|(ends, begins)| ends - begins),
        unknown,
    }
}
