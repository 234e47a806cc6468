//! Entries that cannot be read, among others that come and go.

use super::*;

use guard_core::{incident::Kind, time::Now};

#[test]
fn rule_8_an_entry_that_cannot_be_read_concerns_itself_and_is_an_incident_while_it_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    Runtime::new().unwrap().block_on(async {
        let (bad, other) =
            (container("bad", "b", "10.0.0.2"), container("other", "o", "10.0.0.3/24"));
        let served = serve_with(&socket, Way::These(vec![bad, other]), Follow::Silent);
        let asked = asking(&socket);
        assert_eq!(asked.answer().await, PollOutcome::Complete);
        assert!(asked.is_live(2) && asked.is_live(3), "10.0.0.3/24 has one reading");
        assert!(asked.reporter.list(false).is_empty());

        let none = container("bad", "b", "none");
        *served.way.lock() = Way::These(vec![none.clone()]);
        for _ in 0..3 {
            assert_eq!(asked.answer().await, PollOutcome::Complete);
        }
        assert!(asked.is_live(2), "its former state is kept");
        assert!(!asked.is_live(3), "what is not listed any more is gone");
        let status = asked.status();
        assert!(status.healthy() && status.unreadable.len() == 1, "{status:?}");
        let all = asked.reporter.list(true);
        let [incident] = &*all else { panic!("{all:?}") };
        assert_eq!((incident.kind, incident.closed_at), (Kind::Inventory, None));
        assert!(incident.detail.contains("container bad") && incident.detail.contains("none"));
        // It is not quiet that ends it.
        let later = Now { boot: clock::now().boot + Duration::from_secs(9999), ..clock::now() };
        asked.reporter.close_quiet(later);
        assert_eq!(asked.reporter.list(false).len(), 1);

        // A failure says nothing of it.
        *served.way.lock() = Way::Error;
        failed(asked.answer().await, "not now");
        assert_eq!(asked.reporter.list(false).len(), 1);
        *served.way.lock() = Way::These(vec![container("bad", "b", "10.0.0.4")]);
        assert_eq!(asked.answer().await, PollOutcome::Complete);
        assert!(asked.is_live(4) && !asked.is_live(2));
        assert!(asked.reporter.list(false).is_empty() && asked.status().unreadable.is_empty());
        served.runtime.shutdown_background();
    });
}

#[test]
fn rule_12_a_thousand_entries_that_cannot_be_read_are_64_incidents_and_one_count() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    Runtime::new().unwrap().block_on(async {
        let bad = |number: usize| container(&format!("c{number}"), "s", "none");
        let served = serve_with(&socket, Way::These((0..1000).map(bad).collect()), Follow::Silent);
        let asked = asking(&socket);
        assert_eq!(asked.answer().await, PollOutcome::Complete);
        assert_eq!(asked.status().unreadable.len(), 1000);
        let first: Vec<_> = asked.reporter.list(false).iter().map(|incident| incident.id).collect();
        assert_eq!(first.len(), 64);
        // Others that come before them in any order take nobody's place.
        *served.way.lock() =
            Way::These((0..1000).map(bad).chain([container("a", "s", "x")]).collect());
        assert_eq!(asked.answer().await, PollOutcome::Complete);
        let second: Vec<_> = asked.reporter.list(true).iter().map(|incident| incident.id).collect();
        assert_eq!(first, second);
        *served.way.lock() = Way::Empty;
        assert_eq!(asked.answer().await, PollOutcome::Complete);
        assert!(asked.reporter.list(false).is_empty());
        served.runtime.shutdown_background();
    });
}
