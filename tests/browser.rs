//! The dashboard as people use it: the real binary, a private Postgres, small random models, a headless Chromium.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

#[path = "browser/access.rs"]
mod access;
#[path = "browser/chrome.rs"]
mod chrome;
#[path = "browser/contact.rs"]
mod contact;
#[path = "browser/diagram.rs"]
mod diagram;
#[path = "browser/jobs.rs"]
mod jobs;
#[path = "browser/keys.rs"]
mod keys;
#[path = "browser/mermaid.rs"]
mod mermaid;
#[path = "browser/models.rs"]
mod models;
#[path = "browser/page.rs"]
mod page;
#[path = "e2e/server.rs"]
#[allow(dead_code)]
mod server;
#[path = "browser/site.rs"]
mod site;
