//! `adit serve` and `adit migrate`.

use anyhow::Result;

use super::args::{Global, ServeArguments, StorageArguments};
use super::exit::Exit;
use super::settings as overlay;
use crate::app::{Database, Server};

pub async fn run(global: &Global, args: &ServeArguments) -> Result<Exit> {
    let settings = overlay::resolve(global, args)?;
    if settings.models.is_empty() {
        eprintln!("no model is configured: jobs are accepted and wait (see `adit serve --help`, --model)");
    }
    let server = Server::start(settings).await?;
    // scripts wait for this line; the port is the real one even when 0 was asked for
    println!("adit listens on http://{}", server.address());
    server.run().await?;
    Ok(Exit::Done)
}

pub async fn migrate(global: &Global, args: &StorageArguments) -> Result<Exit> {
    let serve = ServeArguments { storage: args.clone(), ..ServeArguments::default() };
    let settings = overlay::resolve(global, &serve)?;
    let database = Database::open(&settings).await?;
    database.close().await;
    println!("the database's schema is up to date");
    Ok(Exit::Done)
}
