//! Pages for people: the status page, the documentation, the document itself. Plain files, embedded.

use std::fmt::Write;

use axum::Json;
use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::problem::ApiError;
use super::routes::document;
use crate::domain::code::Code;

/// Nothing from elsewhere, nothing inline: whatever a name or a message contains, it is only text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const ASSETS: [(&str, &str, &str); 3] = [
    ("status.js", "text/javascript; charset=utf-8", include_str!("status.js")),
    ("docs.js", "text/javascript; charset=utf-8", include_str!("docs.js")),
    ("style.css", "text/css; charset=utf-8", include_str!("style.css")),
];

/// The status page: models and jobs, live.
#[utoipa::path(
    get, path = "/", tag = "pages",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
pub async fn index() -> Response {
    page(include_str!("index.html").into())
}

/// The documentation: every operation, every schema, every error code.
#[utoipa::path(
    get, path = "/docs", tag = "pages",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
pub async fn docs() -> Response {
    page(include_str!("docs.html").replace("<!-- codes -->", &code_rows()))
}

/// Scripts and style of the pages.
#[utoipa::path(
    get, path = "/assets/{file}", tag = "pages",
    params(("file" = String, Path, description = "One of the files that the pages name.", example = "style.css")),
    responses((status = 200, description = "The file.", body = String, content_type = "text/plain")),
)]
pub async fn asset(Path(file): Path<String>) -> Result<Response, ApiError> {
    let (_, kind, text) = ASSETS
        .into_iter()
        .find(|(name, _, _)| *name == file)
        .ok_or_else(|| ApiError::new(Code::NotFound, format!("no path /assets/{file}")))?;
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response())
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "service",
    responses((status = 200, description = "OpenAPI 3.1.", body = serde_json::Value)),
)]
pub async fn openapi() -> Json<&'static utoipa::openapi::OpenApi> {
    Json(document())
}

fn page(html: String) -> Response {
    let policy = HeaderName::from_static("content-security-policy");
    (
        [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (policy, HeaderValue::from_static(POLICY)),
        ],
        html,
    )
        .into_response()
}

/// The table of codes. Codes and their meanings are our own words: letters, blanks and punctuation that
/// mean nothing to HTML.
fn code_rows() -> String {
    let mut rows = String::new();
    for code in Code::ALL {
        let retry = if code.is_retryable() { "yes" } else { "no" };
        let _ = writeln!(
            rows,
            "<tr id=\"{code}\"><td><code>{code}</code></td><td>{}</td><td>{retry}</td><td>{}</td></tr>",
            code.status(),
            code.about()
        );
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_code_and_no_markup_in_its_words() {
        let rows = code_rows();
        for code in Code::ALL {
            assert!(rows.contains(&format!("<code>{code}</code>")));
            assert!(!code.about().contains(['<', '>', '&']));
        }
    }

    #[test]
    fn pages_name_only_files_that_exist() {
        for html in [include_str!("index.html"), include_str!("docs.html")] {
            assert!(!html.contains("http:") && !html.contains("https:"), "nothing from elsewhere");
            for (at, _) in html.match_indices("/assets/") {
                let name: String = html[at + 8..].chars().take_while(|c| *c != '"').collect();
                assert!(ASSETS.iter().any(|(known, _, _)| *known == name), "{name}");
            }
        }
    }
}
