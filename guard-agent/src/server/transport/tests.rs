use std::{
    convert::Infallible,
    future::{Ready, poll_fn, ready},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream;
use h2::{RecvStream, client, client::SendRequest};
use http_body_util::{BodyExt as _, Full};
use tokio::{
    io::AsyncReadExt as _,
    net::UnixStream,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::*;
use crate::{
    metrics::Metrics,
    server::{limit::Limit, peer::Peer},
};

/// No machine is so slow that it takes longer.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

/// Answers each request with so many bytes, or not at all.
#[derive(Clone)]
struct Answering(Option<usize>, Arc<()>);

impl Answering {
    fn with(bytes: Option<usize>) -> Self {
        Self(bytes, Arc::new(()))
    }

    /// How many answers are held for.
    fn held(&self) -> usize {
        // Beside this one, that of the server and that of its connection.
        Arc::strong_count(&self.1).saturating_sub(3)
    }
}

impl Service<http::Request<Body>> for Answering {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = futures_util::future::Either<Ready<Result<Self::Response, Infallible>>, Never>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let Some(bytes) = self.0 else { return Self::Future::Right(std::future::pending()) };
        let mut answer = http::Response::new(Body::new(Full::new(Bytes::from(vec![7; bytes]))));
        let terms = Terms { progress: SHORT, message: SHORT * 4, ..Terms::answer(None) };
        answer.extensions_mut().insert(terms);
        answer.extensions_mut().insert(Held::new(self.1.clone()));
        answer.headers_mut().insert("grpc-status", http::HeaderValue::from_static("5"));
        Self::Future::Left(ready(Ok(answer)))
    }
}

type Never = std::future::Pending<Result<http::Response<Body>, Infallible>>;

/// A connection to a server that waits for nothing for long.
fn connect(service: Answering) -> UnixStream {
    connect_with(service, SHORT)
}

/// The same, but for how long a connection may be without a call.
fn connect_with(service: Answering, idle: Duration) -> UnixStream {
    let (here, there) = UnixStream::pair().unwrap();
    let slot = Limit::new(1, 1).take(None).unwrap();
    let connection = Connection::new(there, Peer::new(Some(7), &[]), slot);
    let times = Times { handshake: SHORT, idle, socket: SHORT };
    let refusals = Refusals::new(Arc::new(Metrics::new().unwrap()));
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        serve(stream::iter([connection]), service, times, refusals, stopping).await;
        drop(stop);
    });
    here
}

/// Speaks HTTP/2 on it. The task ends with the connection.
async fn speak(stream: UnixStream, window: u32) -> (SendRequest<Bytes>, JoinHandle<()>) {
    let mut http2 = client::Builder::new();
    http2.initial_window_size(window).initial_connection_window_size(1 << 24);
    let (sender, connection) = http2.handshake(stream).await.unwrap();
    let task = tokio::spawn(async move {
        // The server closes it as it likes.
        let _ = connection.await;
    });
    (sender.ready().await.unwrap(), task)
}

async fn ask(sender: &mut SendRequest<Bytes>) -> RecvStream {
    let request = http::Request::post("http://guard/method").body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    timeout(LONG, answer).await.unwrap().unwrap().into_body()
}

#[tokio::test]
async fn whoever_connects_and_says_nothing_is_let_go() {
    let mut silent = connect(Answering::with(None));
    let read = timeout(LONG, silent.read_to_end(&mut Vec::new())).await;
    read.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_without_a_call_is_closed_and_one_that_has_one_is_kept() {
    let (sender, idle) = speak(connect(Answering::with(None)), 1 << 20).await;
    timeout(LONG, idle).await.unwrap().unwrap();
    drop(sender);
    let (mut sender, kept) = speak(connect(Answering::with(None)), 1 << 20).await;
    let request = http::Request::post("http://guard/method").body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    sleep(SHORT * 5).await;
    assert!(!kept.is_finished());
    drop(answer);
    timeout(LONG, kept).await.unwrap().unwrap();
}

#[tokio::test]
async fn as_many_calls_as_a_connection_may_have_can_all_be_half_sent() {
    let (sender, connection) = speak(connect(Answering::with(None)), 1 << 20).await;
    let mut calls = Vec::new();
    for _ in 0..STREAMS {
        let mut sender = sender.clone().ready().await.unwrap();
        let request = http::Request::post("http://guard/method").body(()).unwrap();
        let (answer, mut body) = sender.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(&[0; 20]), false).unwrap();
        calls.push((answer, body));
    }
    sleep(SHORT).await;
    assert!(!connection.is_finished());
}

#[tokio::test]
async fn a_request_may_take_its_time_for_each_part_and_no_longer() {
    let (here, there) = UnixStream::pair().unwrap();
    let asked = tokio::spawn(async move {
        let (mut sender, _connection) = speak(here, 1 << 20).await;
        let request = http::Request::post("http://guard/method").body(()).unwrap();
        let (answer, mut body) = sender.send_request(request, false).unwrap();
        for _ in 0..4 {
            sleep(SHORT * 2).await;
            body.send_data(Bytes::from_static(b"part"), false).unwrap();
        }
        // What follows never comes.
        let _ = answer.await;
    });
    let mut http2 = server::handshake(there).await.unwrap();
    let (request, _respond) = http2.accept().await.unwrap().unwrap();
    let connection = tokio::spawn(async move { http2.accept().await.is_none() });
    let mut body = call::Request::new(request.into_body(), SHORT * 5);
    for _ in 0..4 {
        let part = timeout(LONG, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(part.into_data().unwrap(), "part");
    }
    let late = timeout(LONG, body.frame()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
    asked.abort();
    connection.abort();
}

#[tokio::test]
async fn what_a_connection_has_not_written_is_held() {
    for bytes in [Some(0), Some(100), Some(60_000)] {
        let service = Answering::with(bytes);
        let stream = connect_with(service.clone(), LONG);
        let mut http2 = client::Builder::new();
        http2.initial_window_size(1 << 30).initial_connection_window_size(1 << 30);
        http2.initial_max_send_streams(STREAMS as usize);
        let (mut sender, connection) = http2.handshake::<_, Bytes>(stream).await.unwrap();
        let mut connection = Box::pin(connection);
        // One is answered whole, and holds nothing then.
        let request = || http::Request::post("http://guard/method").body(()).unwrap();
        let answer = sender.send_request(request(), true).unwrap().0;
        let head = tokio::select! {
            head = answer => head.unwrap(),
            _ = &mut connection => panic!("it has ended"),
        };
        assert!(head.headers().contains_key("grpc-status"));
        drop(head);
        let began = Instant::now();
        while service.held() > 0 {
            assert!(began.elapsed() < LONG, "{bytes:?}");
            let _ = timeout(SHORT / 20, &mut connection).await;
        }
        // The others are sent, and nothing is read.
        let mut asked = Vec::new();
        for _ in 0..STREAMS - 2 {
            asked.push(sender.send_request(request(), true).unwrap().0);
        }
        let _ = poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx).is_ready())).await;
        sleep(SHORT / 2).await;
        if bytes == Some(60_000) {
            assert!(service.held() > STREAMS as usize / 2, "{}", service.held());
        }
        // The end of the connection is that of all that it has.
        drop((asked, sender, connection));
        let began = Instant::now();
        while service.held() > 0 {
            assert!(began.elapsed() < LONG, "{bytes:?}: {}", service.held());
            sleep(SHORT / 20).await;
        }
    }
}

#[tokio::test]
async fn a_byte_now_and_then_is_no_progress() {
    let stream = connect_with(Answering::with(Some(1 << 20)), LONG);
    let (mut sender, task) = speak(stream, 1024).await;
    let mut body = ask(&mut sender).await;
    let began = Instant::now();
    let ended = loop {
        match timeout(LONG, body.data()).await.unwrap().unwrap() {
            Ok(data) => {
                sleep(SHORT / 4).await;
                // Each part is small, so that the answer would take a minute.
                let _ = body.flow_control().release_capacity(data.len());
            }
            Err(error) => break error,
        }
    };
    assert_eq!(ended.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
    task.abort();
}

#[tokio::test]
async fn an_answer_that_is_read_comes_to_its_end() {
    let (mut sender, _task) = speak(connect(Answering::with(Some(1 << 20))), 1024).await;
    let mut body = ask(&mut sender).await;
    let mut read = 0;
    while let Some(data) = timeout(LONG, body.data()).await.unwrap() {
        let bytes = data.unwrap().len();
        read += bytes;
        body.flow_control().release_capacity(bytes).unwrap();
    }
    assert_eq!(read, 1 << 20);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_ended_and_says_why() {
    let stream = connect_with(Answering::with(Some(1 << 20)), LONG);
    let (mut sender, task) = speak(stream, 1024).await;
    let mut unread = ask(&mut sender).await;
    let ended = loop {
        if let Err(error) = timeout(LONG, unread.data()).await.unwrap().unwrap() {
            break error;
        }
    };
    assert_eq!(ended.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    // The others on its connection go on.
    let mut next = ask(&mut sender).await;
    assert!(timeout(LONG, next.data()).await.unwrap().unwrap().is_ok());
    task.abort();
}

#[tokio::test]
async fn a_connection_that_nobody_reads_is_closed() {
    let (here, probe) = {
        let here = connect(Answering::with(Some(16 << 20))).into_std().unwrap();
        let probe = UnixStream::from_std(here.try_clone().unwrap()).unwrap();
        (UnixStream::from_std(here).unwrap(), probe)
    };
    let mut http2 = client::Builder::new();
    http2.initial_window_size(1 << 24).initial_connection_window_size(1 << 24);
    let (mut sender, connection) = http2.handshake::<_, Bytes>(here).await.unwrap();
    let mut connection = Box::pin(connection);
    let request = http::Request::post("http://guard/method").body(()).unwrap();
    let (_answer, _) = sender.send_request(request, true).unwrap();
    // Just so much that the request goes out; from then on nothing is read.
    let _ = timeout(Duration::from_millis(20), poll_fn(|cx| connection.as_mut().poll(cx))).await;
    let began = Instant::now();
    while began.elapsed() < LONG {
        sleep(SHORT).await;
        // A write to one whose other end is closed fails.
        if let Err(error) = probe.try_write(&[0; 9])
            && error.kind() == std::io::ErrorKind::BrokenPipe
        {
            return;
        }
    }
    panic!("it is still open");
}
