//! Connections: so many at a time, and each so long and with so much in it.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus::IntCounter;
use tokio::{sync::Semaphore, time::timeout};

/// Connections at a time, far fewer than the process has descriptors: the API keeps the rest.
const CONNECTIONS: usize = 128;
/// How long a request may take to arrive.
const HEADER: Duration = Duration::from_secs(5);
/// How long a connection lasts: for one request and its answer, of which the slowest waits for a
/// ledger that does not answer.
const CONNECTION: Duration = Duration::from_secs(15);
/// How much a request may say, in bytes.
const REQUEST: usize = 16 << 10;

/// Serves until `stopped` ends. A connection that is too much is closed at once, and counted.
pub(super) async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    refused: IntCounter,
    stopped: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER);
    http.max_buf_size(REQUEST).keep_alive(false);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut stopped = pin!(stopped);
    loop {
        let stream = tokio::select! {
            (stream, _) = listener.accept() => stream,
            () = &mut stopped => return,
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            refused.inc();
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // A client that is slow or says nonsense is told by the end of its connection.
            let _ = timeout(CONNECTION, connection).await;
            drop(place);
        });
    }
}
