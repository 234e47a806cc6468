//! The audit: a line of the log for each change that an administrator makes. Those for what is refused
//! are in [`super::refusals`].

use http::Extensions;
use tonic::{Response, codegen::http};

use super::{access::Role, peer::Peer};

/// The target of its lines, by which they can be told from all others.
pub(crate) const TARGET: &str = "audit";

/// What a call has changed, in a response's extensions; `None`: nothing. Without it, all that is known is
/// which method it was.
#[derive(Clone, Debug)]
struct Changed(Option<String>);

/// A response to a call that has changed this, or nothing.
pub(super) fn changed<T>(message: T, what: Option<String>) -> Response<T> {
    with(message, Changed(what))
}

/// A response to a call that has changed something, or has not: it was a dry run, or there was nothing to
/// change.
pub(super) fn unless<T>(nothing: bool, message: T) -> Response<T> {
    if nothing { with(message, Changed(None)) } else { Response::new(message) }
}

fn with<T>(message: T, changed: Changed) -> Response<T> {
    let mut response = Response::new(message);
    response.extensions_mut().insert(changed);
    response
}

/// A call of an administrator that changes something. Its line is written when it ends, after its answer:
/// also where its caller does not wait, since the change is made all the same.
pub(super) struct Audit {
    method: String,
    peer: Peer,
    end: End,
}

/// How a call has ended.
enum End {
    /// It has not: its caller did not wait for it.
    Open,
    /// Nothing has changed.
    Nothing,
    /// This has changed, as far as it is known.
    Done(Option<String>),
}

impl Audit {
    /// What is to be written of a call, if anything.
    pub(super) fn of(method: &str, changes: bool, role: Role, peer: &Peer) -> Option<Self> {
        let is = changes && role == Role::Administrator;
        is.then(|| Self { method: method.to_owned(), peer: peer.clone(), end: End::Open })
    }

    /// The call was refused, and nothing has changed.
    pub(super) fn refused(&mut self) {
        self.end = End::Nothing;
    }

    /// The call was answered.
    pub(super) fn answered(&mut self, answer: &Extensions) {
        self.end = match answer.get() {
            Some(Changed(None)) => End::Nothing,
            Some(Changed(what)) => End::Done(what.clone()),
            None => End::Done(None),
        };
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let (what, result) = match &self.end {
            End::Open => (None, "its caller did not wait for it"),
            End::Nothing => return,
            End::Done(what) => (what.as_deref(), "done"),
        };
        let Self { method, peer: Peer { uid, pid, .. }, .. } = self;
        tracing::info!(target: TARGET, uid, pid, method, what, result, "an administrator's change");
    }
}
