//! `/v1/files`, field by field: uploads, lists, contents, deletion, limits.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::harness::{Api, form, start, start_with};

const FIELDS: [&str; 9] =
    ["id", "object", "bytes", "created_at", "expires_at", "filename", "purpose", "status", "status_details"];

async fn upload(api: &Api, parts: &[(&str, Option<&str>, &[u8])]) -> Value {
    api.post_form("/v1/files", parts).await.ok()
}

#[tokio::test]
async fn a_file_comes_back_as_it_went_in() {
    let api = start().await;
    // more than a part of the database, with line ends and bytes that are no text
    let content: Vec<u8> = (0..700_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (at, parts) in [
        [("purpose", None, &b"batch"[..]), ("file", Some("re quests.jsonl"), &content[..])],
        [("file", Some("re quests.jsonl"), &content[..]), ("purpose", None, &b"batch"[..])],
    ]
    .iter()
    .enumerate()
    {
        let file = upload(&api, parts).await;
        assert_eq!(file.as_object().unwrap().keys().collect::<Vec<_>>(), FIELDS);
        let id = file["id"].as_str().unwrap();
        assert!(id.starts_with("file-"), "{id}");
        assert_eq!((&file["object"], &file["purpose"]), (&json!("file"), &json!("batch")));
        assert_eq!((&file["bytes"], &file["status"]), (&json!(content.len()), &json!("processed")));
        assert_eq!((&file["filename"], &file["expires_at"]), (&json!("re quests.jsonl"), &Value::Null));
        assert!(file["created_at"].as_i64().unwrap() > 1_700_000_000);
        assert_eq!(api.get(&format!("/v1/files/{id}")).await.ok(), file, "upload {at}");
        let read = api.get(&format!("/v1/files/{id}/content")).await;
        assert!(read.status.is_success() && read.bytes == content);
        assert!(!read.headers.contains_key("x-incomplete"));
        let disposition = read.headers["content-disposition"].to_str().unwrap();
        assert_eq!(disposition, "attachment; filename=\"re quests.jsonl\"");
    }
}

#[tokio::test]
async fn files_are_listed_paged_and_deleted() {
    let api = start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(api.upload("{}\n").await);
    }
    let list = api.get("/v1/files").await.ok();
    let listed = |list: &Value| -> Vec<String> {
        list["data"].as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap().to_string()).collect()
    };
    let newest_first: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!(listed(&list), newest_first);
    assert_eq!((&list["object"], &list["has_more"]), (&json!("list"), &json!(false)));
    assert_eq!((&list["first_id"], &list["last_id"]), (&json!(ids[2]), &json!(ids[0])));
    let page = api.get("/v1/files?limit=2").await.ok();
    assert_eq!((listed(&page), &page["has_more"]), (newest_first[..2].to_vec(), &json!(true)));
    let rest = api.get(&format!("/v1/files?limit=2&after={}", ids[1])).await.ok();
    assert_eq!((listed(&rest), &rest["has_more"]), (newest_first[2..].to_vec(), &json!(false)));
    assert_eq!(listed(&api.get("/v1/files?order=asc&purpose=batch").await.ok()), ids);
    let after = api.get(&format!("/v1/files?order=asc&after={}", ids[0])).await.ok();
    assert_eq!(listed(&after), ids[1..]);
    assert!(listed(&api.get("/v1/files?purpose=batch_output").await.ok()).is_empty());

    let path = format!("/v1/files/{}", ids[1]);
    let deleted = api.call("DELETE", &path).await.ok();
    assert_eq!(deleted, json!({"id": ids[1], "object": "file", "deleted": true}));
    for (method, path) in
        [("DELETE", path.clone()), ("GET", path.clone()), ("GET", format!("{path}/content"))]
    {
        api.call(method, &path).await.refusal(404, "not_found", Some("id"));
    }
    let parts: i64 =
        sqlx::query_scalar("select count(*) from file_parts").fetch_one(api.store.pool()).await.unwrap();
    assert_eq!(parts, 2, "its bytes went with it");
}

#[tokio::test]
async fn a_file_with_an_end_goes_away() {
    let api = start().await;
    let file = upload(
        &api,
        &[
            ("purpose", None, b"batch"),
            ("expires_after[anchor]", None, b"created_at"),
            ("expires_after[seconds]", None, b"3600"),
            ("file", Some("x"), b"{}"),
        ],
    )
    .await;
    assert_eq!(file["expires_at"].as_i64().unwrap() - file["created_at"].as_i64().unwrap(), 3600);
    sqlx::query("update files set expires_at = now() - interval '1 s'")
        .execute(api.store.pool())
        .await
        .unwrap();
    let id = file["id"].as_str().unwrap();
    api.get(&format!("/v1/files/{id}")).await.refusal(404, "not_found", Some("id"));
    assert_eq!(api.get("/v1/files").await.ok()["data"], json!([]));
    assert_eq!(api.store.expire_files().await.unwrap(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_form_is_named_and_nothing_is_kept() {
    let api = start_with(|settings| settings.limits.max_file_bytes = 10).await;
    let purpose = ("purpose", None, &b"batch"[..]);
    let file = ("file", Some("x"), &b"{}"[..]);
    type Parts<'a> = Vec<(&'a str, Option<&'a str>, &'a [u8])>;
    let cases: Vec<(Parts, u16, &str, &str)> = vec![
        (vec![purpose], 400, "invalid_request", "file"),
        (vec![file], 400, "invalid_request", "purpose"),
        (vec![("purpose", None, b"fine-tune"), file], 400, "invalid_request", "purpose"),
        (vec![purpose, ("file", Some("x"), b"")], 400, "invalid_request", "file"),
        (vec![purpose, file, file], 400, "invalid_request", "file"),
        (vec![purpose, ("color", None, b"red"), file], 400, "invalid_request", "color"),
        (vec![purpose, ("file", Some("x"), b"12345678901")], 413, "too_large", "file"),
        (
            vec![purpose, ("expires_after[anchor]", None, b"created_at"), file],
            400,
            "invalid_request",
            "expires_after.seconds",
        ),
        (
            vec![purpose, ("expires_after[seconds]", None, b"3599"), file],
            400,
            "invalid_request",
            "expires_after.seconds",
        ),
    ];
    for (parts, status, code, param) in cases {
        api.post_form("/v1/files", &parts).await.refusal(status, code, Some(param));
    }
    let json = api.post_to("/v1/files", &json!({"purpose": "batch"})).await;
    json.refusal(415, "unsupported_media_type", None);
    // the limit itself is allowed
    upload(&api, &[purpose, ("file", Some("x"), b"1234567890")]).await;
    let kept: i64 =
        sqlx::query_scalar("select count(*) from files").fetch_one(api.store.pool()).await.unwrap();
    assert_eq!(kept, 1);
    api.get("/v1/files?purpose=other").await.refusal(400, "invalid_request", Some("purpose"));
    api.get("/v1/files?limit=0").await.refusal(400, "invalid_request", Some("limit"));
    api.get("/v1/files?sort=x").await.refusal(400, "invalid_request", None);
    api.get("/v1/files/nothing").await.refusal(404, "not_found", Some("id"));
    api.call("PUT", "/v1/files").await.refusal(405, "method_not_allowed", None);
    api.get("/v1/files/x/y/z").await.refusal(404, "not_found", None);
}

#[tokio::test]
async fn an_upload_that_falls_silent_leaves_nothing() {
    let api = start_with(|settings| settings.http.request_timeout_ms = 100).await;
    let whole = form(&[("purpose", None, b"batch"), ("file", Some("x"), &vec![b'x'; 600_000])]);
    let first = futures::stream::iter([Ok::<_, std::io::Error>(whole[..500_000].to_vec())]);
    let body = Body::from_stream(first.chain(futures::stream::pending()));
    let request = Request::post("/v1/files").header("content-type", "multipart/form-data; boundary=edge");
    let answer = api.send(request.body(body).unwrap()).await;
    answer.refusal(408, "request_timeout", None);
    tokio::time::sleep(Duration::from_millis(50)).await;
    for table in ["files", "file_parts"] {
        let count = format!("select count(*) from {table}");
        let kept: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(api.store.pool()).await.unwrap();
        assert_eq!(kept, 0, "{table}");
    }
}
