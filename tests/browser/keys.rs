//! The dashboard where keys are asked for: it says so, takes one, and lets go of it.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::site::{Site, config};
use crate::support::tiny::{Arch, tiny_model};

fn make_key(dir: &Path, scopes: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    let command = command.current_dir(dir).env_remove("DATABASE_URL").env("ADIT_DATA_DIR", dir.join("data"));
    let made = command.args(["keys", "create", "--name", "browser", "--scopes", scopes]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap().trim().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_asks_for_a_key_and_keeps_it_to_itself() {
    let dir = TempDir::new().unwrap();
    let base = tiny_model(dir.path().join("base"), Arch::Llama, 1);
    let key = make_key(dir.path(), "read");
    let site = Site::start(dir, &config(&[("concept", &base, "")], "[http]\nauth = \"required\"")).await;
    let page = site.open("/").await;
    let asks = page.text("#sign-in:not([hidden])").await;
    assert!(asks.contains("needs an API key"), "{asks}");

    let enter = |text: &str| {
        format!(
            "document.getElementById('key').value = '{text}'; document.getElementById('sign-in').requestSubmit(); 1"
        )
    };
    page.eval(&enter("adit_wrong")).await;
    page.until("document.getElementById('sign-in-reason').innerText.includes('was refused')").await;
    page.eval(&enter(&key)).await;
    page.until("document.getElementById('contact').innerText.includes('Live')").await;
    page.until("document.getElementById('sign-in').hidden && !!document.querySelector('.card')").await;
    // of this tab alone, and in no address
    assert_eq!(page.eval("sessionStorage.getItem('adit-key')").await, key.as_str());
    assert_eq!(page.eval("localStorage.length + document.cookie.length").await, 0);
    assert!(page.requests().iter().all(|url| !url.contains(&key[18..])));
    page.picture("signed_in").await;

    page.eval("document.getElementById('sign-out').click(); 1").await;
    page.until(
        "sessionStorage.getItem('adit-key') === null && document.getElementById('sign-in')?.hidden === false",
    )
    .await;
}
