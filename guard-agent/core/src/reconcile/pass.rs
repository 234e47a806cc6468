//! What one pass concludes (leases.md rules 6 and 7): reservations and evidence in, decisions out.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    evidence::{EvidenceView, Source},
    evidence::{PollOutcome, PollResult},
    lease::{Binding, Engine, Generation, Lease, Runs, State},
};

/// What a pass has read. The leases come first, so that nobody can be missed who was given an
/// address while the sources were read.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// The reservations: leases that somebody has.
    pub leases: &'a [Arc<Lease>],
    /// When they were read, on `CLOCK_BOOTTIME`.
    pub read: Duration,
    /// What each configured source answered.
    pub heard: &'a [PollResult],
    /// The number of the running boot.
    pub boot: u64,
}

/// Why a pass ends without a miss.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// What is on the wire or in the kernel is not fully known.
    #[error("{what}: {why}")]
    Degraded {
        /// What is degraded.
        what: String,
        /// The reason.
        why: String,
    },
    /// A source failed or timed out.
    #[error("{name} did not answer: {why}")]
    Failed {
        /// Which source.
        name: &'static str,
        /// The reason.
        why: String,
    },
    /// A source answered in part.
    #[error("{name} answered in part: {why}")]
    Partial {
        /// Which source.
        name: &'static str,
        /// What it said that cannot be read.
        why: String,
    },
    /// A source's answer is older than the reservations.
    #[error("the answer of {name} is older than the leases that it is compared with")]
    Stale {
        /// Which source.
        name: &'static str,
    },
    /// A source lists nothing, which is not so.
    #[error(
        "{name} lists nothing of ours, but the port {interface:?} of {address} exists: are its \
         socket, namespace and labels right?"
    )]
    Empty {
        /// Which source.
        name: &'static str,
        /// Whose port exists.
        address: std::net::IpAddr,
        /// Which port.
        interface: String,
    },
}

impl Ended {
    /// From any answer but a complete one nothing is concluded.
    ///
    /// # Errors
    /// What the source did instead.
    pub fn unless_complete(heard: &PollResult) -> Result<(), Self> {
        let PollResult { name, outcome, source: _, asked: _, ours: _ } = heard;
        match outcome {
            PollOutcome::Complete => Ok(()),
            PollOutcome::Failed(why) => Err(Self::Failed { name, why: why.clone() }),
            PollOutcome::Partial(why) => Err(Self::Partial { name, why: why.clone() }),
        }
    }
}

/// What a pass thinks of each lease.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// Nothing speaks for them, and somebody would.
    pub silent: Vec<Arc<Lease>>,
    /// They had misses, and something speaks for them now.
    pub seen: Vec<Generation>,
    /// Nothing speaks for them, and nobody can tell whether that means anything.
    pub unverifiable: Vec<Arc<Lease>>,
}

impl<'a> Look<'a> {
    /// Compares every lease with its evidence.
    ///
    /// # Errors
    /// A source did not answer completely: nothing can be concluded.
    pub fn judge(self, view: &dyn EvidenceView) -> Result<Judgement, Ended> {
        self.check_sources()?;
        let mut judgement = Judgement::default();
        let runs = Runs::of_all(self.leases);
        // Of whom it has to be known whether they name anyone.
        let mut empty: BTreeSet<_> = self.empty().map(|heard| heard.source).collect();
        let mut port = None;
        for lease in self.leases.iter().filter(|lease| lease.state.is_owned()) {
            if !empty.is_empty() {
                for evidence in Engine::evidence_of(lease, view) {
                    empty.remove(&evidence.source);
                }
            }
            if port.is_none() && lease.binding.ifindex.is_some_and(|port| view.port_exists(port)) {
                port = Some(lease);
            }
            // What is held ends by its own deadline.
            if lease.state != State::Active {
                continue;
            }
            if Engine::is_live(lease, view, runs.of(lease)) {
                judgement.seen.extend((lease.misses > 0).then_some(lease.generation));
            } else if view.complete(&lease.segment, self.read).is_err() {
                // What is not watched is not judged.
            } else if self.heard.is_empty() && !is_over(lease, self.boot, view) {
                judgement.unverifiable.push(Arc::clone(lease));
            } else {
                judgement.silent.push(Arc::clone(lease));
            }
        }
        self.check_empty(&empty, port)?;
        Ok(judgement)
    }

    fn check_sources(self) -> Result<(), Ended> {
        for heard in self.heard {
            Ended::unless_complete(heard)?;
            if heard.asked < self.read {
                return Err(Ended::Stale { name: heard.name });
            }
        }
        Ok(())
    }

    /// Those that list nothing of ours.
    fn empty(self) -> impl Iterator<Item = &'a PollResult> {
        self.heard.iter().filter(|heard| heard.ours == 0)
    }

    /// An empty answer is believed, unless a port says otherwise.
    fn check_empty(self, empty: &BTreeSet<Source>, port: Option<&Arc<Lease>>) -> Result<(), Ended> {
        let Some(lease) = port else { return Ok(()) };
        match self.empty().find(|heard| empty.contains(&heard.source)) {
            None => Ok(()),
            Some(PollResult { name, .. }) => Err(Ended::Empty {
                name,
                address: lease.address,
                interface: lease.binding.interface.as_deref().unwrap_or("?").to_owned(),
            }),
        }
    }
}

/// Whether it means something that nothing speaks for a lease, also where no source is configured:
/// whoever had it has ended with its port, or with an earlier boot.
pub fn is_over(lease: &Lease, boot: u64, view: &dyn EvidenceView) -> bool {
    lease.boot < boot || port_is_gone(lease, view)
}

/// Whether a lease was bound to a port that does not exist any more. After a reboot ports have
/// names only, and that of a held one may be yet to come.
pub fn port_is_gone(lease: &Lease, view: &dyn EvidenceView) -> bool {
    let Binding { ifindex, interface, port_ended, .. } = &lease.binding;
    match (ifindex, interface) {
        (Some(ifindex), _) => !view.port_exists(*ifindex),
        (None, Some(name)) => lease.state != State::Held && !view.link_exists(name),
        (None, None) => *port_ended,
    }
}
