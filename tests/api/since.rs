//! Jobs made from an earlier one: what is asked, what is carried over, what is refused, and the difference.

use adit::domain::catalog::Catalog;
use adit::domain::code::Code;
use adit::domain::fact::DataModel;
use adit::domain::id::{JobId, WorkerId};
use adit::domain::item::{ItemDraft, NewResult, Outcome};
use adit::domain::job::JobSpec;
use adit::domain::task::Stage;
use adit::domain::usage::Usage;
use adit::extract::pipeline::Finished as Ended;
use adit::extract::since;
use adit::store::advance::NextStage;
use adit::store::claim::ClaimRequest;
use adit::store::finish::{Finish, Finished, StageDone};
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::answers::answered;
use crate::harness::{Api, custom, start, start_on};
use crate::support::postgres::assert_invariants;

const BEFORE: &str = "
    create table customers (id int primary key, name text);
    create table orders (id int primary key, customer_id int references customers (id), placed_at timestamp);
    create table products (id int primary key, title text);
    create table order_items (order_id int references orders (id), product_id int references products (id));
    create table notes (id int primary key, body text);";
/// A column more in `products`, `notes` gone, `gifts` come.
const AFTER: &str = "
    create table customers (id int primary key, name text);
    create table orders (id int primary key, customer_id int references customers (id), placed_at timestamp);
    create table products (id int primary key, title text, price numeric);
    create table order_items (order_id int references orders (id), product_id int references products (id));
    create table gifts (id int primary key, order_id int references orders (id));";

fn request(text: &str, since: Option<&str>) -> Value {
    let mut request = json!({"task": "data_model", "source": {"format": "ddl", "text": text}});
    if let Some(since) = since {
        request["since"] = json!(since);
    }
    request
}

fn id_of(job: &Value) -> JobId {
    job["id"].as_str().unwrap().parse().unwrap()
}

/// Answers whatever waits, as workers do, until nothing does. What `fails` names ends without an answer.
async fn work(api: &Api, fails: impl Fn(&ItemDraft) -> bool) {
    let mut seed = 7;
    loop {
        let mut claims = Vec::new();
        for model in ["concept", "relationship", "attribute"] {
            let worker = WorkerId::new();
            let request = ClaimRequest {
                worker,
                model,
                budget: 1_000,
                lease_ms: 60_000,
                suspect_deaths: 3,
                besides: &[],
            };
            claims.extend(api.store.claim(&request).await.unwrap());
        }
        if claims.is_empty() {
            return;
        }
        for claim in claims {
            let (spec, catalog) = api.store.job_spec(claim.job).await.unwrap().unwrap();
            let catalog = catalog.unwrap();
            let items = api.store.claimed_items(std::slice::from_ref(&claim)).await.unwrap();
            let mut results = Vec::new();
            for item in items {
                let draft = ItemDraft { stage: claim.stage, input: item.input };
                let outcome = match fails(&draft) {
                    true => Outcome::Failed { code: Code::OutputTruncated, message: "planted".into() },
                    false => Outcome::Succeeded { output: answered(&spec, &catalog, &draft, &mut seed) },
                };
                let usage = Usage { prompt_tokens: 10, output_tokens: 5, ..Usage::default() };
                results.push(NewResult { seq: item.seq, outcome, usage, latency_ms: 7, confidence: None });
            }
            let finish = Finish { claim: &claim, results: &results, again: &[], again_after_ms: 0 };
            if let Finished::StageDone(done) = api.store.finish(&finish).await.unwrap() {
                advance(api, &spec, &catalog, done).await;
            }
            assert_invariants(&api.store).await;
        }
    }
}

async fn advance(api: &Api, spec: &JobSpec, catalog: &Catalog, mut done: StageDone) {
    loop {
        let rows = api.store.results(done.job, None, 1_000, None).await.unwrap().rows;
        let ended: Vec<Ended> = rows
            .into_iter()
            .map(|row| Ended {
                draft: ItemDraft { stage: row.stage, input: row.input },
                outcome: row.outcome,
            })
            .collect();
        let next = spec.task.stage_after(done.stage).unwrap();
        let kept = api.store.carried(done.job, next).await.unwrap();
        let items = since::next_stage(spec, catalog, done.stage, &ended, kept).unwrap().unwrap();
        match api.store.advance(done, NextStage::Items(items)).await.unwrap() {
            adit::store::advance::Advanced::Passed(after) => done = after,
            _ => return,
        }
    }
}

/// A job that has ended, of which everything succeeded.
async fn extracted(api: &Api, text: &str) -> String {
    let job = api.post(&request(text, None)).await.ok();
    work(api, |_| false).await;
    job["id"].as_str().unwrap().to_string()
}

async fn job(api: &Api, id: &str) -> Value {
    api.get(&format!("/v1/jobs/{id}")).await.ok()
}

async fn model(api: &Api, id: &str) -> DataModel {
    serde_json::from_value(api.get(&format!("/v1/jobs/{id}/export?format=json")).await.ok()).unwrap()
}

#[tokio::test]
async fn only_what_changed_is_asked_and_the_rest_is_there() {
    let api = start().await;
    let earlier = extracted(&api, BEFORE).await;
    let before = model(&api, &earlier).await;
    let answer = api.post(&request(AFTER, Some(&earlier))).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let now = answer.ok();
    let id = now["id"].as_str().unwrap().to_string();
    assert_eq!((&now["since"], &now["state"]), (&json!(earlier), &json!("queued")));
    // customers, orders and order_items are as they were; products and gifts are asked about together
    assert_eq!((&now["counts"]["waiting"], &now["stages"][0]["carried"]), (&json!(1), &now["carried"]));
    assert!(now["carried"].as_i64().unwrap() >= 1);
    assert_invariants(&api.store).await;
    let problem = api.get(&format!("/v1/jobs/{id}/difference")).await.problem(Code::InvalidState);
    assert!(problem["detail"].as_str().unwrap().contains("queued"), "{problem}");

    // all that the new job needs is its own from the beginning
    assert_eq!(api.call("DELETE", &format!("/v1/jobs/{earlier}")).await.status, StatusCode::NO_CONTENT);
    work(&api, |_| false).await;
    let ended = job(&api, &id).await;
    assert_eq!(
        (&ended["state"], &ended["counts"]["succeeded"]),
        (&json!("completed"), &ended["counts"]["total"])
    );
    // one group, the keys of the two, the columns of the two
    let ran = ended["counts"]["total"].as_i64().unwrap() - ended["carried"].as_i64().unwrap();
    assert_eq!((ran, &ended["usage"]["prompt_tokens"]), (4, &json!(40)));
    let results = api.get(&format!("/v1/jobs/{id}/results?limit=1000")).await.ok();
    let carried = results["results"].as_array().unwrap().iter().filter(|r| r["carried"] == true).count();
    assert_eq!(json!(carried), ended["carried"]);

    let after = model(&api, &id).await;
    assert!(after.coverage.adds_up() && after.uncovered.is_empty(), "{:?}", after.uncovered);
    assert_eq!((after.coverage.tables, after.coverage.columns), (5, 12));
    let untouched = |model: &DataModel| -> Vec<_> {
        let of =
            |a: &&adit::domain::fact::Attribute| ["customers", "orders"].contains(&a.source_table.as_str());
        model.attributes.iter().filter(of).cloned().collect()
    };
    assert_eq!(untouched(&after), untouched(&before));
    assert_eq!(job(&api, &id).await["since"], json!(earlier));
}

#[tokio::test]
async fn the_difference_lists_what_came_of_the_change() {
    let api = start().await;
    let earlier = extracted(&api, BEFORE).await;
    let id = api.post(&request(AFTER, Some(&earlier))).await.ok()["id"].as_str().unwrap().to_string();
    work(&api, |_| false).await;
    let path = format!("/v1/jobs/{id}/difference");
    let found = api.get(&path).await.ok();
    assert_eq!((&found["since"], &found["job"]), (&json!(earlier), &json!(id)));
    assert_eq!(found["tables"], json!({"changed": ["products"], "added": ["gifts"], "removed": ["notes"]}));
    assert_eq!(found["counts"]["tables_unchanged"], 3);
    let keys = |list: &str, kind: &str| -> Vec<String> {
        let facts = found[list].as_array().unwrap().iter().filter(|fact| fact["fact"] == kind);
        facts
            .map(|fact| {
                format!(
                    "{}.{}",
                    fact["tables"][0].as_str().unwrap(),
                    fact["columns"][0].as_str().unwrap_or("")
                )
            })
            .collect()
    };
    assert_eq!(keys("added", "attribute"), ["products.price", "gifts.id", "gifts.order_id"]);
    assert_eq!(keys("added", "relationship"), ["gifts.order_id"]);
    assert_eq!(keys("removed", "attribute"), ["notes.id", "notes.body"]);
    let changed = found["changed"].as_array().unwrap();
    let of_others = |fact: &&Value| {
        let tables = fact["tables"].as_array().unwrap().iter().chain(fact.get("to_table"));
        let names = ["products", "gifts", "notes", "order_items"];
        !tables.into_iter().any(|table| names.contains(&table.as_str().unwrap()))
    };
    assert!(changed.iter().filter(of_others).all(|fact| fact["fact"] == "concept"), "{changed:#?}");
    assert_eq!(
        found["removed"][0]["value"]["source_tables"].is_array(),
        found["removed"][0]["fact"] == "concept"
    );
    // as documented
    let document = api.get("/openapi.json").await.ok();
    let mut schema = document.clone();
    schema["$ref"] = "#/components/schemas/Difference".into();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&found).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert!(!validator.is_valid(&json!({"x": 1})));
    // it stays when the earlier job goes
    api.call("DELETE", &format!("/v1/jobs/{earlier}")).await;
    assert_eq!(api.get(&path).await.ok(), found);

    api.get(&format!("/v1/jobs/{earlier}/difference")).await.problem(Code::NotFound);
    let alone = api.custom_job(1).await;
    let problem = api.get(&format!("/v1/jobs/{alone}/difference")).await.problem(Code::InvalidState);
    assert!(problem["detail"].as_str().unwrap().contains("without since"), "{problem}");
}

#[tokio::test]
async fn without_a_change_the_job_has_ended_as_it_came() {
    let api = start().await;
    let earlier = extracted(&api, BEFORE).await;
    let answer = api.post(&request(BEFORE, Some(&earlier))).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let now = answer.ok();
    assert_eq!((&now["state"], &now["counts"]["total"]), (&json!("completed"), &now["carried"]));
    assert_eq!((&now["usage"]["prompt_tokens"], &now["waiting_for"]), (&json!(0), &json!([])));
    assert!(now.get("throughput").is_none() && now.get("started_at").is_none(), "{now}");
    assert_invariants(&api.store).await;
    let id = now["id"].as_str().unwrap();
    assert_eq!(model(&api, id).await, model(&api, &earlier).await);
    let found = api.get(&format!("/v1/jobs/{id}/difference")).await.ok();
    for list in ["added", "removed", "changed", "unanswered"] {
        assert_eq!(found[list], json!([]));
    }
    // as lines, and the same key answers the same job even when the earlier one is gone
    let tables = "\"a\"\n\"b\"\n";
    let first = api.post_lines("task=concept", tables, None).await.ok();
    work(&api, |_| false).await;
    let since = format!("task=concept&since={}", first["id"].as_str().unwrap());
    let now = api.post_lines(&since, tables, Some("k")).await.ok();
    assert_eq!((&now["state"], &now["carried"]), (&json!("completed"), &json!(1)));
    api.call("DELETE", &format!("/v1/jobs/{}", first["id"].as_str().unwrap())).await;
    let again = api.post_lines(&since, tables, Some("k")).await;
    assert_eq!((again.status, &again.ok()["id"]), (StatusCode::OK, &now["id"]));
    assert_invariants(&api.store).await;
}

#[tokio::test]
async fn what_failed_or_was_cancelled_is_asked_again() {
    let api = start().await;
    let first = api.post(&request(BEFORE, None)).await.ok();
    work(&api, |draft| draft.stage == Stage::Attribute && draft.input["table"] == 0).await;
    let now = api.post(&request(BEFORE, Some(first["id"].as_str().unwrap()))).await.ok();
    assert_eq!((&now["counts"]["waiting"], &now["stages"][2]["counts"]["waiting"]), (&json!(1), &json!(1)));
    work(&api, |_| false).await;
    let id = now["id"].as_str().unwrap();
    assert_eq!(job(&api, id).await["state"], "completed");
    assert!(model(&api, id).await.attributes.iter().all(|a| a.source == adit::domain::fact::Source::Model));

    // cancelled before anything was answered: there is nothing to take, and that is no error
    let second = api.post(&request(BEFORE, None)).await.ok();
    let second = second["id"].as_str().unwrap();
    api.call("POST", &format!("/v1/jobs/{second}/cancel")).await.ok();
    let now = api.post(&request(BEFORE, Some(second))).await.ok();
    assert_eq!((now.get("carried"), &now["counts"]["waiting"]), (None, &now["counts"]["total"]));
    assert_eq!(now["since"], second);
    assert_invariants(&api.store).await;
}

#[tokio::test]
async fn what_an_earlier_job_cannot_give_is_refused_by_name() {
    let api = start().await;
    let earlier = extracted(&api, BEFORE).await;
    let nobody = JobId::new().to_string();
    let problem = api.post(&request(AFTER, Some(&nobody))).await.problem(Code::NotFound);
    assert_eq!(problem["pointer"], "/since");
    let open = api.post(&request(BEFORE, None)).await.ok();
    let problem = api.post(&request(AFTER, open["id"].as_str())).await.problem(Code::InvalidState);
    assert_eq!(problem["pointer"], "/since");
    let texts = api.custom_job(1).await;
    api.call("POST", &format!("/v1/jobs/{texts}/cancel")).await.ok();
    for (change, pointer) in [
        (json!({"task": "concept"}), "/task"),
        (json!({"model": "attribute"}), "/model"),
        (json!({"generation": {"seed": 7}}), "/generation/seed"),
        (json!({"since": texts}), "/since"),
    ] {
        let mut request = request(AFTER, Some(&earlier));
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let problem = api.post(&request).await.problem(Code::IncompatibleJob);
        assert_eq!(problem["pointer"], pointer, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("job "), "{problem}");
    }
    // class and weight say when, not what
    let mut other = request(BEFORE, Some(&earlier));
    other.as_object_mut().unwrap().extend(json!({"class": "bulk", "weight": 7}).as_object().unwrap().clone());
    assert_eq!(api.post(&other).await.ok()["state"], "completed");

    let mut of_texts = custom(json!(["a"]));
    of_texts["since"] = json!(earlier);
    assert_eq!(api.post(&of_texts).await.problem(Code::InvalidRequest)["pointer"], "/since");
    let mut odd = request(AFTER, None);
    odd["since"] = json!("yesterday");
    api.post(&odd).await.problem(Code::InvalidRequest);
    let jobs = api.get("/v1/jobs").await.ok()["jobs"].as_array().unwrap().len();
    assert_eq!(jobs, 4, "what was refused left nothing");

    // another checkpoint under the same name
    let swapped = start_on(api.store.clone(), |settings| settings.models[2].path = "/other".into()).await;
    let problem = swapped.post(&request(AFTER, Some(&earlier))).await.problem(Code::IncompatibleJob);
    assert!(
        problem["detail"].as_str().unwrap().contains("attribute was /nonexistent/base and is /other"),
        "{problem}"
    );
    // a job of before such things were kept
    sqlx::query("update jobs set basis = null where id = $1")
        .bind(id_of(&json!({"id": earlier})).0)
        .execute(api.store.pool())
        .await
        .unwrap();
    api.post(&request(AFTER, Some(&earlier))).await.problem(Code::IncompatibleJob);
    assert_invariants(&api.store).await;
}

#[tokio::test]
async fn an_estimate_counts_only_what_would_run() {
    let api = start().await;
    let earlier = extracted(&api, BEFORE).await;
    let estimate = async |request: Value| api.post_to("/v1/jobs/estimate", &request).await;
    let nothing = estimate(request(BEFORE, Some(&earlier))).await.ok();
    assert_eq!((&nothing["items"], &nothing["stages"]), (&json!(0), &json!([])));
    let some = estimate(request(AFTER, Some(&earlier))).await.ok();
    let all = estimate(request(AFTER, None)).await.ok();
    assert_eq!(some["items"], 4);
    assert!(some["items"].as_u64() < all["items"].as_u64(), "{some} {all}");
    estimate(request(AFTER, Some(&JobId::new().to_string()))).await.problem(Code::NotFound);
}
