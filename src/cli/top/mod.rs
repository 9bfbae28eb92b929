//! `adit top`: models, queue and batches, live in the terminal.
//!
//! Everything shown comes from the API that anyone can read. Rates are differences between two looks. While the
//! server does not answer, the last picture stays, marked with its age.

mod draw;
mod look;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::FutureExt;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::args::{Global, TopArguments};
use super::exit::{Exit, Stop, seconds};
use super::output::{connect, print, print_json};
use look::{Look, View};

/// How long a key press may wait.
const PATIENCE_FOR_KEYS: Duration = Duration::from_millis(50);

pub async fn run(global: &Global, args: &TopArguments) -> Result<Exit> {
    let every = seconds("--every", args.every)?.max(Duration::from_millis(100));
    let client = connect(global)?;
    let first = Look::take(&client).await?;
    if global.is_json() {
        print_json(&first)?;
        return Ok(Exit::Done);
    }
    if args.once || !std::io::stdout().is_terminal() {
        print(draw::text(&View::new(first), global.style()))?;
        return Ok(Exit::Done);
    }
    let mut terminal = ratatui::try_init()?;
    let outcome = watch(&mut terminal, &client, &global.server, first, every).await;
    ratatui::restore();
    outcome
}

async fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    client: &crate::client::Client,
    server: &str,
    first: Look,
    every: Duration,
) -> Result<Exit> {
    let mut view = View::new(first);
    let mut looked = Instant::now();
    let mut next = std::pin::pin!(tokio::time::sleep(every).fuse());
    let mut looking: Option<futures::future::BoxFuture<'_, _>> = None;
    loop {
        terminal.draw(|frame| draw::screen(frame, &view, server, looked.elapsed().max(every) - every))?;
        tokio::select! {
            () = &mut next, if looking.is_none() => looking = Some(Look::take(client).boxed()),
            outcome = async { looking.as_mut().expect("checked").await }, if looking.is_some() => {
                looking = None;
                match outcome {
                    Ok(look) => {
                        view.follow(look);
                        looked = Instant::now();
                    }
                    Err(error) => view.complaint = Some(error.to_string()),
                }
                next.set(tokio::time::sleep(every).fuse());
            }
            () = tokio::time::sleep(PATIENCE_FOR_KEYS) => {}
        }
        while event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
            {
                let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
                if is_interrupt {
                    return Err(Stop::new(Exit::Failed, "interrupted").into());
                }
                if matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                    return Ok(Exit::Done);
                }
            }
        }
    }
}
