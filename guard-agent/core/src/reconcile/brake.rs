//! The brake on mass release (leases.md rule 6): so many leases at once are more likely a source
//! that lies.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::lease::{Generation, Lease};

/// As few leases as this may always be reaped at once.
const ALWAYS: usize = 8;

/// What a pass may take back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The leases that it takes back.
    pub reap: Vec<Generation>,
    /// Not these: there are too many of them to be true.
    pub blocked: Vec<Arc<Lease>>,
}

/// What was taken back unasked of late, by pool.
#[derive(Clone, Debug, Default)]
pub struct Recent(VecDeque<(Duration, Arc<str>)>);

impl Recent {
    /// Leases were taken back at `now`, on `CLOCK_BOOTTIME`.
    pub fn add<'a>(&mut self, now: Duration, leases: impl IntoIterator<Item = &'a Arc<Lease>>) {
        self.0.extend(leases.into_iter().map(|lease| (now, Arc::clone(&lease.pool))));
    }

    /// Forgets what was before `since`.
    pub fn forget(&mut self, since: Duration) {
        while self.0.pop_front_if(|(at, _)| *at < since).is_some() {}
    }

    fn of(&self, pool: &str) -> usize {
        self.0.iter().filter(|(_, of)| **of == *pool).count()
    }
}

/// What the brake goes by.
#[derive(Clone, Copy, Debug)]
pub struct Brake<'a> {
    /// The share of a pool's held and active leases that a pass may take back unasked.
    pub share: f64,
    /// The running boot: leases with a lower number are of an earlier one, with which whoever had
    /// them has ended.
    pub boot: u64,
    /// What an operator has agreed to.
    pub consented: &'a BTreeSet<Generation>,
    /// What the passes before this one have taken back unasked: what falls silent together is due
    /// in several passes, and counts together.
    pub recent: &'a Recent,
}

impl Brake<'_> {
    /// Stops at a mass release in any pool.
    pub fn apply(&self, due: &[Arc<Lease>], leases: &[Arc<Lease>]) -> Verdict {
        let (free, doubtful): (Vec<_>, Vec<_>) = due.iter().partition(|lease| self.is_free(lease));
        let mut pools: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for lease in &doubtful {
            pools.entry(&lease.pool).or_default().0 += 1;
        }
        for lease in leases.iter().filter(|lease| lease.state.is_owned()) {
            if let Some((_, all)) = pools.get_mut(&*lease.pool) {
                *all += 1;
            }
        }
        let too_many = pools.iter().any(|(pool, (due, all))| {
            let gone = self.recent.of(pool);
            due + gone > ALWAYS && self.is_more(due + gone, all + gone)
        });
        let generation = |lease: &Arc<Lease>| lease.generation;
        let mut reap: Vec<_> = free.into_iter().map(generation).collect();
        if too_many {
            return Verdict { reap, blocked: doubtful.into_iter().cloned().collect() };
        }
        reap.extend(doubtful.into_iter().map(generation));
        Verdict { reap, blocked: Vec::new() }
    }

    /// Whether a lease may be taken back however many others are.
    pub fn is_free(&self, lease: &Lease) -> bool {
        lease.boot < self.boot || self.consented.contains(&lease.generation)
    }

    #[expect(clippy::cast_precision_loss, reason = "no pool has 2^53 leases")]
    fn is_more(&self, due: usize, all: usize) -> bool {
        due as f64 > all as f64 * self.share
    }
}

/// Names a set of leases: what an operator agrees to is what was shown.
pub fn consent_id(leases: &[Arc<Lease>]) -> String {
    let generations: BTreeSet<_> = leases.iter().map(|lease| lease.generation).collect();
    let mut crc = crc32fast::Hasher::new();
    for generation in generations {
        crc.update(&generation.to_le_bytes());
    }
    format!("{:08x}", crc.finalize())
}
