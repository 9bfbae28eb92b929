//! Signals that end the process: SIGINT and SIGTERM.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves with the next SIGINT or SIGTERM. Never resolves if the process may not listen to them.
pub async fn stop() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::warn!("signals cannot be listened to");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
