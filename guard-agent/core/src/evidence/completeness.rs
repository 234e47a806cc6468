//! How much is known: whether what the live set does not show is not there (`leases.md`, "complete
//! since t").

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::Unknown;
use crate::segment::Segment;

/// What a source's answers prove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// When its last complete answer was asked for, on `CLOCK_BOOTTIME`.
    pub complete: Option<Duration>,
    /// It has told of every change since before that, and still does.
    pub streaming: bool,
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
            let Answered { complete, streaming, ignored_until: _ } = answered;
            !complete.is_some_and(|complete| *streaming || complete >= since)
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

    /// What a source's answers prove now. Returns whether that is news.
    pub fn source(&mut self, name: &'static str, answered: Answered) -> bool {
        self.sources.insert(name, answered) != Some(answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

        let answered = |complete: Option<u64>, streaming| Answered {
            complete: complete.map(at),
            streaming,
            ignored_until: None,
        };
        known.source("containerd", answered(None, false));
        assert_eq!(complete(&known, 0), Err(Unknown::Source("containerd")));
        known.source("containerd", answered(Some(40), false));
        assert_eq!(complete(&known, 40), Ok(()));
        assert_eq!(complete(&known, 41), Err(Unknown::Source("containerd")));
        known.source("containerd", answered(Some(40), true));
        assert_eq!(complete(&known, 99), Ok(()), "it would have told");
        known.source("directory", answered(Some(30), false));
        assert_eq!(complete(&known, 40), Err(Unknown::Source("directory")));
        for (until, expected) in [(101, Ok(())), (100, Err(Unknown::Source("directory")))] {
            let ignored_until = Some(at(until));
            known.source("directory", Answered { ignored_until, ..answered(Some(30), false) });
            assert_eq!(complete(&known, 40), expected);
        }
        known.bridge(&"br0".into(), false);
        assert_eq!(complete(&known, 0), Err(Unknown::Bridge("br0".into())));
    }
}
