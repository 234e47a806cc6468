//! Lets in connections and calls, or refuses them, in one place for every method.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc, task, time::Duration};

use futures_util::{Stream, StreamExt as _};
use http_body_util::BodyExt as _;
use tokio::{net::UnixListener, sync::watch};
use tokio_stream::wrappers::UnixListenerStream;
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
};
use crate::config::Config;

/// A request has names and addresses in it: the longest that makes sense is far below.
pub const MESSAGE: usize = 64 << 10;
/// Calls of one connection at a time; a client makes those above wait.
pub const STREAMS: u32 = 256;
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
pub fn connections(
    listener: UnixListener,
    most: Role,
    settings: Settings,
    refusals: Refusals,
) -> impl Stream<Item = std::io::Result<Connection>> {
    let limit = Limit::new(CONNECTIONS, STRANGERS);
    UnixListenerStream::new(listener).filter_map(move |accepted| {
        let admitted = accepted.map(|stream| {
            let settings = settings.borrow().clone();
            let peer = Peer::of(&stream, most, &settings.access);
            let caller = caller(access::role(&settings.access, &peer), &peer);
            let Some(slot) = limit.take(caller) else {
                refusals.note(caller, &peer, Refused::Connections(limit.most(caller)));
                return None;
            };
            Some(Connection::new(stream, peer, slot))
        });
        if let Err(error) = &admitted {
            refusals.not_accepted(error);
        }
        async move {
            if admitted.is_err() {
                tokio::time::sleep(OUT_OF_FILES).await;
            }
            admitted.transpose()
        }
    })
}

/// Asks of every call whether its caller may, and counts it.
#[derive(Clone)]
pub struct Admission {
    settings: Settings,
    limit: Limit,
    refusals: Refusals,
}

impl Admission {
    pub fn new(settings: Settings, refusals: Refusals) -> Self {
        Self { settings, limit: Limit::new(CALLS, STRANGERS), refusals }
    }

    fn admit<B>(&self, request: &mut http::Request<B>) -> Result<Admitted, Status> {
        let path = request.uri().path();
        let required = access::required(path).ok_or_else(|| error::method_unknown(path))?;
        let peer = request.extensions().get::<Peer>();
        let peer = peer.expect("the transport puts it into every request").clone();
        let settings = self.settings.borrow().clone();
        let role = access::role(&settings.access, &peer);
        let caller = caller(role, &peer);
        if role < required {
            self.refusals.note(caller, &peer, Refused::Role);
            let hint = access::hint(&settings.access, required, &peer);
            return Err(error::role_required(path, required, peer.uid, hint));
        }
        let slot = self.limit.take(caller).ok_or_else(|| {
            let most = self.limit.most(caller);
            self.refusals.note(caller, &peer, Refused::Calls(most));
            error::too_many_calls(most)
        })?;
        let audit = Audit::of(path, access::changes(path), role, &peer);
        let on_behalf = access::caller(&settings.access, role, peer.uid);
        request.extensions_mut().insert(on_behalf);
        Ok(Admitted { slot, audit, caller, peer })
    }
}

/// A call that was let in.
struct Admitted {
    /// Its place among its caller's.
    slot: Slot,
    audit: Option<Audit>,
    caller: Caller,
    peer: Peer,
}

impl<S> Layer<S> for Admission {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { admission: self.clone(), inner }
    }
}

/// A service with admission control.
#[derive(Clone)]
pub struct Guarded<S> {
    admission: Admission,
    inner: S,
}

type Answer = Result<http::Response<Body>, Infallible>;

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
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
        let admitted = match self.admission.admit(&mut request) {
            Ok(admitted) => admitted,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        let answer = self.inner.call(request);
        let refusals = self.admission.refusals.clone();
        Box::pin(async move {
            let Admitted { slot, audit, caller, peer } = admitted;
            let answer = answer.await?;
            let refused = Status::from_header_map(answer.headers()).map(|status| status.code());
            match (audit, refused) {
                (Some(audit), Some(Code::Ok) | None) => audit.answered(answer.extensions()),
                (Some(audit), Some(_)) => audit.refused(),
                (None, _) => {}
            }
            match refused {
                // The transport's word for a message above the limit, and for nothing else here.
                Some(Code::OutOfRange) => return Ok(error::too_large(MESSAGE).into_http()),
                // Who lacks the role has not come so far.
                Some(Code::PermissionDenied) => refusals.note(caller, &peer, Refused::NotYours),
                _ => {}
            }
            Ok(answer.map(|body| {
                // A call lasts as long as its answer.
                Body::new(body.map_frame(move |frame| {
                    let _counted = &slot;
                    frame
                }))
            }))
        })
    }
}
