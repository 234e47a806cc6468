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

/// A call of an administrator that changes something. Its line is written when it ends: also where its
/// caller does not wait, since the change is made all the same.
pub(super) struct Audit {
    method: String,
    peer: Peer,
    is_over: bool,
}

impl Audit {
    /// What is to be written of a call, if anything.
    pub(super) fn of(method: &str, changes: bool, role: Role, peer: &Peer) -> Option<Self> {
        let is = changes && role == Role::Administrator;
        is.then(|| Self { method: method.to_owned(), peer: peer.clone(), is_over: false })
    }

    /// The call was refused, and nothing has changed.
    pub(super) fn refused(mut self) {
        self.is_over = true;
    }

    /// The call was answered.
    pub(super) fn answered(mut self, answer: &Extensions) {
        self.is_over = true;
        match answer.get() {
            Some(Changed(None)) => {}
            Some(Changed(what)) => self.write(what.as_deref(), "done"),
            None => self.write(None, "done"),
        }
    }

    fn write(&self, what: Option<&str>, result: &str) {
        let Self { method, peer: Peer { uid, pid, .. }, .. } = self;
        tracing::info!(target: TARGET, uid, pid, method, what, result, "an administrator's change");
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if !self.is_over {
            self.write(None, "its caller did not wait for it");
        }
    }
}
