//! What surrounds every handler: the request's id, its log line and metrics, panics, time limits.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State as Shared};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;
use uuid::Uuid;

use super::problem::{ApiError, Cause, Shape, render};
use super::state::State;
use crate::domain::code::Code;
use crate::telemetry::metric::{self, Metric};
use crate::wire::problem::Problem;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Outermost: gives the request an id, sees that every error has the shape of its path, and reports.
pub async fn observe(request: Request, next: Next) -> Response {
    let id = Uuid::new_v4();
    let began = Instant::now();
    let method = method_label(request.method().as_str());
    let route: Arc<str> =
        request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).into();
    let shape = Shape::of(request.uri().path());
    let span = tracing::info_span!("request", %id, method, route = &*route, key = tracing::field::Empty);

    let response = next.run(request).instrument(span.clone()).await;

    let mut response = shaped(response, id, shape);
    let status = response.status();
    let elapsed = began.elapsed();
    span.in_scope(|| report(&response, elapsed.as_millis()));
    metric::count(
        Metric::HttpRequests,
        &[("route", &route), ("method", method), ("status", status.as_str())],
        1,
    );
    metric::observe(Metric::HttpSeconds, &[("route", &route)], elapsed.as_secs_f64());
    let id = HeaderValue::from_str(&id.to_string()).expect("a UUID is ASCII");
    response.headers_mut().insert(REQUEST_ID, id);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Methods are the client's words; those we do not know share one label.
fn method_label(method: &str) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("other")
}

/// Puts the request's id into a problem, and makes problems of errors that axum answered by itself.
fn shaped(mut response: Response, id: Uuid, shape: Shape) -> Response {
    let status = response.status();
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => Some(problem),
        None if status.is_client_error() || status.is_server_error() => {
            Some(Problem::new(code_of(status), status.canonical_reason().unwrap_or("refused")))
        }
        None => None,
    };
    let Some(mut problem) = problem else { return response };
    problem.instance = Some(format!("urn:uuid:{id}"));
    let mut shaped = render(&problem, shape);
    if let Some(cause) = response.extensions_mut().remove::<Cause>() {
        shaped.extensions_mut().insert(cause);
    }
    // `Allow` of a 405 and the like
    for (name, value) in response.headers() {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH && *name != header::RETRY_AFTER {
            shaped.headers_mut().append(name, value.clone());
        }
    }
    shaped
}

fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
        StatusCode::REQUEST_TIMEOUT => Code::RequestTimeout,
        status if status.is_client_error() => Code::InvalidRequest,
        _ => Code::Internal,
    }
}

fn report(response: &Response, ms: u128) {
    let status = response.status().as_u16();
    match response.extensions().get::<Cause>() {
        Some(Cause(cause)) if status == 503 => tracing::warn!(status, ms, cause = &**cause, "refused"),
        Some(Cause(cause)) => tracing::error!(status, ms, cause = &**cause, "failed"),
        None => tracing::debug!(status, ms, "answered"),
    }
}

/// A panic of a handler is its request's failure, not the process's.
pub fn on_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    let words = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    ApiError::hidden(Code::Internal, &format!("a handler panicked: {words}")).into_response()
}

/// Ends a handler that takes too long to begin its answer.
pub async fn limit_time(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(state.request_timeout(), next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let ms = state.settings.http.request_timeout_ms;
            ApiError::new(Code::RequestTimeout, format!("not answered within http.request_timeout_ms ({ms})"))
                .into_response()
        }
    }
}

pub async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::new(Code::NotFound, format!("no path {}", uri.path()))
}

pub async fn no_such_method(request: Request) -> ApiError {
    ApiError::new(Code::MethodNotAllowed, format!("{} is not for {}", request.method(), request.uri().path()))
}
