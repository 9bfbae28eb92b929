//! `/v1/files`: what clients upload for batches, and what batches are read back through.

mod content;
mod upload;

pub use content::{__path_file_content, file_content};
pub use upload::{__path_upload_file, upload_file};

use axum::Json;
use axum::extract::State as Shared;

use super::body::{Named, Params, page_of};
use super::caller::Caller;
use super::problem::ApiError;
use super::state::State;
use crate::domain::batch::FileRole;
use crate::domain::code::Code;
use crate::domain::id::FileId;
use crate::store::file::{FileFilter, FileRow};
use crate::wire::openai::file::{File, FileDeleted, FileList, FilesQuery, MAX_FILES_PAGE};

/// What a client's file is for. There is no other purpose yet.
const PURPOSE: &str = "batch";
const PURPOSE_OF_OUTPUT: &str = "batch_output";

/// List files.
#[utoipa::path(
    get, path = "/v1/files", tag = "openai", params(FilesQuery),
    responses((status = 200, description = "A page of files.", body = FileList)),
)]
pub async fn list_files(
    Shared(state): Shared<State>,
    caller: Caller,
    Params(query): Params<FilesQuery>,
) -> Result<Json<FileList>, ApiError> {
    let limit = page_of(query.limit, MAX_FILES_PAGE, MAX_FILES_PAGE)?;
    let refuse = |name: &str, value: &str, wanted: &str| {
        let detail = format!("{name} '{value}' is not {wanted}");
        ApiError::new(Code::InvalidRequest, detail).pointer(format!("/{name}"))
    };
    let uploaded = match query.purpose.as_deref() {
        None => None,
        Some(PURPOSE) => Some(true),
        Some(PURPOSE_OF_OUTPUT) => Some(false),
        Some(other) => return Err(refuse("purpose", other, "batch or batch_output")),
    };
    let oldest_first = match query.order.as_deref() {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(other) => return Err(refuse("order", other, "asc or desc")),
    };
    let after = query.after.as_deref().map(|id| id.parse().map_err(|_| no_file(id))).transpose()?;
    // one more than asked for says whether there is a next page
    let tenant = caller.tenant().into();
    let filter = FileFilter { tenant, uploaded, after, oldest_first, limit: limit + 1 };
    let mut rows = state.store.files(&filter).await?;
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let data: Vec<File> = rows.into_iter().map(view).collect();
    let id_of = |file: Option<&File>| file.map(|file| file.id.clone());
    let (first_id, last_id) = (id_of(data.first()), id_of(data.last()));
    Ok(Json(FileList { object: "list".into(), data, first_id, last_id, has_more }))
}

/// Look at a file.
#[utoipa::path(
    get, path = "/v1/files/{id}", tag = "openai", params(("id" = String, Path, description = "The file.")),
    responses((status = 200, description = "The file.", body = File)),
)]
pub async fn get_file(
    Shared(state): Shared<State>,
    caller: Caller,
    Named(id): Named<FileId>,
) -> Result<Json<File>, ApiError> {
    Ok(Json(view(read(&state, &caller, id).await?)))
}

/// Delete a file. A batch that was made of it goes on; the results of a batch stay with its job.
#[utoipa::path(
    delete, path = "/v1/files/{id}", tag = "openai", params(("id" = String, Path, description = "The file.")),
    responses((status = 200, description = "It is gone.", body = FileDeleted)),
)]
pub async fn delete_file(
    Shared(state): Shared<State>,
    caller: Caller,
    Named(id): Named<FileId>,
) -> Result<Json<FileDeleted>, ApiError> {
    if !state.store.delete_file(caller.tenant(), id).await? {
        return Err(no_file(&id.to_string()));
    }
    Ok(Json(FileDeleted { id: id.to_string(), object: "file".into(), deleted: true }))
}

async fn read(state: &State, caller: &Caller, id: FileId) -> Result<FileRow, ApiError> {
    state.store.file(caller.tenant(), id).await?.ok_or_else(|| no_file(&id.to_string()))
}

fn no_file(id: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("no file '{id}'")).pointer("/id")
}

fn view(row: FileRow) -> File {
    let is_input = row.role == FileRole::Input;
    File {
        id: row.id.to_string(),
        object: "file".into(),
        bytes: row.bytes,
        created_at: row.created_at.timestamp(),
        expires_at: row.expires_at.map(|at| at.timestamp()),
        filename: row.filename,
        purpose: if is_input { PURPOSE } else { PURPOSE_OF_OUTPUT }.into(),
        status: if is_input || row.bytes > 0 { "processed" } else { "uploaded" }.into(),
        status_details: None,
    }
}
