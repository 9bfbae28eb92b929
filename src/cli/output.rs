//! What goes to stdout, and the way to the server.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

use super::args::Global;
use crate::client::Client;

/// Prints to stdout. A reader that has gone away is an error, where `print!` would panic.
pub fn print(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

/// One JSON document.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(print(format_args!("{text}\n"))?)
}

/// Whether this is the complaint of a pipe whose reader has seen enough, as `head` does.
pub fn is_reader_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

pub fn connect(global: &Global) -> Result<Client> {
    Ok(Client::new(&global.server)?.with_key(global.key.as_deref()))
}
