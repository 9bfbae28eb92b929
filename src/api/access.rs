//! Which route needs which scope: one table, from which the layer decides, the document tells, and tests ask.
//!
//! A route that is missing here is not open but closed to all but `admin`; a test finds it first.

use crate::domain::key::Scope;

/// What a caller has to bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: probes, and pages that hold nothing of anybody.
    Open,
    /// A key with this scope.
    Scope(Scope),
}

use Access::Open;

const SUBMIT: Access = Access::Scope(Scope::Submit);
const READ: Access = Access::Scope(Scope::Read);
const ADMIN: Access = Access::Scope(Scope::Admin);

/// Every route with its method.
pub const ROUTES: [(&str, &str, Access); 42] = [
    ("GET", "/livez", Open),
    ("GET", "/readyz", Open),
    ("GET", "/openapi.json", Open),
    ("GET", "/docs", Open),
    ("GET", "/", Open),
    ("GET", "/jobs/{id}", Open),
    ("GET", "/assets/{file}", Open),
    // totals of the whole service, without ids, names or texts: a scraper needs no more than this
    ("GET", "/metrics", READ),
    ("POST", "/v1/jobs", SUBMIT),
    ("POST", "/v1/jobs/estimate", SUBMIT),
    ("GET", "/v1/jobs", READ),
    ("GET", "/v1/jobs/{id}", READ),
    ("DELETE", "/v1/jobs/{id}", SUBMIT),
    ("GET", "/v1/jobs/{id}/results", READ),
    ("GET", "/v1/jobs/{id}/schema", READ),
    ("GET", "/v1/jobs/{id}/export", READ),
    ("GET", "/v1/jobs/{id}/events", READ),
    ("GET", "/v1/jobs/{id}/difference", READ),
    ("GET", "/v1/jobs/{id}/errors", READ),
    ("GET", "/v1/jobs/{id}/throughput", READ),
    ("POST", "/v1/jobs/{id}/cancel", SUBMIT),
    ("POST", "/v1/jobs/{id}/retry", SUBMIT),
    ("GET", "/v1/events", READ),
    ("GET", "/api/models/status", READ),
    ("GET", "/v1/models", READ),
    ("GET", "/v1/models/{name}", READ),
    ("GET", "/v1/models/{name}/wait", READ),
    ("POST", "/v1/models/{name}/load", ADMIN),
    ("POST", "/v1/models/{name}/unload", ADMIN),
    ("POST", "/v1/files", SUBMIT),
    ("GET", "/v1/files", READ),
    ("GET", "/v1/files/{id}", READ),
    ("DELETE", "/v1/files/{id}", SUBMIT),
    ("GET", "/v1/files/{id}/content", READ),
    ("POST", "/v1/batches", SUBMIT),
    ("GET", "/v1/batches", READ),
    ("GET", "/v1/batches/{id}", READ),
    ("POST", "/v1/batches/{id}/cancel", SUBMIT),
    ("POST", "/v1/chat/completions", SUBMIT),
    ("GET", "/v1/keys", ADMIN),
    ("POST", "/v1/keys", ADMIN),
    ("DELETE", "/v1/keys/{id}", ADMIN),
];

/// What a route needs, by the pattern of its path.
pub fn needed(method: &str, path: &str) -> Access {
    let method = if method == "HEAD" { "GET" } else { method };
    let found = ROUTES.iter().find(|(of, route, _)| *of == method && *route == path);
    found.map_or(ADMIN, |(_, _, access)| *access)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::routes::document;

    /// The document has exactly the routes there are.
    #[test]
    fn the_table_has_every_route_and_no_other() {
        let mut routes = Vec::new();
        for (path, item) in &document().paths.paths {
            for (method, operation) in [
                ("GET", &item.get),
                ("POST", &item.post),
                ("DELETE", &item.delete),
                ("PUT", &item.put),
                ("PATCH", &item.patch),
            ] {
                if operation.is_some() {
                    routes.push((method, path.as_str()));
                }
            }
        }
        let mut known: Vec<(&str, &str)> = ROUTES.iter().map(|(method, path, _)| (*method, *path)).collect();
        routes.sort_unstable();
        known.sort_unstable();
        assert_eq!(known, routes);
    }

    #[test]
    fn what_is_not_listed_is_closed() {
        assert_eq!(needed("POST", "/v1/new"), ADMIN);
        assert_eq!(needed("PUT", "/livez"), ADMIN);
        assert_eq!(needed("HEAD", "/livez"), Open);
        assert_eq!(needed("HEAD", "/v1/jobs"), READ);
    }
}
