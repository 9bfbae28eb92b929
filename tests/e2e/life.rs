//! The life of the process's models, seen from outside: signals end it in order, and memory comes back.

use std::time::Duration;

use adit::domain::model::ModelState;
use tempfile::TempDir;

use crate::gate::{LONG, place, text};
use crate::server::Server;
use crate::support::tiny::{Arch, Tiny, tiny_model};

fn signal(server: &Server, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.child.id()).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

/// The code with which the process ends within `limit`.
async fn ends(server: &mut Server, limit: Duration) -> Option<i32> {
    let begun = std::time::Instant::now();
    loop {
        if let Some(status) = server.child.try_wait().unwrap() {
            return status.code();
        }
        assert!(begun.elapsed() < limit, "still there after {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_signal_unloads_everything_and_a_second_one_does_not_wait() {
    use nix::sys::signal::Signal;
    let dir = TempDir::new().unwrap();
    let quick = tiny_model(dir.path().join("quick"), Arch::Llama, 1);
    let mut orderly = place(dir, &[("quick", text(&quick))], "").await;
    orderly.client.wait("quick", LONG.as_secs_f64()).await.unwrap();
    signal(&orderly.server, Signal::SIGTERM);
    assert_eq!(ends(&mut orderly.server, LONG).await, Some(0));
    let replicas: i64 =
        sqlx::query_scalar("select count(*) from replicas").fetch_one(orderly.store.pool()).await.unwrap();
    assert_eq!(replicas, 0, "what the process said of its models went with it");

    // a load that hangs in the middle of a file is waited for, until the second signal
    let dir = TempDir::new().unwrap();
    let hanging = tiny_model(dir.path().join("hanging"), Arch::Llama, 2);
    let file = hanging.join("tokenizer.json");
    std::fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let models = [("hanging", text(&hanging))];
    let mut hurried = place(dir, &models, "[http]\nshutdown_grace_ms = 600000").await;
    hurried.state("hanging", ModelState::Loading).await;
    // opens when the load does, and then gives it nothing
    let _writer =
        tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(file).unwrap())
            .await
            .unwrap();
    signal(&hurried.server, Signal::SIGTERM);
    // it has heard the first one when it takes no more connections
    let begun = std::time::Instant::now();
    while hurried.client.ready().await.is_ok() {
        assert!(begun.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(hurried.server.child.try_wait().unwrap().is_none(), "the load was not waited for");
    signal(&hurried.server, Signal::SIGTERM);
    ends(&mut hurried.server, LONG).await;
}

/// Resident bytes of the served process.
fn resident_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Weights, KV pool and scratch are mapped and gone at once; of the tokenizer's and the grammars' small blocks the
/// allocator may keep some, which the next load uses again.
#[tokio::test]
async fn the_process_returns_a_models_memory_when_it_is_unloaded() {
    let dir = TempDir::new().unwrap();
    let quick = tiny_model(dir.path().join("quick"), Arch::Llama, 1);
    let checkpoint = Tiny::new(Arch::Llama, 2).width(512, 2048).layers(6);
    let weights = checkpoint.weight_bytes();
    assert!(weights > 70 << 20);
    let large = checkpoint.write(dir.path().join("large"));
    let mut place = place(
        dir,
        &[("quick", text(&quick))],
        &format!("[[models]]\nname = \"large\"\npath = \"{}\"\nload_at_start = false", text(&large)),
    )
    .await;
    place.client.wait("quick", LONG.as_secs_f64()).await.unwrap();
    let before = resident_bytes(&place.server);
    let mut kept = Vec::new();
    for _ in 0..4 {
        place.client.load("large").await.unwrap();
        let ready = place.client.wait("large", LONG.as_secs_f64()).await.unwrap();
        let grown = resident_bytes(&place.server) - before;
        let memory = ready.memory.unwrap();
        assert!(memory.in_use_bytes >= weights && memory.charged_to.is_none(), "{memory:?}");
        assert!(grown > weights * 9 / 10, "{grown} bytes more while {weights} bytes of weights are loaded");
        place.client.unload("large").await.unwrap();
        place.state("large", ModelState::NotLoaded).await;
        kept.push(resident_bytes(&place.server).saturating_sub(before));
        assert!(kept.iter().all(|kept| *kept < weights / 4), "of {weights} bytes were kept {kept:?}");
    }
    println!("weights {weights}, kept {kept:?}");
    place.server.kill();
}
