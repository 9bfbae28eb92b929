//! The private cluster: durable by default, found again after a crash, one adit at a time.

use adit::config::settings::Database;
use adit::store::Store;
use adit::store::embedded::{EmbeddedError, PrivatePostgres};
use sqlx::Executor;

use crate::postgres::settings;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_survives_the_crash_of_its_server_and_refuses_a_second_adit() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let durable = Database { fsync: true, ..settings() };
    let first = PrivatePostgres::start(folder.path(), &durable).unwrap();
    let store = Store::connect(&first.address(), &durable, 1).await.unwrap();
    store.migrate().await.unwrap();
    let kept: (String, String) =
        sqlx::query_as("select current_setting('fsync'), current_setting('listen_addresses')")
            .fetch_one(store.pool())
            .await
            .unwrap();
    assert_eq!(kept, ("on".into(), String::new()));
    store.pool().execute("create table kept as select 1 as one").await.unwrap();
    assert!(matches!(PrivatePostgres::start(folder.path(), &durable), Err(EmbeddedError::InUse { .. })));
    let killed = nix::unistd::Pid::from_raw(first.pid());
    nix::sys::signal::kill(killed, nix::sys::signal::Signal::SIGKILL).unwrap();
    drop(first);
    let mut second = PrivatePostgres::start(folder.path(), &durable).unwrap();
    let store = Store::connect(&second.address(), &durable, 1).await.unwrap();
    store.migrate().await.unwrap();
    let one: i32 = sqlx::query_scalar("select one from kept").fetch_one(store.pool()).await.unwrap();
    assert_eq!(one, 1);
    // and when its server goes while adit lives, adit starts it again under the same address
    let killed = nix::unistd::Pid::from_raw(second.pid());
    assert!(!second.revive().unwrap());
    nix::sys::signal::kill(killed, nix::sys::signal::Signal::SIGKILL).unwrap();
    let began = std::time::Instant::now();
    // the first tries may find the killed server's children on their way out
    while !matches!(second.revive(), Ok(true)) {
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "not started again");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let one: i32 = sqlx::query_scalar("select one from kept").fetch_one(store.pool()).await.unwrap();
    assert_eq!(one, 1);
    store.close().await;
    second.stop();
}

#[test]
fn missing_binaries_name_the_package_and_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Database { postgres_bin_dir: Some(folder.path().into()), ..settings() };
    let error = PrivatePostgres::start(folder.path(), &settings).unwrap_err().to_string();
    assert!(error.contains("postgresql") && error.contains("DATABASE_URL"), "{error}");
}
