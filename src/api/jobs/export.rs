//! `GET /v1/jobs/{id}/export`: what a schema job found, as a file.

use axum::extract::State as Shared;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::api::body::{JobPath, Params};
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::api::validate::probability;
use crate::domain::code::Code;
use crate::export::Format;
use crate::extract::pipeline;
use crate::wire::result::{ExportFormat, ExportQuery};
use crate::worker;

/// Export a schema job's data model. Parts whose items have not ended are listed as uncovered.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/export", tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job."), ExportQuery),
    responses((status = 200, description = "The file.", content(
        (serde_json::Value = "application/json"), (String = "text/vnd.mermaid"), (String = "text/turtle"),
        (String = "text/csv"), (String = "application/yaml"), (String = "text/vnd.graphviz"),
    ))),
)]
pub async fn export_job(
    Shared(state): Shared<State>,
    JobPath(id): JobPath,
    Params(query): Params<ExportQuery>,
) -> Result<Response, ApiError> {
    let review_below = query.review_below.map(|below| probability("review_below", below)).transpose()?;
    let Some((mut spec, catalog)) = state.store.job_spec(id).await? else {
        return Err(ApiError::job_not_found(id));
    };
    let Some(catalog) = catalog else {
        let detail = format!("job {id} of task {} has no data model: read its results", spec.task);
        return Err(ApiError::new(Code::InvalidState, detail));
    };
    spec.review_below = review_below.or(spec.review_below);
    let finished = worker::finished_items(&state.store, id).await?;
    let model = pipeline::assemble(&spec, &catalog, &finished)?;
    let format = format_of(query.format);
    Ok(([(header::CONTENT_TYPE, format.content_type())], format.write(&model)).into_response())
}

fn format_of(format: ExportFormat) -> Format {
    match format {
        ExportFormat::Json => Format::Json,
        ExportFormat::Mermaid => Format::Mermaid,
        ExportFormat::Turtle => Format::Turtle,
        ExportFormat::R2rml => Format::R2rml,
        ExportFormat::Shacl => Format::Shacl,
        ExportFormat::Csv => Format::Csv,
        ExportFormat::Dbt => Format::Dbt,
        ExportFormat::Dot => Format::Dot,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_wire_and_of_the_writers_agree() {
        assert_eq!(ExportFormat::ALL.map(ExportFormat::as_str), Format::ALL.map(Format::as_str));
        for format in ExportFormat::ALL {
            assert_eq!(format.as_str(), format_of(format).as_str());
        }
    }
}
