//! Lets in connections and calls, or refuses them, in one place for every method.

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    task,
    time::{Duration, Instant},
};

use futures_util::{Stream, stream};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body as _;
use tokio::{net::UnixStream, sync::watch};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Service, http},
};
use tower::Layer;

use super::{
    access::{self, Role},
    audit::Audit,
    error,
    limit::{Caller, Limit, Slot},
    peer::{Connection, Peer},
    refusals::{Refusals, Refused},
    revoked::Until,
    socket::{self, Door},
    transport::{Close, Held},
    work::{Place, Places, Size, Tokens},
};
use crate::config::Config;

/// A request has names and addresses in it: the longest that makes sense is far below.
pub(super) const MESSAGE: usize = 64 << 10;
/// Calls of one caller at a time, streams that are open included.
const CALLS: u32 = 512;
/// Connections of one caller.
const CONNECTIONS: u32 = 256;
/// Either of all together who have no role.
const STRANGERS: u32 = 16;
/// How long to wait where the kernel gives no connection, for want of descriptors most likely.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// The settings as they are now.
type Settings = watch::Receiver<Arc<Config>>;

/// What a caller is counted as.
fn caller(role: Role, peer: &Peer) -> Caller {
    peer.uid.filter(|_| role > Role::Anyone)
}

/// Accepts connections to a socket on which nobody has more than a role; those that are too many of one
/// caller are closed at once.
pub(super) fn connections(
    door: Door,
    most: Role,
    settings: Settings,
    refusals: Refusals,
) -> impl Stream<Item = Connection> {
    let limit = Limit::new(CONNECTIONS, STRANGERS);
    stream::unfold((door, settings, refusals, limit), move |mut state| async move {
        let (door, settings, refusals, limit) = &mut state;
        loop {
            let accepted = door.accept(|| socket::mode_for(&settings.borrow().access)).await;
            match accepted.map(|stream| let_in(stream, most, settings, refusals, limit)) {
                Ok(Some(connection)) => return Some((connection, state)),
                Ok(None) => {}
                Err(error) => {
                    refusals.not_accepted(&error);
                    tokio::time::sleep(OUT_OF_FILES).await;
                }
            }
        }
    })
}

fn let_in(
    stream: UnixStream,
    most: Role,
    settings: &Settings,
    refusals: &Refusals,
    limit: &Limit,
) -> Option<Connection> {
    let settings = settings.borrow().clone();
    let peer = Peer::of(&stream, most, &settings.access);
    let caller = caller(access::role(&settings.access, &peer), &peer);
    // Those that the kernel does not name here count as one.
    let Some(slot) = limit.take_for(caller, peer.pid.unwrap_or_default()) else {
        refusals.note(caller, &peer, Refused::Connections(limit.most(caller)));
        return None;
    };
    Some(Connection::new(stream, peer, slot))
}

/// Asks of every call whether its caller may, and counts it.
#[derive(Clone)]
pub(super) struct Admission {
    settings: Settings,
    limit: Limit,
    places: Places,
    tokens: Tokens,
    refusals: Refusals,
}

/// A call that may be made.
struct Admitted {
    caller: Caller,
    peer: Peer,
    size: Size,
    /// Its place among its caller's.
    slot: Slot,
    audit: Option<Audit>,
}

/// One that may not.
struct Rejected {
    caller: Caller,
    status: Status,
}

impl Admission {
    pub(super) fn new(settings: Settings, refusals: Refusals) -> Self {
        let limit = Limit::new(CALLS, STRANGERS);
        Self { settings, limit, places: Places::default(), tokens: Tokens::default(), refusals }
    }

    fn admit<B>(&self, request: &mut http::Request<B>) -> Result<Admitted, Box<Rejected>> {
        let path = request.uri().path();
        let peer = request.extensions().get::<Peer>();
        let peer = peer.expect("the transport puts it into every request").clone();
        let settings = self.settings.borrow().clone();
        let role = access::role(&settings.access, &peer);
        let caller = caller(role, &peer);
        let reject = |status| Box::new(Rejected { caller, status });
        let required = access::required(path);
        let required = required.ok_or_else(|| reject(error::method_unknown(path)))?;
        if role < required {
            self.refusals.note(caller, &peer, Refused::Role);
            let hint = access::hint(&settings.access, required, &peer);
            return Err(reject(error::role_required(path, required, peer.uid, hint)));
        }
        let slot = self.limit.take(caller).ok_or_else(|| {
            let most = self.limit.most(caller);
            self.refusals.note(caller, &peer, Refused::Calls(most));
            reject(error::too_many_calls(most))
        })?;
        let audit = Audit::of(path, access::changes(path), role, &peer);
        let size = Size::of(path);
        let on_behalf = access::caller(&settings.access, role, peer.uid);
        request.extensions_mut().insert(on_behalf);
        Ok(Admitted { caller, peer, size, slot, audit })
    }

    /// Whether there is a place for an answer of this size, once there is.
    async fn place(&self, admitted: &Admitted) -> Result<Place, Status> {
        let Admitted { caller, peer, size, .. } = admitted;
        let place = self.places.take(*caller, *size).await;
        if place.is_none() {
            self.refusals.note(*caller, peer, Refused::Work);
        }
        place.ok_or_else(error::too_much_work)
    }

    /// A stream that ends once its caller has the role no more.
    fn until_revoked(&self, body: Body, path: String, peer: Peer) -> Body {
        let Some(required) = access::required(&path) else { return body };
        let mut settings = self.settings.clone();
        let revoked = async move {
            let lacks = |config: &Arc<Config>| access::role(&config.access, &peer) < required;
            let lacks = settings.wait_for(lacks).await.is_ok();
            if !lacks {
                // The agent stops, and so does the stream.
                return std::future::pending().await;
            }
            let hint = access::hint(&settings.borrow().access, required, &peer);
            error::role_required(&path, required, peer.uid, hint)
        };
        Body::new(Until::new(body, revoked))
    }

    /// Says no, no faster than the caller may be refused.
    async fn reject(&self, rejected: Rejected) -> http::Response<Body> {
        let Rejected { caller, status } = rejected;
        let Some(wait) = self.tokens.take(caller, Instant::now()) else {
            let mut answer = status.into_http();
            answer.extensions_mut().insert(Close);
            return answer;
        };
        tokio::time::sleep(wait).await;
        status.into_http()
    }
}

impl<S> Layer<S> for Admission {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { admission: self.clone(), inner }
    }
}

/// A service with admission control.
#[derive(Clone)]
pub(super) struct Guarded<S> {
    admission: Admission,
    inner: S,
}

type Answer = Result<http::Response<Body>, Infallible>;

/// An answer of one message, made now, and how many bytes it has.
async fn whole(answer: http::Response<Body>) -> (http::Response<Body>, usize) {
    let (head, body) = answer.into_parts();
    if body.is_end_stream() {
        return (http::Response::from_parts(head, body), 0);
    }
    let made = match body.collect().await {
        Ok(made) => made,
        Err(status) => return (status.into_http(), 0),
    };
    let trailers = made.trailers().cloned();
    let bytes = made.to_bytes();
    let count = bytes.len();
    let body = Full::new(bytes).with_trailers(ready(trailers.map(Ok)));
    (http::Response::from_parts(head, Body::new(body)), count)
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(
        &mut self,
        context: &mut task::Context<'_>,
    ) -> task::Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let admission = self.admission.clone();
        // The one that has said that it is ready.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let admitted = match admission.admit(&mut request) {
                Ok(admitted) => admitted,
                Err(rejected) => return Ok(admission.reject(*rejected).await),
            };
            let mut place = match admission.place(&admitted).await {
                Ok(place) => place,
                Err(status) => return Ok(status.into_http()),
            };
            let Admitted { caller, peer, size, slot, mut audit } = admitted;
            let mut answer = inner.call(request).await?;
            let refused = Status::from_header_map(answer.headers()).map(|status| status.code());
            match (&mut audit, refused) {
                (Some(audit), Some(Code::Ok) | None) => audit.answered(answer.extensions()),
                (Some(audit), Some(_)) => audit.refused(),
                (None, _) => {}
            }
            match refused {
                // The transport's word for a message above the limit, and for nothing else here.
                Some(Code::OutOfRange) => answer = error::too_large(MESSAGE).into_http(),
                // Who lacks the role has not come so far.
                Some(Code::PermissionDenied) => {
                    admission.refusals.note(caller, &peer, Refused::NotYours);
                }
                _ => {}
            }
            if size == Size::Endless {
                answer = answer.map(|body| admission.until_revoked(body, path, peer));
            } else if size.is_one() {
                let bytes;
                (answer, bytes) = whole(answer).await;
                place.shrink(bytes);
            }
            answer.extensions_mut().insert(size.terms(caller));
            // A call lasts as long as its answer. A line of the log wakes a thread: the caller comes first.
            answer.extensions_mut().insert(Held::new((slot, place, audit)));
            Ok(answer)
        })
    }
}
