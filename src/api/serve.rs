//! From a listening socket to the router: one task per connection, bounded, each with a limit on its heads.
//!
//! `axum::serve` has no limit on the time a client takes for a request's head, so that a few hundred silent
//! connections could hold the service; therefore hyper's connections are driven here.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::routes::router;
use super::state::State;
use crate::config::settings::Http;
use crate::shutdown::Shutdown;

/// Pause after an accept that failed for want of something (file descriptors, memory).
const SHORTAGE: Duration = Duration::from_millis(500);

/// Serves until a stop is asked for; then nothing is accepted any more and it returns. Open requests finish
/// in tasks of their own, which [`Shutdown::finish`] waits for; idle connections are closed.
///
/// A connection that does not send a whole request head within `http.request_head_timeout_ms`, counted from
/// its opening or from its last answer, is closed.
pub async fn serve(listener: TcpListener, state: State) -> std::io::Result<()> {
    let http = state.settings.http.clone();
    let shutdown = state.shutdown.clone();
    let places = Arc::new(Semaphore::new(http.max_connections));
    let service = router(state);
    loop {
        // beyond the bound, clients wait in the kernel's backlog
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
            () = shutdown.requested() => return Ok(()),
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.requested() => return Ok(()),
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, service.clone(), http.clone(), shutdown.clone());
                shutdown.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            // the client has gone already
            Err(error) if is_of_the_client(error.kind()) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(SHORTAGE).await;
            }
        }
    }
}

fn is_of_the_client(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

async fn connection(stream: TcpStream, router: Router, http: Http, shutdown: Shutdown) {
    // events are small and must not wait for company
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let service =
        TowerToHyperService::new(router.map_request(|request: Request<Incoming>| request.map(Body::new)));
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(http.request_head_timeout_ms))
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = shutdown.requested_now() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
