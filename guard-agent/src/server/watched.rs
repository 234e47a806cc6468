//! What a watcher is told of: the events that its filters leave.

use futures_util::{Stream, StreamExt as _, future};
use guard_api::proto::{self, event::Subject};
use tonic::Status;

/// After so many events that a watcher is not told of, it is told how far it is.
const BOOKMARK: u32 = 1000;

/// The events of a stream that a request asks for; and now and then, where there are none, a bookmark.
pub(super) fn narrowed(
    stream: impl Stream<Item = Result<proto::Event, Status>> + Send + 'static,
    request: proto::WatchRequest,
) -> impl Stream<Item = Result<proto::Event, Status>> + Send + 'static {
    let mut passed_over = 0;
    stream.filter_map(move |event| {
        let told = match event {
            Ok(event) if is_wanted(&event, &request) => Some(Ok(event)),
            Ok(event) => {
                passed_over += 1;
                (passed_over >= BOOKMARK).then(|| Ok(bookmark(&event)))
            }
            error => Some(error),
        };
        if told.is_some() {
            passed_over = 0;
        }
        future::ready(told)
    })
}

fn bookmark(event: &proto::Event) -> proto::Event {
    proto::Event { r#type: "bookmark".to_owned(), subject: None, ..event.clone() }
}

fn is_wanted(event: &proto::Event, request: &proto::WatchRequest) -> bool {
    let proto::WatchRequest { types, pool, sandbox, .. } = request;
    let Some(subject) = &event.subject else { return true };
    let is_of = |wanted: &String| {
        let rest = event.r#type.strip_prefix(&**wanted);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let in_pool = match subject {
        Subject::Lease(lease) => lease.pool == *pool,
        _ => false,
    };
    let of_sandbox = match subject {
        Subject::Lease(lease) => lease.sandbox == *sandbox,
        Subject::Conflict(conflict) => conflict.claimants.iter().any(|one| one.sandbox == *sandbox),
        _ => false,
    };
    (types.is_empty() || types.iter().any(is_of))
        && (pool.is_empty() || in_pool)
        && (sandbox.is_empty() || of_sandbox)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn lease(seq: u64, pool: &str, sandbox: &str) -> proto::Event {
        let (pool, sandbox) = (pool.to_owned(), sandbox.to_owned());
        let lease = proto::Lease { pool, sandbox, ..Default::default() };
        let subject = Some(Subject::Lease(lease));
        proto::Event { seq, time: None, r#type: "lease.held".to_owned(), subject }
    }

    fn conflict(seq: u64, sandbox: &str) -> proto::Event {
        let claimant = proto::Claimant { sandbox: sandbox.to_owned(), ..Default::default() };
        let conflict = proto::Conflict { claimants: vec![claimant], ..Default::default() };
        let subject = Some(Subject::Conflict(conflict));
        proto::Event { seq, time: None, r#type: "conflict.opened".to_owned(), subject }
    }

    async fn told(events: Vec<proto::Event>, request: proto::WatchRequest) -> Vec<(u64, String)> {
        let stream = stream::iter(events.into_iter().map(Ok));
        let told = narrowed(stream, request).map(|event| {
            let event = event.unwrap();
            (event.seq, event.r#type)
        });
        told.collect().await
    }

    fn request(types: &[&str], pool: &str, sandbox: &str) -> proto::WatchRequest {
        proto::WatchRequest {
            types: types.iter().map(|word| (*word).to_owned()).collect(),
            pool: pool.to_owned(),
            sandbox: sandbox.to_owned(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn filters_leave_what_they_name_and_every_gap() {
        let gap = proto::Event { seq: 4, r#type: "gap".to_owned(), ..Default::default() };
        let events = vec![lease(1, "p", "a"), lease(2, "q", "b"), conflict(3, "a"), gap];
        for (types, pool, sandbox, wanted) in [
            (&[][..], "", "", &[1, 2, 3, 4][..]),
            (&["lease"], "", "", &[1, 2, 4]),
            (&["lease.held", "conflict"], "", "", &[1, 2, 3, 4]),
            (&["lease.he"], "", "", &[4]),
            (&[], "p", "", &[1, 4]),
            (&[], "", "a", &[1, 3, 4]),
            (&["lease"], "p", "b", &[4]),
        ] {
            let told = told(events.clone(), request(types, pool, sandbox)).await;
            let seqs: Vec<_> = told.iter().map(|(seq, _)| *seq).collect();
            assert_eq!(seqs, wanted, "{types:?} {pool:?} {sandbox:?}");
        }
    }

    #[tokio::test]
    async fn a_watcher_of_little_is_told_how_far_it_is() {
        let events = (1..=2500).map(|seq| lease(seq, "p", "a")).collect();
        let told = told(events, request(&[], "q", "")).await;
        assert_eq!(told, [(1000, "bookmark".to_owned()), (2000, "bookmark".to_owned())]);
    }
}
