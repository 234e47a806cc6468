//! HTTP/2 as gRPC speaks it, with an eye on the time: a connection that is not used is closed, and a
//! call whose caller neither sends nor reads is ended. While a caller does not read, no more than a
//! few KiB of its answer have been given to the connection; the rest waits in the call. A call counts until
//! the connection has written all of its answer: what a connection has, and nobody reads, is its caller's.

mod call;
mod part;
mod patient;

use std::{
    any::Any,
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use h2::{Reason, server};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tonic::{
    body::Body,
    codegen::{Service, http},
};
use tower::ServiceExt as _;

use self::{part::Part, patient::Patient};
use super::{limit::Caller, peer::Connection, refusals::Refusals, stopped};

/// Calls of one connection at a time; a client makes those above wait.
const STREAMS: u32 = 256;
/// What a connection may send before it is read, and each call on it: a little more than a request.
const WINDOW: u32 = 65_535;
/// What small parts of requests may cost that wait to be read, as h2 reckons: some 256 bytes for each,
/// and each call may have one or two.
const PARTS: usize = 128 << 10;
/// What of an answer waits in a connection for its client to read.
const BUFFER: usize = 64 << 10;
/// The longest list of headers.
const HEADERS: u32 = 16 << 10;

/// How long is waited for a caller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// To say that it speaks HTTP/2.
    pub handshake: Duration,
    /// To make a call, on a connection that has none.
    pub idle: Duration,
    /// To take bytes that the connection has for it, whichever call they are of.
    pub socket: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { handshake: seconds(5), idle: seconds(120), socket: seconds(30) }
    }
}

/// What an answer is sent on, among its extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Whose it is.
    pub caller: Caller,
    /// How long it may take to take any part of what it is to read.
    pub progress: Duration,
    /// How long it may take to take all of one message.
    pub message: Duration,
    /// How long it may take to take all of it.
    pub whole: Duration,
}

/// What is kept, among the extensions of an answer, until the connection has written the last byte of it.
#[derive(Clone)]
pub(super) struct Held {
    _until_dropped: Arc<dyn Any + Send + Sync>,
}

impl Held {
    pub(super) fn new(what: impl Any + Send + Sync) -> Self {
        Self { _until_dropped: Arc::new(what) }
    }
}

/// Among the extensions of an answer: its caller has been refused so often that it has to connect anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Close;

impl Terms {
    /// An answer to one request.
    pub(super) fn answer(caller: Caller) -> Self {
        let seconds = Duration::from_secs;
        Self { caller, progress: seconds(10), message: seconds(30), whole: seconds(30) }
    }

    /// One that goes on until somebody ends it.
    pub(super) fn stream(caller: Caller) -> Self {
        let minute = Duration::from_secs(60);
        Self { caller, progress: minute, message: minute, whole: Duration::MAX }
    }
}

/// What serves calls, and never fails.
pub(super) trait Serves: Clone + Send + 'static {
    /// Serves one.
    fn serve(
        self,
        request: http::Request<Body>,
    ) -> impl Future<Output = http::Response<Body>> + Send;
}

impl<S> Serves for S
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    async fn serve(self, request: http::Request<Body>) -> http::Response<Body> {
        let Ok(answer) = self.oneshot(request).await;
        answer
    }
}

/// The calls of one connection.
#[derive(Debug, Default)]
struct Calls {
    open: AtomicUsize,
    begun: AtomicU64,
    /// The connection is to be closed.
    close: Notify,
    /// The connection has written what it had.
    written: Notify,
}

/// Serves each connection until the agent is to stop, and then until the last call has ended.
pub(super) async fn serve(
    connections: impl Stream<Item = Connection>,
    service: impl Serves,
    times: Times,
    refusals: Refusals,
    stopping: watch::Receiver<bool>,
) {
    let (mut connections, mut stop) = (pin!(connections), pin!(stopped(stopping.clone())));
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            connection = connections.next() => match connection {
                Some(connection) => {
                    let served = Served { times, refusals: refusals.clone() };
                    open.spawn(served.run(connection, service.clone(), stopping.clone()));
                }
                None => break,
            },
            Some(_) = open.join_next() => {}
            () = &mut stop => break,
        }
    }
    while open.join_next().await.is_some() {}
}

/// What all connections are served with.
#[derive(Clone)]
struct Served {
    times: Times,
    refusals: Refusals,
}

impl Served {
    async fn run(
        self,
        connection: Connection,
        service: impl Serves,
        stopping: watch::Receiver<bool>,
    ) {
        let peer = connection.peer().clone();
        let calls = Arc::new(Calls::default());
        let io = Patient::new(connection, self.times.socket, calls.clone());
        let mut http2 = server::Builder::new();
        http2.max_concurrent_streams(STREAMS).max_header_list_size(HEADERS);
        http2.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        http2.max_send_buffer_size(BUFFER).data_frame_budget(PARTS);
        let shaken = timeout(self.times.handshake, http2.handshake::<_, Part>(io)).await;
        // A client that is slow or says nonsense is told by the end of its connection.
        let Ok(Ok(mut http2)) = shaken else { return };
        let mut stop = pin!(stopped(stopping));
        let mut look = interval(self.times.idle / 2);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut ending, mut begun) = (false, None);
        loop {
            tokio::select! {
                accepted = http2.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        calls.open.fetch_add(1, Ordering::Relaxed);
                        calls.begun.fetch_add(1, Ordering::Relaxed);
                        let call = call::Call::new(request, &peer, calls.clone(), &self.refusals);
                        tokio::spawn(call.run(respond, service.clone()));
                    }
                    Some(Err(_)) | None => return,
                },
                () = calls.close.notified() => http2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM),
                () = &mut stop, if !ending => {
                    http2.graceful_shutdown();
                    ending = true;
                }
                _ = look.tick() => {
                    let now = Some(calls.begun.load(Ordering::Relaxed));
                    if calls.open.load(Ordering::Relaxed) == 0 && now == begun {
                        // Whoever was asked to end it has had its time.
                        if ending {
                            return;
                        }
                        http2.graceful_shutdown();
                        ending = true;
                    }
                    begun = now;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
