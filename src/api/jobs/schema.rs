//! `GET /v1/jobs/{id}/schema`: what an item's result promises, for clients that check it themselves.

use axum::Json;
use axum::extract::State as Shared;
use serde_json::{Value, json};

use crate::api::body::{JobPath, Params};
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::domain::code::Code;
use crate::domain::id::Seq;
use crate::domain::item::ItemDraft;
use crate::extract::schema;
use crate::wire::result::SchemaQuery;

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Read the JSON Schema that the `output` of one result satisfies.
///
/// Of a schema task it holds the item's own tables, keys and columns as constants; of a custom job it is the
/// job's schema. Draft 2020-12 unless the schema says another.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/schema", tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job."), SchemaQuery),
    responses((status = 200, description = "The schema.", body = Value)),
)]
pub async fn result_schema(
    Shared(state): Shared<State>,
    JobPath(id): JobPath,
    Params(query): Params<SchemaQuery>,
) -> Result<Json<Value>, ApiError> {
    let Some((spec, catalog)) = state.store.job_spec(id).await? else {
        return Err(ApiError::job_not_found(id));
    };
    let missing = || ApiError::new(Code::NotFound, format!("job {id} has no result {}", query.seq));
    let seq = Seq::try_from(query.seq).ok().filter(|seq| *seq >= 0).ok_or_else(missing)?;
    let page = state.store.results(id, Some(seq - 1), 1, None).await?;
    let row = page.rows.into_iter().find(|row| row.seq == seq).ok_or_else(missing)?;
    let draft = ItemDraft { stage: row.stage, input: row.input };
    let mut schema = match schema::result_schema(&spec, catalog.as_ref(), &draft)? {
        Value::Bool(true) => json!({}),
        schema => schema,
    };
    if let Some(schema) = schema.as_object_mut() {
        schema.entry("$schema").or_insert_with(|| DRAFT.into());
    }
    Ok(Json(schema))
}
