//! Evidence from those who may not: claims on leased addresses by stations that no binding and no rule
//! lets claim them (claims.md, "Quotas"). Each is an incident, and few of a port are evidence.

use std::{collections::HashMap, net::IpAddr, num::NonZeroU32, time::Duration};

use guard_ebpf::abi::CLAIM_DROPPED;

use super::{Arbiter, Effect, Facts, Seen, ageing::PROBES, given::Given, questions::Questions};
use crate::{evidence::Station, segment::Segment};

/// So many count of a port that a declared binding names: it is known who is behind it.
const OF_BOUND_PORT: usize = 4;
/// They count for so long, and longer if they answer then.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Whether those that have their places still need them is looked at so often.
const AGAIN: Duration = Duration::from_secs(1);

/// Which claims of strangers are evidence.
#[derive(Debug)]
pub(super) struct Strangers {
    most: usize,
    ports: HashMap<u32, Places>,
}

/// What a port claims: the first that came, for as long as they last.
#[derive(Debug, Default)]
struct Places {
    all: Vec<Stranger>,
    looked: Duration,
}

#[derive(Debug)]
struct Stranger {
    segment: Segment,
    address: IpAddr,
    /// The first frame, or the last answer.
    since: Duration,
    /// The last frame.
    seen: Duration,
    /// When it was first asked since then, and how often.
    asked: (Duration, u32),
    /// It did not answer: no evidence any more, however long it goes on.
    over: bool,
}

impl Strangers {
    pub(super) fn new(most: NonZeroU32) -> Self {
        let most = usize::try_from(most.get()).unwrap_or(usize::MAX);
        Self { most, ports: HashMap::new() }
    }

    pub(super) fn port_gone(&mut self, ifindex: u32) {
        self.ports.remove(&ifindex);
    }

    /// Leaves of these effects, from the first that is new, those claims that are evidence.
    pub(super) fn leave_out<F: Facts>(
        &mut self,
        effects: &mut [Effect],
        new: usize,
        facts: &F,
        now: Duration,
    ) {
        for effect in effects.iter_mut().skip(new) {
            match effect {
                // Nor does the program keep it as live, past the end of the lease and any quota.
                Effect::Claimed(seen) if !self.counts(seen, facts, now) => {
                    let (key, ifindex) = (seen.key, seen.claim.station.ifindex);
                    *effect = Effect::ForgetInKernel(key, ifindex);
                }
                Effect::Contested(seen) if !self.counts(seen, facts, now) => {
                    let (segment, address) = (seen.segment.clone(), seen.address);
                    *effect = Effect::ListenToOwner(segment, address);
                }
                _ => {}
            }
        }
    }

    /// One could not be asked.
    pub(super) fn not_asked(&mut self, segment: &Segment, address: IpAddr, ifindex: u32) {
        let places = self.ports.get_mut(&ifindex).into_iter().flat_map(|places| &mut places.all);
        if let Some(one) = places.into_iter().find(|one| one.is_of(segment, address)) {
            one.asked.1 = one.asked.1.saturating_sub(1);
        }
    }

    fn counts<F: Facts>(&mut self, seen: &Seen, facts: &F, now: Duration) -> bool {
        let Seen { segment, address, claim, flags, .. } = seen;
        // It came nowhere, so that nobody has the address by it (enforce.md, "What a dropped frame is").
        if flags & CLAIM_DROPPED != 0 {
            return false;
        }
        let ifindex = claim.station.ifindex;
        if may_claim(segment, *address, &claim.station, facts) {
            return true;
        }
        let places = self.ports.entry(ifindex).or_default();
        if let Some(known) = places.all.iter_mut().find(|known| known.is_of(segment, *address)) {
            known.seen = known.seen.max(claim.seen);
            return !known.over;
        }
        let bound = facts.has_declared(ifindex);
        let most = if bound { OF_BOUND_PORT.min(self.most) } else { self.most };
        if places.all.len() >= most && now.saturating_sub(places.looked) >= AGAIN {
            places.looked = now;
            places.all.retain(|one| one.over || one.claim(ifindex, facts).is_some());
        }
        if places.all.len() >= most {
            return false;
        }
        let holder = facts.holder(segment, *address).map(|holder| holder.owner);
        if holder.is_some() && holder == facts.sandbox(&claim.station) {
            return true;
        }
        places.all.push(Stranger {
            segment: segment.clone(),
            address: *address,
            since: claim.first,
            seen: claim.seen,
            asked: Default::default(),
            over: false,
        });
        true
    }
}

/// Whether nobody has leased the address, or who has lets this station claim it. A lease that nothing is
/// known of yet lets nobody: whoever comes first is a stranger until it is bound to him.
fn may_claim<F: Facts>(segment: &Segment, address: IpAddr, station: &Station, facts: &F) -> bool {
    let holder = facts.holder(segment, address);
    holder.is_none_or(|holder| holder.allows(station))
        || facts.is_allowed(segment, address, station)
}

impl Stranger {
    fn is_of(&self, segment: &Segment, address: IpAddr) -> bool {
        self.address == address && self.segment == *segment
    }

    /// Who has its place, as far as he is evidence, and still a stranger: with his last frame.
    fn claim<F: Facts>(&self, ifindex: u32, facts: &F) -> Option<(Station, Duration)> {
        let claims = facts.claims(&self.segment, self.address);
        let claim = claims.into_iter().find(|claim| claim.station.ifindex == ifindex)?;
        let may = may_claim(&self.segment, self.address, &claim.station, facts);
        (!may).then_some((claim.station, claim.seen))
    }

    /// Looks whether it still counts. Returns whether it keeps its place.
    fn look<F: Facts>(
        &mut self,
        ifindex: u32,
        live_window: Duration,
        questions: &mut Questions,
        given: &mut Given<'_, F>,
    ) -> bool {
        let now = given.now.monotonic;
        let Some((station, seen)) = self.claim(ifindex, given.facts) else {
            return self.over && now.saturating_sub(self.seen) < live_window;
        };
        if now.saturating_sub(self.since) < LONGEST {
            return true;
        }
        let Self { segment, address, asked: (first, times), .. } = self;
        if *times > 0 && seen >= *first {
            (self.since, self.asked) = (now, Default::default());
        } else if *times < PROBES {
            let Some((bridge, _)) = given.facts.bridge_named(&segment.bridge) else { return true };
            let about = (segment.key(bridge, *address), &*segment, *address);
            if questions.ask(&station, about, given) {
                *first = if *times == 0 { now } else { *first };
                *times += 1;
            }
        } else {
            self.over = true;
            given.effects.push(Effect::Withdraw(self.segment.clone(), self.address, ifindex));
        }
        true
    }
}

impl Arbiter {
    /// Looks at all strangers whose claims count: for how long they have.
    pub(super) fn look_at_strangers<F: Facts>(&mut self, given: &mut Given<'_, F>) {
        let Self { strangers, questions, conflict, .. } = self;
        strangers.ports.retain(|ifindex, places| {
            places.all.retain_mut(|one| one.look(*ifindex, conflict.live_window, questions, given));
            !places.all.is_empty()
        });
    }
}
