//! Orderly end of the process: one token that says "stop taking work", one that says "stop at once", and
//! a tracker that knows every spawned task. Nothing else calls `tokio::spawn`.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Cloneable handle on the process's life.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns a task that [`Shutdown::finish`] waits for.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(future)
    }

    /// First request to stop: take no new work, finish what runs.
    pub fn request(&self) {
        self.soft.cancel();
    }

    /// Second request: drop what runs. Implies the first.
    pub fn request_now(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    pub fn is_requested(&self) -> bool {
        self.soft.is_cancelled()
    }

    pub async fn requested(&self) {
        self.soft.cancelled().await;
    }

    pub async fn requested_now(&self) {
        self.hard.cancelled().await;
    }

    /// A token that is cancelled with the first request, for APIs that want one.
    pub fn token(&self) -> CancellationToken {
        self.soft.child_token()
    }

    /// Waits until every tracked task has ended, a second request came, or `grace` is over.
    /// Returns whether all tasks ended.
    pub async fn finish(&self, grace: Duration) -> bool {
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => true,
            () = self.requested_now() => false,
            () = tokio::time::sleep(grace) => false,
        }
    }
}
