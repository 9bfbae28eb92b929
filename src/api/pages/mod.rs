//! Pages for people: the dashboard, the documentation, the document itself. Plain files, embedded.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Json;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::problem::ApiError;
use super::routes::document;
use crate::domain::code::Code;

/// Nothing from elsewhere, nothing inline: whatever a name or a message contains, it is only text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

macro_rules! assets {
    ($($name:literal $kind:ident,)*) => { [$(($name, $kind, include_str!(concat!("assets/", $name))),)*] };
}

const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// Name, media type, content.
const ASSETS: [(&str, &str, &str); 42] = assets![
    "base.css" CSS,
    "dashboard.css" CSS,
    "diagram.css" CSS,
    "announce.js" JS,
    "api.js" JS,
    "bar.js" JS,
    "contact.js" JS,
    "data_model.js" JS,
    "diagram.js" JS,
    "docs.js" JS,
    "dom.js" JS,
    "er_draw.js" JS,
    "er_edges.js" JS,
    "er_graph.js" JS,
    "er_layout.js" JS,
    "er_ranks.js" JS,
    "er_save.js" JS,
    "errors.js" JS,
    "format.js" JS,
    "job_actions.js" JS,
    "job_head.js" JS,
    "job_page.js" JS,
    "job_progress.js" JS,
    "job_table.js" JS,
    "json_view.js" JS,
    "main.js" JS,
    "memory.js" JS,
    "model_actions.js" JS,
    "model_card.js" JS,
    "notice.js" JS,
    "overview.js" JS,
    "pill.js" JS,
    "progress.js" JS,
    "question.js" JS,
    "results.js" JS,
    "review.js" JS,
    "route.js" JS,
    "section.js" JS,
    "sparkline.js" JS,
    "stream.js" JS,
    "theme.js" JS,
    "viewport.js" JS,
];

/// The dashboard: models and jobs, live.
#[utoipa::path(
    get, path = "/", tag = "pages",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
pub async fn index() -> Response {
    page(include_str!("index.html").into())
}

/// The dashboard's view of one job. The page finds out whether there is one.
#[utoipa::path(
    get, path = "/jobs/{id}", tag = "pages", params(("id" = String, Path, description = "The job.")),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
pub async fn job() -> Response {
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
    params(("file" = String, Path, description = "One of the files that the pages name.", example = "base.css")),
    responses((status = 200, description = "The file.", body = String, content_type = "text/plain")),
)]
pub async fn asset(Path(file): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    let (_, kind, text) = ASSETS
        .into_iter()
        .find(|(name, _, _)| *name == file)
        .ok_or_else(|| ApiError::new(Code::NotFound, format!("no path /assets/{file}")))?;
    // asked for at every visit, sent again only by another binary
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let tag = format!("\"{:x}\"", hasher.finish());
    let kept = headers.get(header::IF_NONE_MATCH).is_some_and(|kept| kept.as_bytes() == tag.as_bytes());
    let head = [
        (header::CONTENT_TYPE, kind.to_string()),
        (header::CACHE_CONTROL, "no-cache".to_string()),
        (header::ETAG, tag),
    ];
    match kept {
        true => Ok((StatusCode::NOT_MODIFIED, head).into_response()),
        false => Ok((head, text).into_response()),
    }
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

    fn is_known(name: &str) -> bool {
        ASSETS.iter().any(|(known, _, _)| *known == name)
    }

    /// What stands between each `open` of `text` and the next quotation mark.
    fn quoted<'a>(text: &'a str, open: &'a str) -> impl Iterator<Item = &'a str> {
        text.match_indices(open).map(move |(at, _)| text[at + open.len()..].split('"').next().unwrap())
    }

    #[test]
    fn pages_and_scripts_name_only_files_that_exist() {
        for html in [include_str!("index.html"), include_str!("docs.html")] {
            assert!(!html.contains("http:") && !html.contains("https:"), "nothing from elsewhere");
            assert!(quoted(html, "/assets/").count() > 1);
            for name in quoted(html, "/assets/") {
                assert!(is_known(name), "{name}");
            }
        }
        for (file, _, text) in ASSETS {
            for name in quoted(text, "from \"./") {
                assert!(is_known(name), "{file} imports {name}");
            }
        }
    }

    /// A name of a table is only text, whatever stands in it.
    #[test]
    fn scripts_make_no_markup_and_call_nobody_else() {
        for (file, _, text) in ASSETS {
            for wrong in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "javascript:",
                "@import",
                "url(",
                "https:",
            ] {
                assert!(!text.contains(wrong), "{file} has {wrong}");
            }
            // the name of the SVG language is no address
            let names = text.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(text.matches("http:").count(), names, "{file} names another host");
            assert!(text.starts_with("//") || text.starts_with("/*"), "{file} does not say what it is for");
            assert!(text.lines().count() <= 400, "{file} is long: is there a second noun in it?");
        }
    }

    #[test]
    fn the_dashboard_is_small() {
        let bytes: usize = ASSETS.iter().map(|(_, _, text)| text.len()).sum();
        assert!(bytes < 200_000, "{bytes} bytes of assets");
    }
}
