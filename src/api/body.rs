//! Reading requests: parameters, JSON bodies with their limits, and bodies of lines.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::caller::Caller;
use super::problem::ApiError;
use super::state::State;
use crate::config::settings::Limits;
use crate::domain::code::Code;
use crate::domain::id::JobId;
use crate::wire::depth;
use crate::wire::submit::{IDEMPOTENCY_KEY, MAX_KEY_BYTES, NDJSON};

/// The query string as `T`; unknown and malformed parameters are refused by name.
pub struct Params<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => {
                let cause = std::error::Error::source(&rejection).map(ToString::to_string);
                let cause = cause.unwrap_or_else(|| rejection.body_text());
                Err(ApiError::new(Code::InvalidRequest, format!("query string: {cause}")))
            }
        }
    }
}

/// `{id}` of the path: a job of the caller's tenant. Whoever has one may do with it what the route is for; there is no
/// other way from a request to a job's id. What is no UUID is no job.
pub struct JobPath(pub JobId);

impl FromRequestParts<State> for JobPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::new(Code::InvalidRequest, rejection.body_text()))?;
        let id = text.parse().map_err(|_| ApiError::new(Code::NotFound, format!("no job '{text}'")))?;
        let caller = Caller::from_request_parts(parts, state).await?;
        match state.store.has_job(caller.tenant(), id).await? {
            true => Ok(Self(id)),
            false => Err(ApiError::job_not_found(id)),
        }
    }
}

/// `{id}` of the path, of a kind that has a prefix of its own. What is none names nothing.
pub struct Named<T>(pub T);

impl<S: Send + Sync, T: std::str::FromStr> FromRequestParts<S> for Named<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::new(Code::InvalidRequest, rejection.body_text()))?;
        let missing = || ApiError::new(Code::NotFound, format!("there is no '{text}'")).pointer("/id");
        text.parse().map(Self).map_err(|_| missing())
    }
}

/// A page's size within OpenAI's bounds.
pub fn page_of(asked: Option<u32>, default: u32, max: u32) -> Result<u32, ApiError> {
    let limit = asked.unwrap_or(default);
    if (1..=max).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::new(Code::InvalidRequest, format!("limit {limit} is not from 1 to {max}"))
        .pointer("/limit"))
}

/// What a submission's body is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    Json,
    Lines,
}

/// From the Content-Type; none at all is taken for JSON.
pub fn body_kind(headers: &HeaderMap) -> Result<BodyKind, ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(BodyKind::Json) };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(BodyKind::Json),
        NDJSON | "application/jsonl" | "application/ndjson" => Ok(BodyKind::Lines),
        _ => Err(ApiError::new(
            Code::UnsupportedMediaType,
            format!("Content-Type '{text}' is neither application/json nor {NDJSON}"),
        )),
    }
}

/// Whether the client prefers lines to a page.
pub fn wants_lines(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|range| {
        let essence = range.split(';').next().unwrap_or_default().trim();
        [NDJSON, "application/jsonl", "application/ndjson"].iter().any(|n| essence.eq_ignore_ascii_case(n))
    })
}

/// The Idempotency-Key header, if there is one.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let visible = value.to_str().ok().map(str::trim).filter(|key| {
        !key.is_empty() && key.len() <= MAX_KEY_BYTES && key.chars().all(|c| c.is_ascii_graphic() || c == ' ')
    });
    match visible {
        Some(key) => Ok(Some(key.to_string())),
        None => Err(ApiError::new(
            Code::InvalidRequest,
            format!("Idempotency-Key must be 1 to {MAX_KEY_BYTES} visible ASCII characters"),
        )),
    }
}

/// Reads a whole JSON body within the limits on size, depth and time.
pub async fn read_json<T: DeserializeOwned>(
    body: Body,
    headers: &HeaderMap,
    limits: &Limits,
    timeout: Duration,
) -> Result<T, ApiError> {
    let limit = limits.max_body_bytes;
    let too_large =
        || ApiError::new(Code::TooLarge, format!("the body exceeds limits.max_body_bytes ({limit})"));
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: u64| bytes > limit as u64) {
        return Err(too_large());
    }
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::with_capacity(announced.unwrap_or(0).min(1 << 20) as usize);
    while let Some(part) = next_part(&mut stream, timeout).await? {
        if bytes.len() + part.len() > limit {
            discard(stream).await;
            return Err(too_large());
        }
        bytes.extend_from_slice(&part);
    }
    parse_json(&bytes, limits.max_json_depth)
}

/// One JSON document as `T`, refused with line and column.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8], max_depth: usize) -> Result<T, ApiError> {
    check_depth(bytes, max_depth)?;
    serde_json::from_slice(bytes).map_err(|error| {
        let detail = match error.classify() {
            serde_json::error::Category::Eof if bytes.iter().all(u8::is_ascii_whitespace) => {
                "the body is empty".to_string()
            }
            _ => error.to_string(),
        };
        ApiError::new(Code::InvalidRequest, detail).at(error.line() as u64, Some(error.column() as u64))
    })
}

/// Refuses nesting beyond `max_depth` before a parser recurses into it.
pub fn check_depth(bytes: &[u8], max_depth: usize) -> Result<(), ApiError> {
    let Some((line, column)) = depth::exceeded(bytes, max_depth) else { return Ok(()) };
    let detail = format!("nested deeper than limits.max_json_depth ({max_depth})");
    Err(ApiError::new(Code::TooLarge, detail).at(line, Some(column)))
}

/// The next part of a body; a client that sends nothing for `timeout` is given up.
async fn next_part(stream: &mut BodyDataStream, timeout: Duration) -> Result<Option<Bytes>, ApiError> {
    match tokio::time::timeout(timeout, stream.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(part))) => Ok(Some(part)),
        Ok(Some(Err(error))) => {
            Err(ApiError::new(Code::InvalidRequest, format!("the body broke off: {error}")))
        }
        Err(_) => {
            Err(ApiError::new(Code::RequestTimeout, format!("nothing of the body came for {timeout:?}")))
        }
    }
}

/// Reads on for a moment, so that a client that is still sending gets to see the answer.
async fn discard(mut stream: BodyDataStream) {
    let all = async { while let Some(Ok(_)) = stream.next().await {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
}

/// A body cut into lines, one in memory at a time. Blank lines are skipped, but counted.
pub struct Lines {
    stream: BodyDataStream,
    timeout: Duration,
    max_line_bytes: usize,
    max_stream_bytes: u64,
    read_bytes: u64,
    hash: Sha256,
    part: Bytes,
    line: Vec<u8>,
    number: u64,
    ended: bool,
}

impl Lines {
    /// `head` enters the digest before the first byte: what else makes this request what it is.
    pub fn new(body: Body, limits: &Limits, timeout: Duration, head: &[u8]) -> Self {
        Self {
            stream: body.into_data_stream(),
            timeout,
            max_line_bytes: limits.max_line_bytes,
            max_stream_bytes: limits.max_stream_bytes,
            read_bytes: 0,
            hash: Sha256::new_with_prefix(head),
            part: Bytes::new(),
            line: Vec::new(),
            number: 0,
            ended: false,
        }
    }

    /// The next line that is not blank, with its number from 1.
    pub async fn next(&mut self) -> Result<Option<(u64, &[u8])>, ApiError> {
        while self.read_line().await? {
            if !self.line.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some((self.number, &self.line)));
            }
        }
        Ok(None)
    }

    /// Digest of head and body, once the last line was read.
    pub fn into_digest(self) -> Vec<u8> {
        self.hash.finalize().to_vec()
    }

    /// Gives up on the rest, letting the client finish its sentence.
    pub async fn discard(self) {
        discard(self.stream).await;
    }

    async fn read_line(&mut self) -> Result<bool, ApiError> {
        self.line.clear();
        self.number += 1;
        loop {
            if let Some(end) = self.part.iter().position(|byte| *byte == b'\n') {
                let piece = self.part.split_to(end + 1);
                self.extend(&piece[..end])?;
                return Ok(true);
            }
            let rest = std::mem::take(&mut self.part);
            self.extend(&rest)?;
            if self.ended {
                return Ok(!self.line.is_empty());
            }
            match next_part(&mut self.stream, self.timeout).await? {
                Some(part) => {
                    self.read_bytes += part.len() as u64;
                    if self.read_bytes > self.max_stream_bytes {
                        let limit = self.max_stream_bytes;
                        let detail = format!("the body exceeds limits.max_stream_bytes ({limit})");
                        return Err(ApiError::new(Code::TooLarge, detail).at(self.number, None));
                    }
                    self.hash.update(&part);
                    self.part = part;
                }
                None => self.ended = true,
            }
        }
    }

    fn extend(&mut self, piece: &[u8]) -> Result<(), ApiError> {
        if self.line.len() + piece.len() > self.max_line_bytes {
            let (line, limit) = (self.number, self.max_line_bytes);
            let detail = format!("line {line} exceeds limits.max_line_bytes ({limit})");
            return Err(ApiError::new(Code::TooLarge, detail).at(line, None));
        }
        self.line.extend_from_slice(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::problem::Problem;

    async fn lines_of(parts: &[&str], max_line_bytes: usize) -> Result<Vec<(u64, String)>, Problem> {
        let parts: Vec<Result<Bytes, std::io::Error>> =
            parts.iter().map(|part| Ok(Bytes::copy_from_slice(part.as_bytes()))).collect();
        let body = Body::from_stream(futures::stream::iter(parts));
        let limits = Limits { max_line_bytes, ..Limits::default() };
        let mut lines = Lines::new(body, &limits, Duration::from_secs(5), b"");
        let mut read = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some((number, line))) => read.push((number, String::from_utf8(line.to_vec()).unwrap())),
                Ok(None) => return Ok(read),
                Err(error) => return Err(error.problem().clone()),
            }
        }
    }

    #[tokio::test]
    async fn lines_are_found_wherever_the_parts_are_cut() {
        let text = "one\n\ntwo\r\n  \nthree";
        let want = vec![(1, "one".into()), (3, "two\r".into()), (5, "three".to_string())];
        for cut in 0..text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(lines_of(&[a, b], 100).await.unwrap(), want, "cut at {cut}");
        }
        let single: Vec<String> = text.chars().map(String::from).collect();
        let single: Vec<&str> = single.iter().map(String::as_str).collect();
        assert_eq!(lines_of(&single, 100).await.unwrap(), want);
    }

    #[tokio::test]
    async fn a_line_may_reach_its_limit_and_not_pass_it() {
        assert_eq!(lines_of(&["abcd\nabcd\n"], 4).await.unwrap().len(), 2);
        let problem = lines_of(&["abcd\nab", "cde\n"], 4).await.unwrap_err();
        assert_eq!((problem.code, problem.line), (Code::TooLarge, Some(2)));
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        let check = |text: &str, depth| check_depth(text.as_bytes(), depth).is_ok();
        assert!(check(r#"{"a":[1,{"b":"[[[[{\"[["}]}"#, 3));
        assert!(!check(r#"{"a":[1,{"b":2}]}"#, 2));
        assert!(check("[][][]", 1));
    }

    #[test]
    fn bad_json_is_placed() {
        let error = parse_json::<serde_json::Value>(b"{\n  \"a\": nope\n}", 10).unwrap_err();
        assert_eq!((error.problem().line, error.problem().code), (Some(2), Code::InvalidRequest));
    }
}
