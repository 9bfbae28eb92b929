//! Keys: which route wants which, how they end, and what is said to who has none.

use std::time::{Duration, Instant};

use adit::api::{Access, ROUTES};
use adit::config::settings::Auth;
use adit::domain::code::Code;
use adit::domain::key::{KeyText, NewKey, Scope};
use axum::body::Body;
use axum::http::Request;
use futures::StreamExt;
use serde_json::json;
use tower::ServiceExt;

use crate::harness::{Answer, Api, custom, start, start_with};

/// A service that asks for keys, and looks each up anew.
pub async fn locked() -> Api {
    start_with(|settings| {
        settings.http.auth = Auth::Required;
        settings.http.key_cache_ms = 0;
    })
    .await
}

/// A path of nothing that exists.
pub fn concrete(path: &str) -> String {
    let id = match path {
        path if path.starts_with("/v1/files") => "file-01890000000070008000000000000000",
        path if path.starts_with("/v1/batches") => "batch_01890000000070008000000000000000",
        _ => "01890000-0000-7000-8000-000000000000",
    };
    let path = path.replace("{id}", id).replace("{name}", "concept").replace("{file}", "base.css");
    match path.as_str() {
        "/v1/models/concept/wait" => format!("{path}?timeout=0"),
        // else it would go on for ever
        "/v1/events" => format!("{path}?limit=0"),
        _ => path,
    }
}

/// A refusal in the form of its path.
#[track_caller]
pub fn refused(answer: &Answer, path: &str, code: Code) {
    let openai = ["/v1/files", "/v1/batches", "/v1/chat"].iter().any(|root| path.starts_with(root));
    if openai {
        let word = match code {
            Code::Unauthenticated => "invalid_api_key",
            Code::RateLimited => "rate_limit_exceeded",
            other => other.as_str(),
        };
        answer.refusal(code.status(), word, None);
        assert_eq!(answer.headers.contains_key("www-authenticate"), code == Code::Unauthenticated);
    } else {
        let problem = answer.problem(code);
        assert_eq!(problem["error"].is_object(), path.starts_with("/v1/models"), "{problem}");
    }
}

#[tokio::test]
async fn every_route_asks_for_its_scope_and_no_other() {
    let api = locked().await;
    let mut holders = Vec::new();
    for scope in Scope::ALL {
        holders.push((scope, api.holder("t", &[scope]).await));
    }
    let stranger = api.with(KeyText::generate().reveal());
    for (method, path, access) in ROUTES {
        let place = concrete(path);
        let context = format!("{method} {path}");
        let Access::Scope(wanted) = access else {
            for caller in [&api, &stranger] {
                let status = caller.call(method, &place).await.status.as_u16();
                assert!(!matches!(status, 401 | 403), "{context}: {status}");
            }
            continue;
        };
        refused(&api.call(method, &place).await, path, Code::Unauthenticated);
        refused(&stranger.call(method, &place).await, path, Code::Unauthenticated);
        for (scope, holder) in &holders {
            let answer = holder.call(method, &place).await;
            if *scope == wanted {
                let status = answer.status.as_u16();
                assert!(!matches!(status, 401 | 403 | 405), "{context}: {status} {}", answer.text());
            } else {
                refused(&answer, path, Code::Forbidden);
                assert!(answer.text().contains(&format!("'{wanted}'")), "{context}: {}", answer.text());
            }
        }
    }
    // what no route is asks for nothing; a method that a path has not is nobody's but the operator's
    api.get("/nowhere").await.problem(Code::NotFound);
    api.call("PUT", "/v1/jobs").await.problem(Code::Unauthenticated);
    holders[2].1.call("PUT", "/v1/jobs").await.problem(Code::MethodNotAllowed);
}

#[tokio::test]
async fn the_document_says_the_scope() {
    let document = start().await.get("/openapi.json").await.ok();
    assert_eq!(document["components"]["securitySchemes"]["key"]["scheme"], "bearer");
    for (method, path, access) in ROUTES {
        let security = &document["paths"][path][method.to_lowercase()]["security"];
        match access {
            Access::Open => assert!(security.is_null(), "{method} {path}"),
            Access::Scope(scope) => {
                assert_eq!(*security, json!([{"key": [scope.as_str()]}]), "{method} {path}")
            }
        }
    }
}

#[tokio::test]
async fn only_a_whole_key_opens() {
    let api = locked().await;
    let holder = api.holder("t", &[Scope::Read]).await;
    let key = holder.key.clone().unwrap();
    holder.get("/v1/jobs").await.ok();
    let send = |headers: Vec<String>| {
        let api = api.clone();
        async move {
            let mut request = Request::get("/v1/jobs");
            for header in headers {
                request = request.header("authorization", header);
            }
            api.send(request.body(Body::empty()).unwrap()).await
        }
    };
    send(vec![format!("bearer {key}")]).await.ok();
    let other = KeyText::generate();
    // the prefix of a key that exists, the secret of another
    let mixed = format!("{}{}", &key[..18], &other.reveal()[18..]);
    for wrong in [
        vec![],
        vec![key.clone()],
        vec![format!("Basic {key}")],
        vec!["Bearer".into()],
        vec!["Bearer ".into()],
        vec!["Bearer none".into()],
        vec![format!("Bearer {}", &key[..key.len() - 1])],
        vec![format!("Bearer {mixed}")],
        vec![format!("Bearer {}", other.reveal())],
        vec![format!("Bearer {key}"), format!("Bearer {key}")],
    ] {
        let answer = send(wrong.clone()).await;
        answer.problem(Code::Unauthenticated);
        assert!(!answer.text().contains(&key[18..]), "{wrong:?}: {}", answer.text());
    }
    // what exists is not told from what does not
    let detail = |answer: &Answer| answer.json()["detail"].clone();
    let (wrong, unknown) =
        (send(vec![format!("Bearer {mixed}")]).await, send(vec![format!("Bearer {}", other.reveal())]).await);
    assert_eq!(detail(&wrong), detail(&unknown));
}

#[tokio::test]
async fn keys_expire_and_are_revoked() {
    let api = locked().await;
    let now = api.state.clock.now();
    let made = |expires_in: i64| NewKey {
        tenant: "t".into(),
        name: "n".into(),
        scopes: [Scope::Read].into_iter().collect(),
        expires_at: Some(now + chrono::TimeDelta::seconds(expires_in)),
        rate_per_minute: None,
        max_queued_tokens: None,
    };
    api.holder_of(made(-1)).await.get("/v1/jobs").await.problem(Code::Unauthenticated);
    let holder = api.holder_of(made(3_600)).await;
    holder.get("/v1/jobs").await.ok();
    let key = &api.store.keys(Some("t")).await.unwrap()[0];
    assert!(key.last_used_at.is_some());
    api.store.revoke_key(None, key.id).await.unwrap().unwrap();
    let problem = holder.get("/v1/jobs").await.problem(Code::Unauthenticated);
    assert!(problem["detail"].as_str().unwrap().contains("revoked"), "{problem}");
}

#[tokio::test]
async fn a_revoked_key_lives_no_longer_than_the_cache() {
    let api = start_with(|settings| {
        settings.http.auth = Auth::Required;
        settings.http.key_cache_ms = 400;
    })
    .await;
    let holder = api.holder("t", &[Scope::Read]).await;
    holder.get("/v1/jobs").await.ok();
    let request = Request::get("/v1/events")
        .header("authorization", format!("Bearer {}", holder.key.as_ref().unwrap()));
    let stream = api.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let key = &api.store.keys(None).await.unwrap()[0];
    api.store.revoke_key(None, key.id).await.unwrap();
    let revoked = Instant::now();
    while holder.get("/v1/jobs").await.status.is_success() {
        assert!(revoked.elapsed() < Duration::from_secs(2), "still believed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // a stream that was open breaks off, and does not look as if it had ended
    let mut parts = stream.into_body().into_data_stream();
    let broken = async {
        while let Some(part) = parts.next().await {
            part?;
        }
        Ok::<_, axum::Error>(())
    };
    let ended = tokio::time::timeout(Duration::from_secs(10), broken).await.unwrap();
    assert!(ended.unwrap_err().to_string().contains("no longer valid"));
}

#[tokio::test]
async fn an_admin_makes_lists_and_revokes_keys_of_its_tenant() {
    let api = start_with(|settings| settings.http.auth = Auth::Required).await;
    let admin = api.holder("acme", &[Scope::Admin]).await;
    let asked =
        json!({"name": "worker", "scopes": ["read", "submit"], "expires_in_s": 3600, "rate_per_minute": 60});
    let made = admin.post_to("/v1/keys", &asked).await;
    assert_eq!((made.status.as_u16(), &made.headers["cache-control"]), (201, &"no-store".parse().unwrap()));
    let made = made.ok();
    let key = made["key"].as_str().unwrap();
    assert_eq!((&made["tenant"], &made["state"]), (&json!("acme"), &json!("valid")));
    assert_eq!(made["scopes"], json!(["submit", "read"]));
    let worker = api.with(key);
    worker.post(&custom(json!(["a"]))).await.ok();
    worker.post_to("/v1/keys", &asked).await.problem(Code::Forbidden);

    let listed = admin.get("/v1/keys").await;
    assert_eq!(listed.ok()["keys"].as_array().unwrap().len(), 2);
    assert!(!listed.text().contains(&key[18..]), "the secret is shown once");
    assert!(!listed.text().contains("hash"));

    let place = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    let stranger = api.holder("other", &[Scope::Admin]).await;
    stranger.call("DELETE", &place).await.problem(Code::NotFound);
    worker.get("/v1/jobs").await.ok();
    for _ in 0..2 {
        assert_eq!(admin.call("DELETE", &place).await.ok()["state"], "revoked");
        // at once in the process that was asked, whatever the cache
        worker.get("/v1/jobs").await.problem(Code::Unauthenticated);
    }
    for (wrong, pointer) in [
        (json!({"name": "", "scopes": ["read"]}), json!("/name")),
        (json!({"name": "n", "scopes": []}), json!("/scopes")),
        (json!({"name": "n", "scopes": ["read"], "rate_per_minute": 0}), json!("/rate_per_minute")),
        (json!({"name": "n", "scopes": ["read"], "max_queued_tokens": -1}), json!("/max_queued_tokens")),
        (json!({"name": "n", "scopes": ["read"], "expires_in_s": 0}), json!("/expires_in_s")),
        (json!({"name": "n", "scopes": ["all"]}), json!(null)),
        (json!({"name": "n", "scopes": ["read"], "tenant": "other"}), json!(null)),
    ] {
        let problem = admin.post_to("/v1/keys", &wrong).await.problem(Code::InvalidRequest);
        assert_eq!(problem["pointer"], pointer, "{problem}");
    }
}

#[tokio::test]
async fn nobody_is_asked_where_keys_are_off() {
    let api = start().await;
    api.with("none").post(&custom(json!(["a"]))).await.ok();
    assert_eq!(api.get("/v1/jobs").await.ok()["jobs"].as_array().unwrap().len(), 1);
    let open = start_with(|settings| {
        settings.http.listen = "0.0.0.0:0".parse().unwrap();
        settings.http.auth = Auth::Off;
    });
    open.await.get("/v1/jobs").await.ok();
    let closed = start_with(|settings| settings.http.listen = "0.0.0.0:0".parse().unwrap()).await;
    closed.get("/v1/jobs").await.problem(Code::Unauthenticated);
    closed.get("/livez").await.ok();
    closed.get("/readyz").await.ok();
}
