//! Keys with the real binary: no open door by accident, keys from the command line, and no secret in any log.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use adit::client::{Client, ClientError};
use adit::domain::code::Code;
use adit::wire::job::JobsQuery;
use serde_json::Value;

use crate::server::Server;

fn adit(dir: &Path, env: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    for name in ["DATABASE_URL", "CONCEPT_MODEL_PATH", "ADIT_KEY", "ADIT_SERVER", "ADIT_AUTH"] {
        command.env_remove(name);
    }
    command.env("ADIT_DATA_DIR", dir.join("data")).current_dir(dir).args(args);
    command.envs(env.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server that logs all there is into `log`.
fn serve(dir: &Path, log: &str, args: &[&str]) -> Server {
    let mut child = Command::new(env!("CARGO_BIN_EXE_adit"))
        .args(["serve", "--listen", "0.0.0.0:0"])
        .args(args)
        .current_dir(dir)
        .env_remove("DATABASE_URL")
        .env_remove("CONCEPT_MODEL_PATH")
        .env_remove("ADIT_AUTH")
        .env("ADIT_DATA_DIR", dir.join("data"))
        .env("ADIT_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(File::create(dir.join(log)).unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("adit listens on http://0.0.0.0").expect("the address");
    Server { child, url: format!("http://127.0.0.1{address}") }
}

async fn code(client: &Client) -> Option<Code> {
    match client.jobs(&JobsQuery::default()).await {
        Ok(_) => None,
        Err(ClientError::Problem(problem)) => Some(problem.code),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_to_the_network_has_a_lock() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let refused = adit(dir, &[], &["serve", "--listen", "0.0.0.0:0"]);
    let said = text(&refused.stderr);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{said}");
    assert!(said.contains("http.auth") && said.contains("adit keys create"), "{said}");
    assert!(said.contains("--insecure-no-auth"), "{said}");

    let doctor = adit(dir, &[("ADIT_LISTEN", "0.0.0.0:0")], &["doctor", "--json"]);
    assert!(text(&doctor.stdout).contains("there is no valid one"), "{doctor:?}");
    // a key that has expired opens nothing
    let brief = adit(dir, &[], &["keys", "create", "--name", "brief", "--expires", "1s"]);
    assert!(brief.status.success(), "{brief:?}");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(adit(dir, &[], &["serve", "--listen", "0.0.0.0:0"]).status.code(), Some(2));

    let open = serve(dir, "open.log", &["--insecure-no-auth"]);
    assert_eq!(code(&open.client()).await, None);
    open.terminate();
    assert!(std::fs::read_to_string(dir.join("open.log")).unwrap().contains("no API key is asked for"));

    let wrong = adit(dir, &[], &["keys", "create", "--name", "n", "--scopes", "everything"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let args = [
        "keys",
        "create",
        "--name",
        "ops",
        "--tenant",
        "acme",
        "--scopes",
        "submit,read,admin",
        "--expires",
        "90d",
    ];
    let made = adit(dir, &[], &args);
    assert!(made.status.success(), "{made:?}");
    let key = text(&made.stdout).trim().to_string();
    let secret = key[18..].to_string();
    assert!(key.starts_with("adit_") && key.len() == 61 && !text(&made.stderr).contains(&secret), "{made:?}");

    let server = serve(dir, "locked.log", &[]);
    let client = server.client();
    client.ready().await.unwrap();
    assert_eq!(code(&client).await, Some(Code::Unauthenticated));
    let holder = server.client().with_key(Some(&key));
    assert_eq!(code(&holder).await, None);
    assert!(!format!("{holder:?}").contains(&secret));

    // commands take the key from the environment or a flag, and say what is wrong without it
    let env = [("ADIT_SERVER", server.url.as_str()), ("ADIT_KEY", key.as_str())];
    let jobs = adit(dir, &env, &["jobs", "--json"]);
    assert!(jobs.status.success(), "{jobs:?}");
    let jobs = adit(dir, &env[..1], &["--key", &key, "jobs"]);
    assert!(jobs.status.success(), "{jobs:?}");
    let jobs = adit(dir, &env[..1], &["jobs"]);
    assert!(jobs.status.code() == Some(2) && text(&jobs.stderr).contains("Authorization"), "{jobs:?}");
    let help = adit(dir, &env, &["jobs", "--help"]);
    assert!(!text(&help.stdout).contains(&secret), "help shows the key");

    // beside the running server, on its private database
    let listed = adit(dir, &[], &["keys", "list", "--json", "--tenant", "acme"]);
    let keys: Value = serde_json::from_slice(&listed.stdout).unwrap_or_else(|e| panic!("{e}: {listed:?}"));
    assert_eq!((&keys["keys"][0]["name"], &keys["keys"][0]["state"]), (&"ops".into(), &"valid".into()));
    let plain = text(&adit(dir, &[], &["keys", "list"]).stdout);
    assert!(plain.contains("expired") && plain.contains("submit,read,admin"), "{plain}");
    assert_eq!(adit(dir, &[], &["keys", "revoke", "0123456789ab"]).status.code(), Some(4));
    let revoked = adit(dir, &[], &["keys", "revoke", &key[5..17]]);
    assert!(revoked.status.success(), "{revoked:?}");
    let since = Instant::now();
    while code(&holder).await.is_none() {
        assert!(since.elapsed() < Duration::from_secs(8), "a revoked key still opens");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.terminate();
    let log = std::fs::read_to_string(dir.join("locked.log")).unwrap();
    assert!(log.contains(&key[5..17]), "the log says whose request it was");
    for output in [&log, &text(&listed.stdout), &plain, &text(&revoked.stdout)] {
        assert!(!output.contains(&secret));
    }
}
