//! Whether a sandbox is over (leases.md rule 5): one judgement, for containers and for leases. What
//! the directory lists and what it says of a single sandbox come in, a verdict goes out.
//!
//! A removal never rests on a comparison of two wall clocks: the grace counts on `CLOCK_BOOTTIME`
//! from when guard first saw the death listed, and a time of death can only ever be a reason to keep.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    evidence::{Death, Entry, SandboxState},
    lease::Lease,
    owner::Owner,
};

/// What is judged: a run of a sandbox, by what is there of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// Whose it is.
    pub owner: &'a Owner,
    /// The container's id, by which the directory may know it too; empty for a lease.
    pub id: &'a str,
    /// When it was made.
    pub made: Timestamp,
}

/// What is to become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep(Kept),
    /// The index does not tell: the directory is to be asked for it by name.
    LookUp(Doubt),
    /// Its sandbox is over.
    Over(Cause),
}

/// Why the index does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It says nothing of this run.
    Unlisted,
    /// It lists the sandbox as dead since then, without saying which of its runs.
    Run(Timestamp),
}

/// What keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The index lists its sandbox as alive.
    Listed,
    /// The index lists its sandbox as dead since then, and has not done so for long.
    Grace(Timestamp),
    /// Asked by name, the directory finds it.
    Found(SandboxState),
    /// Asked by name, the directory does not answer.
    Unanswered(String),
}

/// What ended it.
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
            Self::Found(SandboxState::Dead) => f.write_str(
                "the directory does not list its sandbox, and finds it by name as one that is dead",
            ),
            Self::Found(_) => f.write_str(
                "the directory does not list its sandbox as alive, and finds it by name",
            ),
            Self::Unanswered(why) => write!(
                f,
                "the directory does not list its sandbox as alive, and asked by name: {why}"
            ),
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
                f.write_str("the directory neither lists its sandbox as alive nor finds it by name")
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

    /// Judges by the index alone. `now` is on `CLOCK_BOOTTIME`.
    pub fn judge(&self, subject: Subject<'_>, now: Duration, grace: Duration) -> Verdict {
        let Subject { owner, id, made } = subject;
        let named = || self.0.get(&owner.sandbox).into_iter().flatten();
        // One whose name cannot be read may be anybody's.
        let others = [id, ""].into_iter().filter_map(|name| self.0.get(name)).flatten();
        let alive = |entry: &Entry| entry.dead.is_none() && may_mean(entry, owner);
        if named().any(alive) || others.into_iter().any(|entry| entry.dead.is_none()) {
            return Verdict::Keep(Kept::Listed);
        }
        let deaths = named().filter_map(|entry| Some((entry, entry.dead.as_ref()?)));
        let deaths = deaths.filter(|(entry, _)| is_of_all(entry) || means(entry, owner));
        let (mut own, mut of_all) = (None, None);
        for (entry, Death { listed, at }) in deaths {
            if now.saturating_sub(*listed) < grace {
                return Verdict::Keep(Kept::Grace(entry.since));
            }
            if means(entry, owner) {
                own = own.max(Some(entry.since));
            } else if at.is_none_or(|at| made <= at) {
                of_all = of_all.max(Some(entry.since));
            }
        }
        match (own, of_all) {
            (Some(since), _) => Verdict::Over(Cause::Dead(since)),
            // A sandbox that starts again has its name from an earlier run, and an index that lags
            // knows only of that one's end.
            (None, Some(since)) => Verdict::LookUp(Doubt::Run(since)),
            (None, None) => Verdict::LookUp(Doubt::Unlisted),
        }
    }
}

impl<'a> Subject<'a> {
    /// A container.
    pub fn container(container: &'a Entry) -> Self {
        let Entry { owner, id, since, .. } = container;
        Self { owner, id, made: *since }
    }

    /// A lease, if it has an owner.
    pub fn lease(lease: &'a Lease) -> Option<Self> {
        Some(Self { owner: lease.owner.as_ref()?, id: "", made: lease.created_at })
    }

    /// Under which names the directory is asked for it.
    pub fn names(self) -> impl Iterator<Item = Owner> {
        let Self { owner, id, made: _ } = self;
        let by_id = (!id.is_empty() && *id != *owner.sandbox)
            .then(|| Owner { sandbox: Arc::from(id), lifecycle: crate::lease::no_text() });
        std::iter::once(owner.clone()).chain(by_id)
    }
}

/// Whether an entry of the sandbox may be about this run, where one of the two does not say which run
/// it is about: enough to keep it.
fn may_mean(entry: &Entry, owner: &Owner) -> bool {
    is_of_all(entry) || owner.lifecycle.is_empty() || entry.owner.lifecycle == owner.lifecycle
}

/// Whether an entry of the sandbox names no run.
fn is_of_all(entry: &Entry) -> bool {
    entry.owner.lifecycle.is_empty()
}

/// Whether an entry of the sandbox is certainly about this run.
fn means(entry: &Entry, owner: &Owner) -> bool {
    !is_of_all(entry) && entry.owner.lifecycle == owner.lifecycle
}

/// Judges by what the directory says under each of the subject's names. Any answer but that there is
/// no such sandbox keeps it; "dead" does only where the index has not listed that death.
pub fn judge_answer(doubt: Doubt, answer: Result<Option<Vec<SandboxState>>, String>) -> Verdict {
    let words = match answer {
        Ok(words) => words.unwrap_or_default(),
        Err(why) => return Verdict::Keep(Kept::Unanswered(why)),
    };
    let says = |word| words.contains(&word);
    match doubt {
        _ if words.is_empty() => {
            Verdict::Keep(Kept::Unanswered("there is no directory".to_owned()))
        }
        _ if says(SandboxState::Alive) => Verdict::Keep(Kept::Found(SandboxState::Alive)),
        Doubt::Run(since) if says(SandboxState::Dead) => Verdict::Over(Cause::Dead(since)),
        Doubt::Unlisted if says(SandboxState::Dead) => {
            Verdict::Keep(Kept::Found(SandboxState::Dead))
        }
        _ => Verdict::Over(Cause::NotFound),
    }
}

#[cfg(test)]
mod tests;
