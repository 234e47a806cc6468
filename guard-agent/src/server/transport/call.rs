//! One call: its request in, its answer out, as fast as its caller takes it.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame};
use tokio::time::{Sleep, sleep, timeout};
use tonic::{Status, body::Body, codegen::http};

use super::{Calls, Close, Held, Part, Serves, Terms};
use crate::server::{
    peer::Peer,
    refusals::{Refusals, Refused},
};

/// How long a request may take to arrive. Whoever asks with a stream of them may take as long for
/// each.
const REQUEST: Duration = Duration::from_secs(10);

/// One that has come in.
pub(super) struct Call {
    request: http::Request<RecvStream>,
    peer: Peer,
    calls: Arc<Calls>,
    refusals: Refusals,
}

/// Why an answer was not sent to its end.
enum Ended {
    /// Nobody wants it any more.
    Gone,
    /// Nobody reads it.
    Unread,
}

impl Call {
    pub(super) fn new(
        request: http::Request<RecvStream>,
        peer: &Peer,
        calls: Arc<Calls>,
        refusals: &Refusals,
    ) -> Self {
        Self { request, peer: peer.clone(), calls, refusals: refusals.clone() }
    }

    pub(super) async fn run(self, mut respond: SendResponse<Part>, service: impl Serves) {
        let Self { request, peer, calls, refusals } = self;
        let _open = Open(calls.clone());
        let who = peer.clone();
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(peer);
        let body = Body::new(Request::new(body, REQUEST));
        let answer = tokio::select! {
            answer = service.serve(http::Request::from_parts(parts, body)) => answer,
            // Nobody waits for it.
            _ = poll_fn(|context| respond.poll_reset(context)) => return,
        };
        let (mut parts, body) = answer.into_parts();
        if parts.extensions.get::<Close>().is_some() {
            calls.close.notify_one();
            return;
        }
        let terms = parts.extensions.get().copied().unwrap_or(Terms::answer(None));
        let held = parts.extensions.remove::<Held>();
        let held = held.as_ref();
        let end = body.is_end_stream();
        let head = http::Response::from_parts(parts, ());
        let written = calls.written.notified();
        let Ok(mut stream) = respond.send_response(head, end) else { return };
        if end {
            // A head has nothing that the connection would drop with it. An error says that it takes long.
            let _ = timeout(terms.progress, written).await;
            return;
        }
        let sent = timeout(terms.whole, send(body, &mut stream, terms, held)).await;
        if let Ok(Err(Ended::Unread)) | Err(_) = sent {
            refusals.note(terms.caller, &who, Refused::Unread);
            stream.send_reset(Reason::ENHANCE_YOUR_CALM);
        }
    }
}

/// Counts a call until it is over.
struct Open(Arc<Calls>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends an answer. The next part of it is not even made before there is room for some of it.
async fn send(
    mut body: Body,
    stream: &mut SendStream<Part>,
    terms: Terms,
    held: Option<&Held>,
) -> Result<(), Ended> {
    loop {
        room(stream, 1, terms.progress).await?;
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = poll_fn(|context| stream.poll_reset(context)) => return Err(Ended::Gone),
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            None => {
                let end = Part::new(Bytes::new(), held);
                return stream.send_data(end, true).map_err(|_| Ended::Gone);
            }
        };
        match frame.into_data() {
            Ok(mut data) => {
                // A byte now and then is no progress.
                let message = sleep(terms.message);
                tokio::pin!(message);
                while !data.is_empty() {
                    // Room first: a timer that is set wakes a thread.
                    let room = tokio::select! {
                        biased;
                        room = room(stream, data.len(), terms.progress) => room?,
                        () = &mut message => return Err(Ended::Unread),
                    };
                    let part = Part::new(data.split_to(room.min(data.len())), held);
                    stream.send_data(part, false).map_err(|_| Ended::Gone)?;
                }
            }
            Err(frame) => {
                let Ok(trailers) = frame.into_trailers() else { continue };
                return stream.send_trailers(trailers).map_err(|_| Ended::Gone);
            }
        }
    }
}

/// Waits for room for some of so many bytes, and says for how many there is.
async fn room(
    stream: &mut SendStream<Part>,
    wanted: usize,
    patience: Duration,
) -> Result<usize, Ended> {
    stream.reserve_capacity(wanted);
    let room = poll_fn(|context| {
        loop {
            if stream.capacity() > 0 {
                return Poll::Ready(Ok(stream.capacity()));
            }
            match ready!(stream.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Ended::Gone)),
            }
        }
    });
    timeout(patience, room).await.unwrap_or(Err(Ended::Unread))
}

/// The body of a request, as it comes in.
pub(super) struct Request {
    stream: RecvStream,
    /// How long is waited for each part.
    patience: Duration,
    /// When it is too late for the next part, if that is waited for: most requests are there as they
    /// begin, and a timer that is set wakes a thread.
    late: Option<Pin<Box<Sleep>>>,
}

impl Request {
    pub(super) fn new(stream: RecvStream, patience: Duration) -> Self {
        Self { stream, patience, late: None }
    }
}

impl hyper::body::Body for Request {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { stream, patience, late } = &mut *self;
        let part = match stream.poll_data(context) {
            Poll::Ready(Some(Ok(data))) => {
                // What is read makes room for more. Of a stream that has ended there is none.
                let _ = stream.flow_control().release_capacity(data.len());
                Some(Ok(Frame::data(data)))
            }
            Poll::Ready(Some(Err(error))) => Some(Err(Status::from_error(error.into()))),
            Poll::Ready(None) => {
                let trailers = ready!(stream.poll_trailers(context));
                trailers.ok().flatten().map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Poll::Pending => {
                let late = late.get_or_insert_with(|| Box::pin(sleep(*patience)));
                ready!(late.as_mut().poll(context));
                Some(Err(Status::deadline_exceeded("the request did not arrive in time")))
            }
        };
        *late = None;
        Poll::Ready(part)
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}
