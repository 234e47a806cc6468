//! What becomes of one container (rule 5): what containerd and the directory say comes in, a
//! verdict goes out.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::inventory::{Entry, SourceError, directory::Word};

/// What is to become of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep(Kept),
    /// The index knows nothing of it: the directory is to be asked for it by name.
    LookUp,
    /// It goes.
    Remove(Cause),
}

/// What keeps a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The index lists its sandbox as alive.
    Listed,
    /// The index lists its sandbox as dead since then, which is not long ago.
    Grace(Timestamp),
    /// Asked by name, the directory finds it.
    Found(Word),
    /// Asked by name, the directory does not answer.
    Unanswered(String),
}

/// What ends a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The index lists its sandbox as dead since then.
    Dead(Timestamp),
    /// The index does not list its sandbox, and asked by name the directory does not find it.
    NotFound,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed => f.write_str("the directory lists its sandbox"),
            Self::Grace(since) => {
                write!(f, "the directory lists its sandbox as dead since {since}: within the grace")
            }
            Self::Found(Word::Dead) => f.write_str(
                "the directory does not list its sandbox, and finds it by name as one that is dead",
            ),
            Self::Found(_) => {
                f.write_str("the directory does not list its sandbox, and finds it by name")
            }
            Self::Unanswered(why) => {
                write!(f, "the directory does not list its sandbox, and asked by name: {why}")
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dead(since) => {
                write!(f, "the directory lists its sandbox as dead since {since}")
            }
            Self::NotFound => {
                f.write_str("the directory neither lists its sandbox nor finds it by name")
            }
        }
    }
}

/// What the directory lists, by sandbox.
#[derive(Debug)]
pub struct Index(HashMap<Arc<str>, Vec<Entry>>);

impl Index {
    /// Of the directory's answer.
    pub fn new(listed: Vec<Entry>) -> Self {
        let mut index: HashMap<_, Vec<_>> = HashMap::with_capacity(listed.len());
        for entry in listed {
            index.entry(Arc::clone(&entry.owner.sandbox)).or_default().push(entry);
        }
        Self(index)
    }

    /// Judges a container by the index alone.
    pub fn judge(&self, container: &Entry, now: Timestamp, grace: Duration) -> Verdict {
        let named = self.0.get(&container.owner.sandbox);
        let by_id = self.0.get(&container.id).into_iter().flatten();
        let alive = |entry: &&Entry| !entry.dead && may_mean(entry, container);
        if named.into_iter().flatten().any(|entry| alive(&entry)) || by_id.clone().any(|e| !e.dead)
        {
            return Verdict::Keep(Kept::Listed);
        }
        let deaths = named.into_iter().flatten().filter(|entry| entry.dead);
        let death = deaths.filter(|entry| means(entry, container)).map(|entry| entry.since).max();
        match death {
            None => Verdict::LookUp,
            Some(since) if is_past(since, grace, now) => Verdict::Remove(Cause::Dead(since)),
            Some(since) => Verdict::Keep(Kept::Grace(since)),
        }
    }
}

/// So many are always removed.
const ALWAYS: usize = 8;

/// Whether these are more than go unasked, of all containers that are judged: a directory that has
/// lost its list speaks against every one of them.
pub fn is_mass_removal(removals: usize, all: usize) -> bool {
    removals > ALWAYS && removals > all / 5
}

/// Whether an entry of the container's sandbox may be about its run, where one of the two does not
/// say which run it is about: enough to keep it.
fn may_mean(entry: &Entry, container: &Entry) -> bool {
    let (listed, own) = (&entry.owner.lifecycle, &container.owner.lifecycle);
    listed.is_empty() || own.is_empty() || listed == own
}

/// Whether an entry is certainly about the container's run. A sandbox that starts again has its
/// name from an earlier run: a death without a lifecycle is that of the containers that were there.
fn means(entry: &Entry, container: &Entry) -> bool {
    match &*entry.owner.lifecycle {
        "" => container.since <= entry.since,
        lifecycle => *lifecycle == *container.owner.lifecycle,
    }
}

fn is_past(since: Timestamp, grace: Duration, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(since)).is_ok_and(|passed| passed >= grace)
}

/// Judges a container that was looked up by name: any answer but that there is no such sandbox
/// keeps it.
pub fn judge_answer(answer: Result<Option<Word>, SourceError>) -> Verdict {
    match answer {
        Ok(Some(Word::NotFound)) => Verdict::Remove(Cause::NotFound),
        Ok(Some(word)) => Verdict::Keep(Kept::Found(word)),
        Ok(None) => Verdict::Keep(Kept::Unanswered("there is no directory".to_owned())),
        Err(error) => Verdict::Keep(Kept::Unanswered(error.to_string())),
    }
}
