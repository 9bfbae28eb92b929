//! Shell completions and the manual, made from the definition of the command line.

use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Arguments;
use super::exit::Exit;
use super::output::print;

pub fn completions(shell: Shell) -> Result<Exit> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "adit", &mut out);
    print(String::from_utf8_lossy(&out))?;
    Ok(Exit::Done)
}

/// The page of `adit` itself on stdout, or one page for each command in a folder.
pub fn pages(dir: Option<&Path>) -> Result<Exit> {
    let command = Arguments::command();
    match dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)
                .and_then(|()| clap_mangen::generate_to(command, dir))
                .with_context(|| dir.display().to_string())?;
        }
        None => {
            let mut out = Vec::new();
            clap_mangen::Man::new(command).render(&mut out)?;
            print(String::from_utf8_lossy(&out))?;
        }
    }
    Ok(Exit::Done)
}
