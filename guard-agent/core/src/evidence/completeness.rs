//! How much is known: whether what the evidence does not show is not there (`leases.md`, "complete
//! since t").

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use super::Unknown;
use crate::segment::Segment;

/// An event stream, as it was when a list was asked for.
pub trait EventStream: fmt::Debug + Send + Sync {
    /// Whether it lasts, and has told nothing that the list does not show.
    fn is_current(&self) -> bool;
}

/// What a source's answers prove.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    /// When its last complete answer was asked for, on `CLOCK_BOOTTIME`.
    pub complete: Option<Duration>,
    /// The stream that tells of every change since before that. It is asked whenever somebody wants
    /// to know, so that what it has just told is never taken for known.
    pub stream: Option<Arc<dyn EventStream>>,
    /// An operator said that it is not to be waited for until then.
    pub ignored_until: Option<Duration>,
}

/// What has been read so far.
#[derive(Debug, Default)]
pub struct Completeness {
    boot_over: bool,
    /// Those that exist and are watched.
    bridges: HashSet<Arc<str>>,
    /// Those that are configured.
    sources: BTreeMap<&'static str, Answered>,
}

impl Completeness {
    /// Whether all that is on a segment since that moment is known. `now` is on `CLOCK_BOOTTIME`.
    ///
    /// # Errors
    /// What is not known.
    pub fn complete(
        &self,
        segment: &Segment,
        since: Duration,
        now: Duration,
    ) -> Result<(), Unknown> {
        let Self { boot_over, bridges, sources } = self;
        if !boot_over {
            return Err(Unknown::Boot);
        }
        if !bridges.contains(&segment.bridge) {
            return Err(Unknown::Bridge(Arc::clone(&segment.bridge)));
        }
        let silent = |answered: &Answered| {
            let Answered { complete, stream, ignored_until: _ } = answered;
            let streaming = || stream.as_ref().is_some_and(|stream| stream.is_current());
            !complete.is_some_and(|complete| complete >= since || streaming())
        };
        let mut silent = sources.iter().filter(|(_, answered)| silent(answered)).peekable();
        if silent.peek().is_none() {
            return Ok(());
        }
        let waits = |(_, answered): &(&&str, &Answered)| {
            answered.ignored_until.is_none_or(|until| until <= now)
        };
        silent.find(waits).map_or(Ok(()), |(name, _)| Err(Unknown::Source(name)))
    }

    /// The boot pass has ended. Returns whether that is news.
    pub fn boot_pass_ended(&mut self) -> bool {
        !std::mem::replace(&mut self.boot_over, true)
    }

    /// A bridge is watched from now on, or is no more. Returns whether that is news.
    pub fn bridge(&mut self, name: &Arc<str>, watched: bool) -> bool {
        let bridges = &mut self.bridges;
        if watched { bridges.insert(Arc::clone(name)) } else { bridges.remove(name) }
    }

    /// What a source's answers prove from now on.
    pub fn source(&mut self, name: &'static str, answered: Answered) {
        self.sources.insert(name, answered);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    impl EventStream for AtomicBool {
        fn is_current(&self) -> bool {
            self.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn the_view_is_complete_once_all_of_it_was_read_after_the_cause() {
        let mut known = Completeness::default();
        let (segment, at) = (Segment::new("br0", 0), Duration::from_secs);
        let complete = |known: &Completeness, since| known.complete(&segment, at(since), at(100));
        assert_eq!(complete(&known, 0), Err(Unknown::Boot));
        known.boot_pass_ended();
        assert_eq!(complete(&known, 0), Err(Unknown::Bridge("br0".into())));
        known.bridge(&"br0".into(), true);
        assert_eq!(complete(&known, 50), Ok(()), "nobody else is asked");

        let answered = |complete: Option<u64>| Answered {
            complete: complete.map(at),
            stream: None,
            ignored_until: None,
        };
        known.source("containerd", answered(None));
        assert_eq!(complete(&known, 0), Err(Unknown::Source("containerd")));
        known.source("containerd", answered(Some(40)));
        assert_eq!(complete(&known, 40), Ok(()));
        assert_eq!(complete(&known, 41), Err(Unknown::Source("containerd")));
        let lasts = Arc::new(AtomicBool::new(true));
        let stream = Some(Arc::clone(&lasts) as Arc<dyn EventStream>);
        known.source("containerd", Answered { stream, ..answered(Some(40)) });
        assert_eq!(complete(&known, 99), Ok(()), "it would have told");
        lasts.store(false, Ordering::Relaxed);
        assert_eq!(complete(&known, 40), Ok(()));
        assert_eq!(
            complete(&known, 41),
            Err(Unknown::Source("containerd")),
            "it has told of something"
        );
        lasts.store(true, Ordering::Relaxed);
        known.source("directory", answered(Some(30)));
        assert_eq!(complete(&known, 40), Err(Unknown::Source("directory")));
        for (until, expected) in [(101, Ok(())), (100, Err(Unknown::Source("directory")))] {
            let ignored_until = Some(at(until));
            known.source("directory", Answered { ignored_until, ..answered(Some(30)) });
            assert_eq!(complete(&known, 40), expected);
        }
        known.bridge(&"br0".into(), false);
        assert_eq!(complete(&known, 0), Err(Unknown::Bridge("br0".into())));
    }
}
