//! `adit serve` and `adit migrate`.

use anyhow::Result;
use serde_json::json;

use super::args::{Global, ServeArguments, StorageArguments};
use super::exit::Exit;
use super::output::{print, print_json};
use super::settings as overlay;
use crate::app::{Database, Server};

pub async fn run(global: &Global, args: &ServeArguments) -> Result<Exit> {
    let settings = overlay::resolve(global, args)?;
    if settings.models.is_empty() {
        eprintln!("no model is configured: jobs are accepted and wait (see `adit serve --help`, --model)");
    }
    let server = Server::start(settings).await?;
    // scripts wait for this line; the port is the real one even when 0 was asked for
    let address = format!("http://{}", server.address());
    if global.is_json() {
        print(format_args!("{}\n", json!({"listens": address})))?;
    } else {
        print(format_args!("adit listens on {address}\n"))?;
    }
    server.run().await?;
    Ok(Exit::Done)
}

pub async fn migrate(global: &Global, args: &StorageArguments) -> Result<Exit> {
    let serve = ServeArguments { storage: args.clone(), ..ServeArguments::default() };
    let settings = overlay::resolve(global, &serve)?;
    let database = Database::connect(&settings).await?;
    let migrations = database.migrate().await;
    database.close().await;
    let migrations = migrations?;
    if global.is_json() {
        print_json(&json!({"schema": "up to date", "migrations_run": migrations}))?;
    } else if migrations == 0 {
        print("the database's schema was up to date already\n")?;
    } else {
        print(format_args!("the database's schema is up to date; {migrations} migrations were run\n"))?;
    }
    Ok(Exit::Done)
}
