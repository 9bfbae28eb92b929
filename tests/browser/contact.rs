//! The connection: what is old is never shown as live, and a server that comes back is found again.

use std::os::unix::fs::PermissionsExt;

use adit::config::settings::Database;
use adit::store::embedded::PrivatePostgres;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
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
    let has_time =
        page.eval("/is from \\d\\d:\\d\\d:\\d\\d/.test(document.getElementById('banner').innerText)").await;
    assert_eq!(has_time, true, "{banner}");
    let sign = page.text("#contact").await;
    assert!(sign.contains("Connection lost") && !sign.contains("Live"), "{sign}");
    assert_eq!(page.eval("document.documentElement.classList.contains('stale')").await, true);
    assert_eq!(
        page.eval("document.getElementById('alerts').textContent.includes('Connection lost')").await,
        true
    );
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

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_told_and_models_go_on() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    // the database's user must get in when the tests run as root
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut postgres = PrivatePostgres::start(folder.path(), &Database::default()).unwrap();
    let url = format!("postgres://adit@localhost/postgres?host={}/postgres/run", folder.path().display());
    let dir = TempDir::new().unwrap();
    let base = tiny_model(dir.path().join("base"), Arch::Llama, 1);
    let config = config(&[("concept", &base, "")], "");
    let site = Site::start_with(dir, &config, &[("DATABASE_URL", url.as_ref())]).await;
    let job = site.submit(texts("concept", letters(2))).await;
    site.ended(job).await;
    let page = site.open("/").await;
    page.until(&format!("!!document.querySelector(\"[data-job='{job}'] [data-state=completed]\")")).await;
    page.until("document.getElementById('contact').innerText.includes('Live')").await;

    kill(Pid::from_raw(postgres.pid()), Signal::SIGQUIT).unwrap();
    page.until("document.getElementById('contact').innerText.includes('Database away')").await;
    let banner = page.text("#banner:not([hidden])").await;
    assert!(banner.contains("The database does not answer") && banner.contains("is from "), "{banner}");
    page.until("document.querySelector('[data-model=concept]').innerText.includes('the database is away')")
        .await;
    assert_eq!(
        page.eval("!!document.querySelector('[data-model=concept] .pill[data-state=ready]')").await,
        true
    );

    assert!(postgres.revive().unwrap());
    page.until("document.getElementById('banner').hidden").await;
    page.until("document.getElementById('contact').innerText.includes('Live')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_noticed() {
    let dir = TempDir::new().unwrap();
    let base = tiny_model(dir.path().join("base"), Arch::Llama, 1);
    let config = config(&[("concept", &base, "")], "[http]\nheartbeat_ms = 1000");
    let site = Site::start(dir, &config).await;
    let page = site.open("/").await;
    page.until("!!document.querySelector('.card.ready') && document.getElementById('contact').innerText.includes('Live')").await;
    // signs of life keep the time of what is shown up to date although nothing happens
    let sign = json!(page.text("#contact").await);
    page.until(&format!("document.getElementById('contact').innerText !== {sign}")).await;
    assert_eq!(page.eval("document.getElementById('banner').hidden").await, true);

    // the connection stays open, and nothing comes
    let server = Pid::from_raw(i32::try_from(site.server.child.id()).unwrap());
    kill(server, Signal::SIGSTOP).unwrap();
    let banner = page.text("#banner:not([hidden])").await;
    assert!(banner.contains("the server has fallen silent"), "{banner}");
    kill(server, Signal::SIGCONT).unwrap();
    page.until("document.getElementById('banner').hidden").await;
    page.until("document.getElementById('contact').innerText.includes('Live')").await;
}
