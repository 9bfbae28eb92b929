//! `adit submit --since`: a schema that has changed a little costs a little.

use std::collections::BTreeSet;

use adit::client::Client;
use adit::domain::fact::DataModel;
use adit::wire::difference::Difference;
use adit::wire::job::Job;
use adit::wire::result::ResultsQuery;
use serde::Deserialize;
use serde_json::Value;

use crate::server::{Server, folder};

#[derive(Deserialize)]
struct Watched {
    #[serde(flatten)]
    job: Job,
    difference: Option<Difference>,
}

fn watched(server: &Server, args: &[&str]) -> Watched {
    let submit = ["submit", "--task", "data_model", "--watch", "--json"];
    let output = server.adit(&[&submit, args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn model(server: &Server, job: &str) -> DataModel {
    serde_json::from_slice(&server.adit(&["results", job, "--format", "json"]).stdout).unwrap()
}

/// Items that ended in this process, of all models.
async fn ended_items(server: &Server) -> i64 {
    let text = reqwest::get(format!("{}/metrics", server.url)).await.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with("adit_items_ended_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as i64).sum()
}

async fn results(client: &Client, job: &Job) -> Vec<adit::wire::result::ItemResult> {
    let query = ResultsQuery { limit: Some(1_000), input: Some(true), ..ResultsQuery::default() };
    client.results(job.id, &query).await.unwrap().results
}

/// Tables that a result of the data model is about.
fn tables(output: &Value) -> BTreeSet<String> {
    let entries = output.as_object().unwrap().values().next().unwrap().as_array().unwrap();
    let fields = ["table", "from_table", "to_table", "source_table"];
    entries
        .iter()
        .flat_map(|entry| fields.iter().filter_map(|field| entry[*field].as_str().map(String::from)))
        .collect()
}

#[tokio::test]
async fn a_schema_that_changed_a_little_costs_a_little() {
    let (dir, weights) = folder();
    let server = Server::start(dir.path(), &weights);
    let client = server.client();
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/shop.sql");
    let first = watched(&server, &["--from", sample]);
    assert!(first.difference.is_none());
    let first = first.job;
    let first_id = first.id.to_string();
    let before = model(&server, &first_id);
    let ended_before = ended_items(&server).await;

    // a column more in one table, one table gone, one come
    let text = std::fs::read_to_string(sample).unwrap();
    let (kept, _) = text.split_once("CREATE TABLE audit_log").unwrap();
    let changed = kept.replace(
        "    method    text NOT NULL,\n",
        "    method    text NOT NULL,\n    currency  char(3) NOT NULL,\n",
    ) + "CREATE TABLE gift_cards (code text PRIMARY KEY, customer_id bigint NOT NULL REFERENCES customers (id));\n";
    assert_ne!(changed.len(), kept.len());
    let path = dir.path().join("changed.sql");
    std::fs::write(&path, changed).unwrap();
    let path = path.to_str().unwrap();
    let second = watched(&server, &["--from", path, "--since", &first_id]);
    let (second, difference) = (second.job, second.difference.unwrap());
    let second_id = second.id.to_string();

    // only what was needed ran
    assert_eq!((second.since, second.counts.succeeded), (Some(first.id), second.counts.total));
    let ran = second.counts.total - second.carried;
    assert_eq!(ended_items(&server).await - ended_before, ran);
    assert!(ran <= 5 && second.carried > 20, "{ran} ran, {} were carried", second.carried);
    let all = results(&client, &second).await;
    assert_eq!(all.iter().filter(|result| result.carried).count() as i64, second.carried);
    let fresh = all.iter().filter(|result| !result.carried);
    let spent: u64 = fresh.clone().map(|result| result.usage.prompt_tokens).sum();
    assert_eq!((second.usage.prompt_tokens, spent > 0), (spent, true));
    assert!(
        second.usage.prompt_tokens * 3 < first.usage.prompt_tokens,
        "{:?} {:?}",
        second.usage,
        first.usage
    );
    let touched: BTreeSet<String> =
        fresh.flat_map(|result| tables(result.output.as_ref().unwrap())).collect();
    let expected = ["customers", "gift_cards", "orders", "payments"].map(String::from);
    assert_eq!(
        touched,
        BTreeSet::from(expected),
        "the other ends of the two tables' keys are customers and orders"
    );
    let then = results(&client, &first).await;
    for copy in all.iter().filter(|result| result.carried) {
        let is_source = |result: &adit::wire::result::ItemResult| {
            (result.stage, result.usage, result.latency_ms, result.finished_at)
                == (copy.stage, copy.usage, copy.latency_ms, copy.finished_at)
        };
        assert!(then.iter().any(is_source), "{copy:?}");
    }

    // the model is whole, with the earlier facts in it
    let now = model(&server, &second_id);
    assert!(now.coverage.adds_up() && now.uncovered.is_empty(), "{:?}", now.uncovered);
    assert_eq!((now.coverage.tables, now.coverage.tables_covered), (16, 16));
    let of_others = |model: &DataModel| -> Vec<_> {
        let is_other = |table: &str| !["payments", "gift_cards", "audit_log"].contains(&table);
        model.attributes.iter().filter(|a| is_other(&a.source_table)).cloned().collect()
    };
    assert_eq!(of_others(&now), of_others(&before));

    // the difference is the change
    assert_eq!(difference.tables.changed, ["payments"]);
    assert_eq!(difference.tables.added, ["gift_cards"]);
    assert_eq!(difference.tables.removed, ["audit_log"]);
    assert_eq!(difference.counts.tables_unchanged, 14);
    let columns = |facts: &[adit::wire::difference::WholeFact]| -> Vec<String> {
        let attributes = facts.iter().filter(|fact| fact.key.kind.as_str() == "attribute");
        attributes.map(|fact| format!("{}.{}", fact.key.tables[0], fact.key.columns[0])).collect()
    };
    assert_eq!(
        columns(&difference.added),
        ["payments.currency", "gift_cards.code", "gift_cards.customer_id"]
    );
    assert_eq!(
        columns(&difference.removed),
        ["id", "happened_at", "actor", "table_name", "change"].map(|column| format!("audit_log.{column}"))
    );
    for fact in &difference.changed {
        let tables: Vec<&String> = fact.key.tables.iter().chain(&fact.key.to_table).collect();
        let is_near = |table: &&String| ["payments", "gift_cards", "audit_log"].contains(&table.as_str());
        assert!(tables.iter().any(is_near), "{fact:?}");
    }

    // nothing changed: it ends at once, and the export is the same to the byte
    let third = watched(&server, &["--from", path, "--since", &second_id]);
    assert_eq!((third.job.carried, third.job.usage.prompt_tokens), (third.job.counts.total, 0));
    assert_eq!(ended_items(&server).await - ended_before, ran);
    assert_eq!(model(&server, &third.job.id.to_string()).attributes, now.attributes);
    let none = third.difference.unwrap().counts;
    assert_eq!((none.facts_added, none.facts_removed, none.facts_changed), (0, 0, 0));

    // the earlier jobs may go, and the difference can be read again in every form
    assert!(server.adit(&["delete", &first_id]).status.success());
    let again: Difference =
        serde_json::from_slice(&server.adit(&["diff", &second_id, "--json"]).stdout).unwrap();
    assert_eq!(again, difference);
    let plain = String::from_utf8(server.adit(&["diff", &second_id]).stdout).unwrap();
    assert!(plain.contains("changed\ttable\tpayments\t") && plain.contains("payments.currency"), "{plain}");
    assert!(plain.lines().all(|line| line.split('\t').count() == 7), "{plain}");
    let table = String::from_utf8(server.adit(&["diff", &second_id, "--output", "table"]).stdout).unwrap();
    assert!(table.contains("14 unchanged, 1 changed, 1 added, 1 removed"), "{table}");
    let shown = String::from_utf8(server.adit(&["jobs", &second_id]).stdout).unwrap();
    assert!(shown.contains(&format!("since   {first_id}, {} items carried over", second.carried)), "{shown}");

    for (args, code, says) in [
        (vec!["--since", &first_id], 4, "no job"),
        (vec!["--since", &second_id, "--seed", "7"], 2, "generation.seed was the default and is 7"),
        (vec!["--since", "yesterday"], 2, "--since"),
    ] {
        let output = server.adit(&[&["submit", "--from", path], args.as_slice()].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(server.adit(&["diff", &first_id]).status.code(), Some(4));
}
