//! What an event stream is worth, while it lasts and when it ends.

use std::time::Instant;

use guard_core::{evidence::Unknown, segment::Segment};

use super::*;

impl Asked {
    /// Whether what is not there now is known not to have been there since.
    fn complete(&self, since: Duration) -> Result<(), Unknown> {
        self.live.boot_pass_ended();
        self.live.set_watched(&"rt0".into(), true);
        self.live.complete(&Segment::new("rt0", 0), since)
    }
}

#[test]
fn rule_8_a_stream_that_ends_at_once_is_no_loop_and_not_healthy() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    Runtime::new().unwrap().block_on(async {
        let served = serve_with(&socket, Way::Good, Follow::Ends);
        let asked = asking(&socket);
        let ended = |status: &SourceStatus| status.stream_fault.is_some();
        let status = asked.until("the stream's end", ended).await;
        let why = status.why().unwrap();
        assert!(why.contains("event stream") && !status.healthy() && !status.streaming, "{why}");
        assert!(asked.health.why(&health::source("containerd")).is_some());
        // The list is used all the same, and nothing is held back for it.
        assert!(asked.is_known() && status.complete.is_some() && status.failing.is_none());
        assert_eq!(asked.sources.outdated(Duration::ZERO), None);
        // By now a stream is asked for every 75 to 100 ms.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = served.lists.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let lists = served.lists.load(Ordering::Relaxed) - before;
        assert!((2..=14).contains(&lists), "{lists} lists a second");
        // It can be held again.
        let (events, _) = broadcast::channel(8);
        *served.follow.lock() = Follow::These(events);
        asked.until("a stream that lasts", |status| status.healthy() && status.streaming).await;
        assert!(asked.health.why(&health::source("containerd")).is_none());
        served.runtime.shutdown_background();
    });
}

#[test]
fn complete_since_t_is_until_now_only_while_a_stream_lasts_and_has_told_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    Runtime::new().unwrap().block_on(async {
        let (events, _) = broadcast::channel(8);
        let served = serve_with(&socket, Way::Good, Follow::These(events.clone()));
        let asked = asking(&socket);
        assert!(asked.complete(Duration::ZERO).is_err(), "nobody has answered yet");
        asked.until("a stream", |status| status.streaming).await;
        let now = clock::now().boot;
        assert_eq!(asked.complete(now), Ok(()));
        // It tells of something, and the list that would show it does not come.
        *served.way.lock() = Way::Slow;
        events.send(()).unwrap();
        asked.until("the news", |status| !status.streaming).await;
        let complete = asked.status().complete.unwrap();
        assert_eq!(asked.complete(complete), Ok(()));
        assert_eq!(asked.complete(now), Err(Unknown::Source("containerd")));
        *served.way.lock() = Way::Empty;
        asked.until("the list", |status| status.streaming).await;
        assert!(!asked.is_known() && asked.complete(clock::now().boot).is_ok());
        // It ends with its connection, at once.
        served.runtime.shutdown_background();
        let status = asked.until("the end", |status| !status.streaming).await;
        assert!(asked.complete(clock::now().boot).is_err());
        assert_eq!(asked.complete(status.complete.unwrap()), Ok(()));
    });
}

#[test]
fn a_stream_that_says_nothing_has_begun_when_a_second_has_passed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    Runtime::new().unwrap().block_on(async {
        let served = serve_with(&socket, Way::Good, Follow::Silent);
        let asked = asking(&socket);
        let first = asked.until("a list", |status| status.complete.is_some()).await;
        assert!(!first.streaming, "what changed before it began is told by nobody");
        let second = asked.until("another list", |status| status.streaming).await;
        assert!(second.complete > first.complete);
        // Nothing more is asked for then.
        let before = served.lists.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(served.lists.load(Ordering::Relaxed), before);
        // But when somebody wants to know soon.
        asked.live.changes().want("containerd");
        asked.until("a third list", |status| status.complete > second.complete).await;
        served.runtime.shutdown_background();
    });
}

#[test]
fn events_that_never_end_leave_a_source_most_of_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    Runtime::new().unwrap().block_on(async {
        let (events, _) = broadcast::channel(1024);
        let served = serve_with(&socket, Way::Good, Follow::These(events.clone()));
        let asked = asking(&socket);
        asked.until("a stream", |status| status.streaming).await;
        let (before, began) = (served.lists.load(Ordering::Relaxed), Instant::now());
        for _ in 0..500 {
            let _ = events.send(());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let lists = served.lists.load(Ordering::Relaxed) - before;
        let most = began.elapsed().as_millis() / 10 + 1;
        assert!((1..=most).contains(&(lists as u128)), "{lists} lists for 500 events");
        asked.until("the last of them", |status| status.streaming).await;
        served.runtime.shutdown_background();
    });
}

#[test]
fn a_source_that_is_ignored_holds_nothing_back_until_it_answers() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    Runtime::new().unwrap().block_on(async {
        let asked = asking(&socket);
        failed(asked.answer().await, "No such file");
        let hour = Duration::from_secs(3600);
        let unknown = asked.sources.ignore("docker", hour, false).unwrap_err().to_string();
        assert!(unknown.contains("containerd"), "{unknown}");
        let dry = asked.sources.ignore("containerd", hour, true).unwrap();
        assert!(dry.ignored.is_some() && !asked.sources.ignored("containerd"));
        assert!(asked.sources.outdated(hour).is_some(), "it has never answered");

        asked.sources.ignore("inventory", hour, false).unwrap();
        assert!(asked.sources.ignored("containerd"));
        assert_eq!(asked.sources.outdated(Duration::ZERO), None);
        assert_eq!(asked.sources.unanswered(), None);
        assert_eq!(asked.complete(clock::now().boot), Ok(()));
        assert!(asked.sources.ask().await.is_empty(), "no pass waits for it");
        // Its time is over.
        asked.sources.ignore("containerd", Duration::from_nanos(1), false).unwrap();
        asked.until("the end of its time", |status| status.ignored.is_none()).await;
        assert!(asked.sources.unanswered().is_some());

        asked.sources.ignore("containerd", hour, false).unwrap();
        let (server, way, _began) = serve(&socket, Way::Good);
        asked.until("an answer", |status| status.complete.is_some()).await;
        assert!(!asked.sources.ignored("containerd"), "it answers");
        let healthy = asked.sources.ignore("containerd", hour, false).unwrap_err();
        assert!(matches!(healthy, IgnoreError::Healthy { .. }), "{healthy}");
        // What it listed last is good for a while when it fails again.
        *way.lock() = Way::Error;
        failed(asked.answer().await, "not now");
        assert_eq!(asked.sources.outdated(hour), None);
        assert!(asked.sources.outdated(Duration::ZERO).is_some());
        assert!(asked.sources.unanswered().is_none());
        let status = asked.status();
        let since = status.failing.unwrap();
        assert!(!status.is_away(since) && status.is_away(since + AWAY));
        server.shutdown_background();
    });
}
