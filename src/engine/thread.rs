//! The engine's thread.

use std::sync::{Arc, Mutex, mpsc};

use tokio::sync::watch;

use super::executor::Executor;
use super::handle::{Command, Options};
use super::stats::Stats;

pub(super) fn start(
    executor: Box<dyn Executor>,
    _options: Options,
    inbox: mpsc::Receiver<Command>,
    _stats: Arc<Mutex<Stats>>,
    ended: watch::Sender<()>,
) {
    let _ = std::thread::Builder::new().name("engine".into()).spawn(move || {
        let _ended = ended;
        let _executor = executor;
        while let Ok(command) = inbox.recv() {
            if matches!(command, Command::Close) {
                break;
            }
        }
    });
}
