//! Model cards: a load is watched, a failure explained, a shared base counted once.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::site::{Site, config, letters, texts};
use crate::support::hub::HubStandIn;
use crate::support::tiny::{ALL_TARGETS, Arch, tiny_adapter, tiny_model};

/// What the pill of a model's card says, as a condition.
fn is(model: &str, state: &str) -> String {
    format!("!!document.querySelector('[data-model={model}] .pill[data-state={state}]')")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_watched_from_the_button_to_ready() {
    let dir = TempDir::new().unwrap();
    let files = tiny_model(dir.path().join("files"), Arch::Llama, 2);
    let hub = HubStandIn::start(&[("tiny/slow", files)], None);
    hub.hold();
    let more = format!("[hub]\nendpoint = \"{}\"", hub.endpoint);
    let config = config(&[("concept", Path::new("tiny/slow"), "load_at_start = false")], &more);
    let site = Site::start(dir, &config).await;
    let page = site.open("/").await;
    page.until(&is("concept", "not_loaded")).await;
    // gone if the page were loaded again
    page.eval("window.mark = 'here'").await;
    let job = site.submit(texts("concept", letters(3))).await;
    let waits = page.text(&format!("[data-job='{job}'] .waits")).await;
    assert!(waits.contains("is not loaded"), "{waits}");

    page.click("[data-model=concept] button.primary").await;
    page.until(&is("concept", "loading")).await;
    // some of the bytes have come, the rest is withheld
    page.until("/^download · .* of .*/.test(document.querySelector('[data-model=concept] .load .figure')?.innerText)").await;
    assert_eq!(page.text("[data-model=concept] [aria-current=step]").await, "download");
    let done = page.eval("document.querySelector('[role=progressbar]').getAttribute('aria-valuenow')").await;
    assert!((0..100).contains(&done.as_str().unwrap().parse::<i32>().unwrap()), "{done}");
    page.until(&format!(
        "document.querySelector(\"[data-job='{job}'] .waits\").innerText.includes('is loading')"
    ))
    .await;

    hub.release();
    page.until(&is("concept", "ready")).await;
    page.until("document.getElementById('changes').textContent.includes('Model concept is ready')").await;
    page.until(&format!("!!document.querySelector(\"[data-job='{job}'] [data-state=completed]\")")).await;

    page.click("[data-model=concept] [aria-label='Unload concept']").await;
    let question = page.text("dialog[open]").await;
    assert!(question.contains("Unload concept?") && question.contains("No item waits"), "{question}");
    page.click("dialog button.danger").await;
    page.until(&is("concept", "not_loaded")).await;
    assert_eq!(page.eval("window.mark").await, "here");
    site.assert_clean(&page);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_base_is_counted_once_and_a_failure_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    let base = tiny_model(dir.path().join("base"), Arch::Llama, 1);
    let broken = tiny_model(dir.path().join("broken"), Arch::Llama, 2);
    std::fs::rename(broken.join("model.safetensors"), dir.path().join("aside")).unwrap();
    let adapter = tiny_adapter(dir.path().join("adapter"), 3, ALL_TARGETS);
    let with_adapter = format!("adapter = \"{}\"", adapter.display());
    let models =
        [("concept", &*base, ""), ("relationship", &*base, &*with_adapter), ("attribute", &*broken, "")];
    let config = config(&models, "[loading]\nretry_first_ms = 600000");
    let site = Site::start(dir, &config).await;
    let page = site.open("/").await;
    page.until(&is("concept", "ready")).await;
    page.until(&is("relationship", "ready")).await;
    page.until(&is("attribute", "error")).await;

    let trouble = page.text("[data-model=attribute] .trouble").await;
    assert!(
        trouble.contains("model.safetensors") && trouble.contains("→") && trouble.contains("attempt 1"),
        "{trouble}"
    );
    assert!(trouble.contains("not tried again by itself"), "{trouble}");

    // both cards know whose the base is, and the total has it once
    page.until("document.querySelectorAll('.card.ready .shared').length === 2").await;
    let list: Value = serde_json::to_value(site.client.models().await.unwrap()).unwrap();
    let charged: Vec<&Value> =
        list["data"].as_array().unwrap().iter().map(|m| &m["memory"]["charged_to"]).collect();
    assert_eq!(charged.iter().filter(|to| to.is_string()).count(), 1, "{list}");
    let held: Vec<u64> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["memory"]["in_use_bytes"].as_u64())
        .collect();
    assert_eq!(held.len(), 2);
    let shown = page.eval("document.querySelector('[data-memory]').dataset.memory").await;
    assert_eq!(shown, json!(held.iter().sum::<u64>().to_string()));
    assert_eq!(list["memory"]["in_use_bytes"], held.iter().sum::<u64>());
    // one part of the bar for one base
    assert_eq!(page.eval("document.querySelectorAll('.device .bar .base').length").await, 1);
    let legend = page.text(".device .legend").await;
    assert!(
        legend.contains("concept + relationship") || legend.contains("relationship + concept"),
        "{legend}"
    );
    // every process that serves is shown
    page.until("document.querySelector('[data-model=concept]').innerText.includes('1 process')").await;
    page.picture("models").await;
    site.assert_clean(&page);
}
