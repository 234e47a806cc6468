//! A stream that somebody may follow as long as nothing else is decided.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tonic::{Status, body::Body, codegen::http::HeaderMap};

/// A body that ends with a status once that is decided.
pub(super) struct Until {
    /// Nothing once it has ended.
    body: Option<Body>,
    decided: Pin<Box<dyn Future<Output = Status> + Send>>,
}

impl Until {
    pub(super) fn new(body: Body, decided: impl Future<Output = Status> + Send + 'static) -> Self {
        Self { body: Some(body), decided: Box::pin(decided) }
    }
}

impl hyper::body::Body for Until {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, decided } = &mut *self;
        let Some(open) = body else { return Poll::Ready(None) };
        if let Poll::Ready(status) = decided.as_mut().poll(context) {
            *body = None;
            let mut trailers = HeaderMap::new();
            let written = status.add_header(&mut trailers);
            return Poll::Ready(Some(written.map(|()| Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(open).poll_frame(context));
        if frame.is_none() {
            *body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}
