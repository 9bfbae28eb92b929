//! The connection: what is old is never shown as live, and a server that comes back is found again.

use tempfile::TempDir;

use crate::site::{Site, config, letters, texts};
use crate::support::tiny::{Arch, tiny_model};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_told_and_mended() {
    let dir = TempDir::new().unwrap();
    let base = tiny_model(dir.path().join("base"), Arch::Llama, 1);
    let config = config(&[("concept", &base, "")], "");
    let mut site = Site::start(dir, &config).await;
    let job = site.submit(texts("concept", letters(2))).await;
    site.ended(job).await;
    let page = site.open("/").await;
    page.until("document.getElementById('contact').innerText.includes('Live')").await;
    page.until(&format!("!!document.querySelector(\"[data-job='{job}'] [data-state=completed]\")")).await;
    assert_eq!(page.eval("document.getElementById('banner').hidden").await, true);
    page.eval("window.mark = 'here'").await;

    site.server.kill();
    let banner = page.text("#banner:not([hidden])").await;
    assert!(banner.contains("Connection lost") && banner.contains("What you see is from "), "{banner}");
    let has_time = page.eval("/is from \\d\\d:\\d\\d:\\d\\d/.test(document.getElementById('banner').innerText)").await;
    assert_eq!(has_time, true, "{banner}");
    let sign = page.text("#contact").await;
    assert!(sign.contains("Connection lost") && !sign.contains("Live"), "{sign}");
    assert_eq!(page.eval("document.documentElement.classList.contains('stale')").await, true);
    assert_eq!(page.eval("document.getElementById('alerts').textContent.includes('Connection lost')").await, true);
    // what was last known stays, but nothing can be done with it
    page.until(&format!("!!document.querySelector(\"[data-job='{job}']\")")).await;
    page.until("[...document.querySelectorAll('.card button')].every((button) => button.disabled)").await;
    page.picture("lost").await;

    site.restart(&config);
    page.until("document.getElementById('banner').hidden").await;
    page.until("document.getElementById('contact').innerText.includes('Live')").await;
    page.until("!document.documentElement.classList.contains('stale')").await;
    // and what comes now is seen
    let next = site.submit(texts("concept", letters(2))).await;
    page.until(&format!("!!document.querySelector(\"[data-job='{next}'] [data-state=completed]\")")).await;
    assert_eq!(page.eval("window.mark").await, "here", "the page was loaded again");
}
