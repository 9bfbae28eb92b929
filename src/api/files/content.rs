//! `GET /v1/files/{id}/content`: an upload as it came, or what a batch has answered so far.

use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};

use crate::api::body::Named;
use crate::api::caller::Caller;
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::domain::batch::BatchState;
use crate::domain::id::{BatchId, FileId};
use crate::store::StoreError;
use crate::store::file::FileRow;
use crate::worker::batch::contents::Contents;

/// `true` while more lines will come: a client that has read them all has not read the whole batch.
const INCOMPLETE: HeaderName = HeaderName::from_static("x-incomplete");
/// Lines of results sent at once, in bytes.
const PIECE_BYTES: usize = 32 << 10;

/// Read a file.
///
/// The output and error file of a batch can be read while it runs, from their first line on; then the header
/// `X-Incomplete: true` says that more will come. Lines are in no promised order.
#[utoipa::path(
    get, path = "/v1/files/{id}/content", tag = "openai", params(("id" = String, Path, description = "The file.")),
    responses((
        status = 200, description = "Its bytes.", content_type = "application/jsonl",
        body = crate::wire::openai::batch::ResponseLine,
        headers(("x-incomplete" = Option<bool>, description = "`true`: the batch goes on, and so does the file."))
    )),
)]
pub async fn file_content(
    Shared(state): Shared<State>,
    caller: Caller,
    Named(id): Named<FileId>,
) -> Result<Response, ApiError> {
    let file = super::read(&state, &caller, id).await?;
    let permit = state.open_stream()?;
    let disposition = disposition(&file);
    let mut response = match file.batch {
        None => {
            let parts = upload(state, id);
            Body::from_stream(with(parts, permit)).into_response()
        }
        Some(batch) => {
            // looked at first: what a batch that had ended lacks will never come
            let is_open = is_open(&state, &caller, batch).await?;
            let contents = Contents::new(state.store.clone(), batch, file.role);
            let mut response = Body::from_stream(with(results(contents), permit)).into_response();
            if is_open {
                response.headers_mut().insert(INCOMPLETE, HeaderValue::from_static("true"));
            }
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    headers.insert(header::CONTENT_DISPOSITION, disposition);
    Ok(response)
}

async fn is_open(state: &State, caller: &Caller, batch: BatchId) -> Result<bool, ApiError> {
    let row = state.store.batch(caller.tenant(), batch).await?;
    Ok(row.is_some_and(|row| matches!(row.state, BatchState::Validating | BatchState::InProgress)))
}

/// One part in memory at a time, and no connection held while the client reads it.
fn upload(state: State, id: FileId) -> impl Stream<Item = Result<Bytes, StoreError>> {
    stream::unfold((state, 0), move |(state, part)| async move {
        let data = state.store.file_part(id, part).await.transpose()?;
        Some((data.map(Bytes::from), (state, part + 1)))
    })
}

fn results(contents: Contents) -> impl Stream<Item = Result<Bytes, StoreError>> {
    stream::unfold(contents, |mut contents| async move {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES {
            match contents.next().await {
                Ok(Some(line)) => piece.extend_from_slice(&line),
                Ok(None) => break,
                // breaks the response off, which a client notices: the body lacks its last chunk
                Err(error) => return Some((Err(error), contents)),
            }
        }
        (!piece.is_empty()).then(|| (Ok(piece.into()), contents))
    })
}

/// The stream, with something that is held as long as it.
fn with<S: Stream, P>(stream: S, held: P) -> impl Stream<Item = S::Item> {
    use futures::StreamExt;
    stream.map(move |item| {
        let _held = &held;
        item
    })
}

/// The name as every client reads it: what is no plain ASCII becomes `_`.
fn disposition(file: &FileRow) -> HeaderValue {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_. ()".contains(c) { c } else { '_' };
    let name: String = file.filename.chars().map(plain).collect();
    HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")).expect("it is plain ASCII")
}
