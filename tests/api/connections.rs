//! The service on a real socket: slow clients, many clients, and an orderly end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit::config::settings::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::{Api, start_with};

struct Service {
    api: Api,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Service {
    /// Ends by itself once it is asked to.
    async fn stop(self) {
        self.api.shutdown.request();
        let ended = tokio::time::timeout(Duration::from_secs(5), self.serving).await.expect("it ends");
        ended.unwrap().unwrap();
    }
}

async fn listen(change: impl FnOnce(&mut Settings)) -> (Service, SocketAddr) {
    let api = start_with(change).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = api.shutdown.spawn(adit::api::serve(listener, api.state.clone()));
    (Service { api, serving }, address)
}

async fn connect(address: SocketAddr, begin: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(begin.as_bytes()).await.unwrap();
    stream
}

/// Everything the server sends until it closes, and when that was.
async fn read(mut stream: TcpStream) -> (String, Duration) {
    let (began, mut text) = (Instant::now(), Vec::new());
    // a reset is an end as well
    let _ =
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut text)).await.expect("closed");
    (String::from_utf8(text).unwrap(), began.elapsed())
}

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_ends_its_request_head_is_cut_off_and_others_are_served() {
    let (service, address) = listen(|settings| {
        settings.http.request_head_timeout_ms = 1_500;
        // the slow ones take every other place
        settings.http.max_connections = 9;
    })
    .await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(tokio::spawn(read(connect(address, "GET /livez HTT").await)));
    }
    let (answer, took) = read(connect(address, LIVEZ).await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(took < Duration::from_millis(1_200), "served after {took:?}, when the slow ones had gone");
    for cut in slow {
        let (answer, after) = cut.await.unwrap();
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            after > Duration::from_millis(1_200) && after < Duration::from_secs(6),
            "cut after {after:?}"
        );
    }
    // whoever sends a letter now and then gains no time by it
    let mut trickle = connect(address, "GET /liv").await;
    let began = Instant::now();
    while trickle.write_all(b"x").await.is_ok() && began.elapsed() < Duration::from_secs(8) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(6), "a trickle held its connection");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_bound_of_connections_clients_wait() {
    let (service, address) = listen(|settings| {
        settings.http.request_head_timeout_ms = 600;
        settings.http.max_connections = 2;
    })
    .await;
    let idle = [connect(address, "").await, connect(address, "").await];
    let (answer, took) = read(connect(address, LIVEZ).await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(took > Duration::from_millis(300), "a third connection was served after {took:?}");
    drop(idle);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_an_open_request_end_and_closes_idle_connections() {
    let (service, address) = listen(|_| {}).await;
    let idle = connect(address, "").await;
    let head = "POST /v1/jobs?task=custom&schema=%7B%7D HTTP/1.1\r\nhost: x\r\n\
                content-type: application/x-ndjson\r\ncontent-length: 8\r\n\r\n\"a\"\n";
    let mut open = connect(address, head).await;
    // its first half has arrived when the submission holds its place
    tokio::time::sleep(Duration::from_millis(200)).await;
    service.api.shutdown.request();
    let (answer, took) = read(idle).await;
    assert!(answer.is_empty() && took < Duration::from_secs(2), "{took:?}: {answer}");
    open.write_all(b"\"b\"\n").await.unwrap();
    let (answer, _) = read(open).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    service.stop().await;
    assert!(TcpStream::connect(address).await.is_err(), "nothing listens any more");
}
