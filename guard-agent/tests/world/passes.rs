//! The passes that take back what nobody uses: the reconciler's, and an operator's `gc`.

use std::{sync::Arc, time::Duration};

use guard_core::{
    evidence::{PollOutcome, PollResult, SandboxState, Source},
    judgement::{self, Subject, Verdict, judge_answer},
    lease::{
        Engine, Lease, Row, Run, State,
        command::{Command, CountMisses, Reply},
    },
    owner::Owner,
    reconcile::{Brake, Look, Verdict as Mass, port_is_gone},
};

use super::{
    DIRECTORY, RUNTIME, SOURCES, World,
    agent::Phase,
    calls::POOLS,
    node::{bridge_of, can_be_handed_out},
    rules::{INTERVAL, MISSES},
    sources::Outcome,
};

/// How long after a death was first listed its leases stay.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// How many of a pool's leases a pass takes back unasked.
const SHARE: f64 = 0.2;

impl World {
    /// A pass in which every source answers.
    pub(super) fn pass(&mut self) {
        self.pass_with([Outcome::Complete; 2]);
    }

    /// Reservations first, evidence second, and then what follows from both.
    pub(super) fn pass_with(&mut self, outcomes: [Outcome; 2]) {
        let all_read = self.unread.is_empty() && self.phase != Phase::Down;
        if !all_read {
            return;
        }
        let (read, leases) = (self.now.boot, self.engine.reservations());
        let heard = self.ask_all(outcomes);
        self.drain();
        let boot = self.engine.high_water().boot;
        let look = Look { leases: &leases, read, heard: &heard, boot };
        let Ok(judgement) = look.judge(&self.live) else { return };
        let silent: Vec<_> = judgement.silent.iter().map(|lease| lease.generation).collect();
        let seen = judgement.seen.clone();
        let found = CountMisses {
            silent,
            seen: judgement.seen,
            started: read,
            since: read,
            interval: INTERVAL,
            threshold: MISSES,
        };
        let Ok(Reply::Leases(silent)) = self.run(Command::CountMisses(found)) else { return };
        for generation in &seen {
            self.not_missed(*generation);
        }
        for lease in &silent {
            self.has_missed(lease, read);
        }
        let due = silent.iter().filter(|lease| lease.misses >= MISSES && self.is_dead(lease));
        let due: Vec<_> = due.cloned().collect();
        self.reap(&due, &leases, boot, read);
        self.recheck_all();
    }

    /// Takes back what is due, as far as that is not too much at once to be true.
    fn reap(&mut self, due: &[Arc<Lease>], leases: &[Arc<Lease>], boot: u64, since: Duration) {
        let (consented, recent) = (&self.consented, &self.recent);
        let brake = Brake { share: SHARE, boot, consented, recent };
        let Mass { reap: generations, blocked } = brake.apply(due, leases);
        let unasked =
            |lease: &&Arc<Lease>| generations.contains(&lease.generation) && !brake.is_free(lease);
        let unasked: Vec<_> = due.iter().filter(unasked).cloned().collect();
        self.blocked = blocked;
        if generations.is_empty() {
            return;
        }
        self.is_no_mass(&generations, leases);
        let reap = Command::Reap { generations, threshold: MISSES, since };
        if self.run(reap).is_ok() {
            self.recent.add(since, &unasked);
        }
    }

    /// What was used in this boot is taken back by and by, unless an operator has agreed.
    fn is_no_mass(&self, generations: &[u64], leases: &[Arc<Lease>]) {
        for (pool, _) in POOLS {
            let all = leases.iter().filter(|lease| *lease.pool == *pool);
            let taken = all.clone().filter(|lease| {
                let given = self.given(lease.generation);
                generations.contains(&lease.generation)
                    && !self.consented.contains(&lease.generation)
                    && given.is_some_and(|given| given.boot == self.boot)
            });
            let (taken, all) = (taken.count(), all.count());
            assert!(taken <= 8 || taken * 5 <= all, "{taken} of {all} of {pool} at once");
        }
    }

    fn ask_all(&mut self, outcomes: [Outcome; 2]) -> Vec<PollResult> {
        let mut all = Vec::new();
        for (which, outcome) in [RUNTIME, DIRECTORY].into_iter().zip(outcomes) {
            if !self.sources[which].configured {
                continue;
            }
            let asked = self.now.boot;
            let ours = match which {
                RUNTIME => self.node.containers.len(),
                _ => self.node.index.len(),
            };
            self.forget_answer(which);
            self.begin_answer(which);
            let streams = self.sources[which].streaming && outcome == Outcome::Complete;
            let outcome = if streams { Outcome::Streaming } else { outcome };
            let complete = self.end_answer(which, outcome);
            let outcome = if complete {
                PollOutcome::Complete
            } else {
                PollOutcome::Failed("not all".to_owned())
            };
            let (name, source) = SOURCES[which];
            all.push(PollResult { source, name, asked, outcome, ours });
        }
        all
    }

    /// Nothing spoke for a lease in a pass: one miss for each interval on `CLOCK_BOOTTIME`, whatever
    /// the wall clock shows.
    fn has_missed(&mut self, lease: &Lease, read: Duration) {
        let Lease { address, segment, generation, .. } = lease;
        assert!(self.known(segment, read), "{address} has missed what nobody knows");
        let kept = self.keeps(lease, read, true);
        assert!(kept.is_none(), "{address} has missed and is kept by {kept:?}");
        let given = self.given.get_mut(generation).expect("it was given");
        let apart = given.missed_at.is_none_or(|at| read >= at + INTERVAL);
        // After the first it may be soon again, once something has spoken for it in between.
        let counts = apart || given.misses == 0 && lease.misses == 1;
        if given.misses < MISSES && counts {
            (given.misses, given.missed_at) = (given.misses + 1, Some(read));
        }
        assert_eq!(lease.misses, given.misses, "misses of {lease:?}");
    }

    /// Its owner has asked for it in this boot.
    pub(super) fn was_asked_for(&mut self, generation: u64) {
        self.not_missed(generation);
        let boot = self.boot;
        if let Some(given) = self.given.get_mut(&generation) {
            given.boot = boot;
        }
    }

    /// Something has spoken for it: what was missed does not count.
    pub(super) fn not_missed(&mut self, generation: u64) {
        if let Some(given) = self.given.get_mut(&generation) {
            given.misses = 0;
        }
    }

    /// Whether its sandbox is over, by what the agent has of the index and by the directory's word.
    fn is_dead(&self, lease: &Lease) -> bool {
        let Some(of) = Subject::lease(lease).filter(|_| self.sources[DIRECTORY].configured) else {
            return true;
        };
        let index = judgement::Index::new(self.live.inventory().entries(Source::Controller));
        match index.judge(of, self.now.boot, GRACE) {
            Verdict::Keep(_) => false,
            Verdict::Over(_) => true,
            Verdict::LookUp(doubt) => {
                let words = of.names().map(|name| self.word(&name)).collect();
                matches!(judge_answer(doubt, Ok(Some(words))), Verdict::Over(_))
            }
        }
    }

    /// What the directory says of a sandbox that it is asked for by name.
    fn word(&self, owner: &Owner) -> SandboxState {
        self.node.registered.get(owner).map_or(SandboxState::NotFound, |listed| {
            if listed.dead { SandboxState::Dead } else { SandboxState::Alive }
        })
    }

    /// An operator's: what nothing speaks for and whose port has gone.
    pub(super) fn gc(&mut self) {
        if self.phase != Phase::Up {
            return;
        }
        let live = |lease: &Lease| Engine::is_live(lease, &self.live, Run::Latest);
        let leases = self.engine.reservations().into_iter();
        let gone = leases.filter(|lease| !live(lease) && port_is_gone(lease, &self.live));
        let generations: Vec<_> = gone.map(|lease| lease.generation).collect();
        let since = self.now.boot;
        self.ask_all([Outcome::Complete; 2]);
        let _ = self.run(Command::Reap { generations, threshold: 0, since });
    }

    pub(super) fn recheck_all(&mut self) {
        if self.run(Command::RecheckAll).is_ok() && self.phase == Phase::Up {
            self.nothing_live_is_free();
        }
    }

    /// Rule 7: what is in use is not free; what is not ends.
    fn nothing_live_is_free(&self) {
        for place in self.node.claims.keys() {
            let first = bridge_of(&place.segment) == 0;
            let in_pool = first || place.address.is_ipv4() && self.vlan == 0;
            let given = in_pool
                && can_be_handed_out(place.address)
                && !self.node.hosts.iter().any(|hosts| hosts.contains(&place.address));
            if given && self.engine.subnet_of(&place.segment, place.address).is_none() {
                let state = self.lease_at(place).map(|lease| lease.state);
                let taken = state.is_some_and(|state| state != State::Cooling);
                assert!(taken, "{place:?} is live and {state:?}");
            }
        }
        for lease in self.shadow.values().filter_map(Row::lease) {
            let silent = lease.is_live_quarantine()
                && self.keeps(lease, self.now.boot, false).is_none()
                && self.listed_completely();
            assert!(!silent || lease.until.is_some(), "it never ends: {lease:?}");
        }
    }

    /// Whether the sources have said all that there is.
    fn listed_completely(&self) -> bool {
        self.sources.iter().all(|s| !s.configured || s.complete == Some(self.now.boot))
    }
}
