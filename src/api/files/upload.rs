//! `POST /v1/files`: a form, streamed into the database part by part.

use std::future::Future;
use std::time::Duration;

use axum::Json;
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest, Request, State as Shared};

use super::{PURPOSE, view};
use crate::api::caller::Caller;
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::domain::code::Code;
use crate::store::file::Upload;
use crate::wire::openai::file::{EXPIRES_AFTER_S, File, FileForm};

/// Bytes of a field that is no file.
const MAX_FIELD_BYTES: usize = 1_024;
/// Characters of a name that are kept.
const MAX_NAME: usize = 255;

/// Upload a file of requests for a batch.
///
/// A form with `file` and `purpose`, in any order; the file may be larger than memory. Nothing is kept unless the
/// answer is 2xx. The lines are looked at when a batch is made of them.
#[utoipa::path(
    post, path = "/v1/files", tag = "openai",
    request_body(content = FileForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "The file.", body = File)),
)]
pub async fn upload_file(
    Shared(state): Shared<State>,
    caller: Caller,
    request: Request,
) -> Result<Json<File>, ApiError> {
    let mut form = Multipart::from_request(request, &state)
        .await
        .map_err(|error| ApiError::new(Code::UnsupportedMediaType, error.body_text()))?;
    let _permit = state.open_submission().await?;
    match read_form(&state, &caller, &mut form).await {
        Ok(file) => Ok(Json(file)),
        Err(error) => {
            discard(form).await;
            Err(error)
        }
    }
}

/// Fields other than the file.
#[derive(Default)]
struct Said {
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

async fn read_form(state: &State, caller: &Caller, form: &mut Multipart) -> Result<File, ApiError> {
    let patience = state.request_timeout();
    let mut said = Said::default();
    let mut upload: Option<(Upload, String)> = None;
    while let Some(field) = within(patience, form.next_field()).await? {
        match field.name().unwrap_or_default() {
            "file" if upload.is_some() => {
                return Err(refused("file", "the form has more than one file".into()));
            }
            "file" => upload = Some(take_file(state, caller, field).await?),
            "purpose" => said.purpose = Some(text(field, patience).await?),
            "expires_after[anchor]" => said.anchor = Some(text(field, patience).await?),
            "expires_after[seconds]" => said.seconds = Some(text(field, patience).await?),
            other => return Err(refused(other, format!("the form has no field '{other}'"))),
        }
    }
    let ttl_s = said.check()?;
    let Some((upload, name)) = upload else { return Err(refused("file", "the form has no file".into())) };
    if upload.bytes() == 0 {
        return Err(refused("file", "the file is empty".into()));
    }
    Ok(view(upload.commit(&name, ttl_s).await?))
}

async fn take_file(
    state: &State,
    caller: &Caller,
    mut field: Field<'_>,
) -> Result<(Upload, String), ApiError> {
    let limit = state.settings.limits.max_file_bytes;
    let name = name_of(field.file_name());
    let mut upload = state.store.upload_begin(caller.tenant()).await?;
    while let Some(data) = within(state.request_timeout(), field.chunk()).await? {
        if upload.bytes().unsigned_abs() + data.len() as u64 > limit {
            let detail = format!("the file exceeds limits.max_file_bytes ({limit})");
            return Err(ApiError::new(Code::TooLarge, detail).pointer("/file"));
        }
        upload.push(&data).await?;
    }
    Ok((upload, name))
}

/// A name without a path and without what no header may carry.
fn name_of(given: Option<&str>) -> String {
    let given = given.unwrap_or_default();
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = last.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    if name.is_empty() { "unnamed".into() } else { name }
}

impl Said {
    /// The life of the file in seconds, if it has an end.
    fn check(self) -> Result<Option<i64>, ApiError> {
        match self.purpose.as_deref() {
            Some(PURPOSE) => {}
            Some(other) => {
                return Err(refused(
                    "purpose",
                    format!("purpose '{other}' is not supported, only '{PURPOSE}'"),
                ));
            }
            None => return Err(refused("purpose", "purpose is missing".into())),
        }
        if self.anchor.as_deref().is_some_and(|anchor| anchor != "created_at") {
            return Err(refused("expires_after.anchor", "the anchor is created_at".into()));
        }
        let Some(seconds) = self.seconds else {
            return match self.anchor {
                None => Ok(None),
                Some(_) => Err(refused("expires_after.seconds", "seconds is missing".into())),
            };
        };
        match seconds.parse() {
            Ok(seconds) if EXPIRES_AFTER_S.contains(&seconds) => Ok(Some(seconds)),
            _ => {
                let (low, high) = (EXPIRES_AFTER_S.start(), EXPIRES_AFTER_S.end());
                Err(refused("expires_after.seconds", format!("seconds is a number from {low} to {high}")))
            }
        }
    }
}

async fn text(mut field: Field<'_>, patience: Duration) -> Result<String, ApiError> {
    let name = field.name().unwrap_or_default().to_string();
    let mut bytes = Vec::new();
    while let Some(data) = within(patience, field.chunk()).await? {
        if bytes.len() + data.len() > MAX_FIELD_BYTES {
            return Err(refused(&name, format!("{name} is longer than {MAX_FIELD_BYTES} bytes")));
        }
        bytes.extend_from_slice(&data);
    }
    String::from_utf8(bytes).map_err(|_| refused(&name, format!("{name} is no UTF-8")))
}

fn refused(name: &str, detail: String) -> ApiError {
    ApiError::new(Code::InvalidRequest, detail).pointer(format!("/{name}"))
}

/// A client that sends nothing for so long is given up.
async fn within<T>(
    patience: Duration,
    part: impl Future<Output = Result<Option<T>, MultipartError>>,
) -> Result<Option<T>, ApiError> {
    match tokio::time::timeout(patience, part).await {
        Ok(read) => read.map_err(|error| ApiError::new(Code::InvalidRequest, error.body_text())),
        Err(_) => {
            let detail = format!("nothing of the body came for {patience:?}");
            Err(ApiError::new(Code::RequestTimeout, detail))
        }
    }
}

/// Reads on for a moment, so that a client that is still sending gets to see the answer.
async fn discard(mut form: Multipart) {
    let rest = async {
        while let Ok(Some(mut field)) = form.next_field().await {
            while let Ok(Some(_)) = field.chunk().await {}
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_path_and_no_control_characters() {
        for (given, name) in [
            (Some("requests.jsonl"), "requests.jsonl"),
            (Some("../../etc/passwd"), "passwd"),
            (Some("C:\\a\\b.jsonl"), "b.jsonl"),
            (Some("a\r\nb\0.jsonl"), "ab.jsonl"),
            (Some("/"), "unnamed"),
            (None, "unnamed"),
        ] {
            assert_eq!(name_of(given), name);
        }
    }
}
