//! Jobs: filters, one watched to its end, results, errors by code and their retry, cancelling.

use serde_json::json;
use tempfile::TempDir;

use crate::server::until;
use crate::site::{LONG, Site, config, letters, texts};
use crate::support::tiny::{Arch, tiny_model};

/// Some seconds of work.
const ITEMS: usize = 1500;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_watched_to_its_end() {
    let dir = TempDir::new().unwrap();
    let base = tiny_model(dir.path().join("base"), Arch::Llama, 1);
    let config = config(&[("concept", &base, "load_at_start = false")], "[http]\nstream_poll_ms = 100");
    let site = Site::start(dir, &config).await;
    let page = site.open("/").await;
    page.until("document.body.innerText.includes('No jobs yet')").await;
    page.eval("window.mark = 'here'").await;
    let job = site.submit(texts("concept", letters(ITEMS))).await;
    page.click(&format!("[data-job='{job}'] a.id")).await;
    page.until(&format!("location.pathname === '/jobs/{job}'")).await;
    assert_eq!(page.text("[data-progress]").await, "0 %");
    page.until("document.querySelector('.basis')?.textContent.includes(\"model 'concept' is not loaded\")")
        .await;
    site.client.load("concept").await.unwrap();
    // how far it has come, time and again, never back
    let mut seen: Vec<i64> = Vec::new();
    loop {
        let ended = page.until("document.querySelector('[data-progress]')?.dataset.progress ?? ''").await;
        seen.push(ended.as_str().unwrap().parse().unwrap());
        if page.eval("!!document.querySelector('.job-head [data-state=completed]')").await == true {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let all = i64::try_from(ITEMS).unwrap();
    assert!(seen.is_sorted() && seen.iter().any(|ended| (1..all).contains(ended)), "{seen:?}");
    page.until(&format!("document.querySelector('[data-progress]').dataset.progress === '{ITEMS}'")).await;
    assert_eq!(page.text("[data-progress]").await, "100 %");
    assert!(page.text(".eta").await.starts_with("completed in"));
    page.until("document.querySelectorAll('.sparkline').length === 2").await;
    let chart = page.eval("document.querySelector('.sparkline').getAttribute('aria-label')").await;
    assert!(chart.as_str().unwrap().starts_with("Items per second over"), "{chart}");

    // results: what was asked beside what was answered, and pages
    page.until("document.querySelectorAll('.results tbody tr').length === 25").await;
    page.click("[data-seq='1'] button").await;
    let detail = page.text("#detail-1").await;
    assert!(detail.contains("text 1") && detail.contains("\"kind\""), "{detail}");
    page.click("nav[aria-label='Pages of results'] a").await;
    page.until("!!document.querySelector('[data-seq=\"25\"]') && location.search.includes('after=24')").await;
    page.eval("history.back()").await;
    page.until("!!document.querySelector('[data-seq=\"0\"]') && location.search === ''").await;
    assert_eq!(page.eval("window.mark").await, "here", "the page was loaded again");
    site.assert_clean(&page);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_stand_in_the_address_and_a_job_is_cancelled() {
    let dir = TempDir::new().unwrap();
    let base = tiny_model(dir.path().join("base"), Arch::Llama, 1);
    let config = config(&[("concept", &base, ""), ("shut", &base, "load_at_start = false")], "");
    let site = Site::start(dir, &config).await;
    let done = site.submit(texts("concept", letters(2))).await;
    let open = site.submit(texts("shut", letters(2))).await;
    site.ended(done).await;
    let page = site.open("/?state=completed").await;
    page.until(&format!("!!document.querySelector(\"[data-job='{done}']\")")).await;
    assert_eq!(page.eval("document.querySelectorAll('[data-job]').length").await, 1);
    assert_eq!(page.eval("document.querySelector('[name=state]').value").await, "completed");
    // as the user chooses another one
    let choose = "(() => { const box = document.querySelector('[name=state]'); box.value = 'queued';
                   box.dispatchEvent(new Event('change', { bubbles: true })); })()";
    page.eval(choose).await;
    page.until(&format!("!!document.querySelector(\"[data-job='{open}']\")")).await;
    assert_eq!(page.eval("location.search").await, "?state=queued");
    page.eval("history.back()").await;
    page.until(&format!(
        "!!document.querySelector(\"[data-job='{done}']\") && location.search === '?state=completed'"
    ))
    .await;

    // the job that waits says why, here and on its own page, and can be ended
    page.go(&format!("{}/jobs/{open}", site.server.url)).await;
    let why = page.text(".why [data-reason=model_not_loaded]").await;
    assert!(why.contains("2 items wait for shut") && why.contains("not loaded"), "{why}");
    assert_eq!(page.text(".why button").await, "Load shut");
    page.click(".job-head .actions button").await;
    page.until("!!document.querySelector('dialog[open]')").await;
    page.press("Escape").await;
    page.until("!document.querySelector('dialog[open]')").await;
    assert_eq!(site.client.job(open).await.unwrap().counts.waiting, 2);
    page.click(".job-head .actions button").await;
    page.click("dialog[open] button.danger").await;
    page.until("!!document.querySelector('.job-head [data-state=cancelled]')").await;
    page.until("!document.querySelector('.why')").await;
    page.go(&format!("{}/jobs/0190aaaa-0000-7000-8000-000000000000", site.server.url)).await;
    page.until("document.querySelector('h1')?.innerText === 'No such job'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_items_are_grouped_by_code_and_retried_with_one_click() {
    let dir = TempDir::new().unwrap();
    let base = tiny_model(dir.path().join("base"), Arch::Llama, 1);
    let narrow = config(&[("concept", &base, "context_tokens = 512")], "");
    let wide = config(&[("concept", &base, "context_tokens = 4096")], "");
    let mut site = Site::start(dir, &narrow).await;
    // two of the texts are longer than the model's context
    let mut inputs = letters(6);
    inputs[2] = "much ado about nothing ".repeat(80);
    inputs[4] = inputs[2].clone();
    let job = site.submit(texts("concept", inputs)).await;
    let ended = site.ended(job).await;
    assert_eq!((ended.counts.succeeded, ended.counts.failed), (4, 2), "{ended:?}");

    let page = site.open(&format!("/jobs/{job}")).await;
    let row = page.text("[data-code=prompt_too_long]").await;
    assert!(row.contains("prompt_too_long") && row.contains("Item 2:") && row.contains('2'), "{row}");
    assert_eq!(page.eval("document.querySelectorAll('[data-code]').length").await, 1);
    page.click("[data-code=prompt_too_long] td a").await;
    page.until("location.search === '?outcome=failed' && document.querySelectorAll('.results tbody tr').length === 2").await;

    // the same again as long as nothing has changed, and one sees that it was tried
    page.click("[data-code=prompt_too_long] button").await;
    page.until("document.querySelector('.facts').innerText.includes('failed items sent back')").await;
    until(&site.client, job, LONG, |job| job.state.is_final() && job.retried_at.is_some()).await;
    page.until("!!document.querySelector('.job-head [data-state=completed]')").await;

    // with a model that takes longer texts they succeed
    site.restart(&wide);
    site.client.wait("concept", LONG.as_secs_f64()).await.unwrap();
    page.until("!document.documentElement.classList.contains('stale')").await;
    page.click("[data-code=prompt_too_long] button").await;
    page.until("!document.querySelector('[data-code]')").await;
    page.until("!!document.querySelector('.job-head [data-state=completed]')").await;
    let ended = site.ended(job).await;
    assert_eq!((ended.counts.succeeded, ended.counts.failed), (6, 0));
    assert_eq!(json!(page.text(".results-view .nothing").await), "No item has failed.");
}
