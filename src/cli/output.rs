//! One JSON document on stdout, and the way to the server.

use anyhow::Result;
use serde::Serialize;

use super::args::Global;
use crate::client::Client;

pub fn print_json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

pub fn connect(global: &Global) -> Result<Client> {
    Ok(Client::new(&global.server)?)
}
