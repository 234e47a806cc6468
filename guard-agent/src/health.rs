//! What is degraded, since when and why; and whether the boot pass has ended.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::RwLock;
use tokio::sync::watch;

/// One thing that does not work as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Degraded {
    /// The thing: `bridge rt0`, `bindings`.
    pub what: String,
    /// Since when.
    pub since: Timestamp,
    /// Why, and what to do.
    pub why: String,
}

/// The health of the agent, shared by all of its parts.
#[derive(Debug)]
pub struct Health {
    degraded: RwLock<BTreeMap<String, Degraded>>,
    booted: watch::Sender<bool>,
}

impl Default for Health {
    fn default() -> Self {
        Self { degraded: RwLock::default(), booted: watch::Sender::new(false) }
    }
}

impl Health {
    /// Something does not work. Logged when it begins, and when its reason changes.
    pub fn degraded(&self, what: &str, why: &str) {
        let mut all = self.degraded.write();
        match all.get_mut(what) {
            Some(known) if known.why == why => {}
            Some(known) => {
                tracing::warn!(what, why, "still degraded");
                why.clone_into(&mut known.why);
            }
            None => {
                tracing::warn!(what, why, "degraded");
                let (what, why) = (what.to_owned(), why.to_owned());
                all.insert(what.clone(), Degraded { what, since: Timestamp::now(), why });
            }
        }
    }

    /// It works again.
    pub fn recovered(&self, what: &str) {
        if self.degraded.read().contains_key(what) && self.degraded.write().remove(what).is_some() {
            tracing::info!(what, "recovered");
        }
    }

    /// All that is degraded now.
    pub fn list(&self) -> Vec<Degraded> {
        self.degraded.read().values().cloned().collect()
    }

    /// Why one thing is degraded, if it is.
    pub fn why(&self, what: &str) -> Option<String> {
        self.degraded.read().get(what).map(|degraded| degraded.why.clone())
    }

    /// What keeps the observer from seeing all, if anything. Bridges that do not exist,
    /// and VLANs that no port is in, concern their own pools alone, what is dropped is no evidence, the store, the watchdog and the other sources answer for themselves, and
    /// nothing rests on HTTP.
    pub fn observer(&self) -> Option<Degraded> {
        self.first(|_| true)
    }

    /// The first of those that concern the observer, and are so.
    fn first(&self, is: impl Fn(&str) -> bool) -> Option<Degraded> {
        let all = self.degraded.read();
        let others = |what: &str| {
            what.starts_with(BRAKE)
                || what.starts_with(BRIDGE)
                || what.starts_with(ENFORCEMENT)
                || what.starts_with(POOL)
                || what.starts_with(SOURCE)
                || [STORE, BOOT, WATCHDOG, HTTP, NEIGHBOURS].contains(&what)
        };
        all.values().find(|degraded| !others(&degraded.what) && is(&degraded.what)).cloned()
    }

    /// The same without what frames alone can bring about: that keeps nobody from allocating.
    pub fn observer_itself(&self) -> Option<Degraded> {
        self.first(|what| ![FULL, LOST].contains(&what))
    }

    /// The boot pass has ended: allocation may begin.
    pub fn boot_pass_ended(&self) {
        if !self.booted.send_replace(true) {
            tracing::info!("boot pass ended");
        }
    }

    /// Whether the boot pass has ended.
    pub fn booted(&self) -> bool {
        *self.booted.borrow()
    }

    /// The boot pass has ended and nothing is degraded, but for brakes: those a few sandboxes together can
    /// have put on, by what they send.
    pub fn ready(&self) -> bool {
        self.booted() && self.degraded.read().keys().all(|what| what.starts_with(BRAKE))
    }
}

/// How an observer that does not come round is listed.
pub const OBSERVER: &str = "observer";

/// How a store that cannot be written is listed.
pub const STORE: &str = "store";

/// How a boot pass that takes too long is listed.
pub const BOOT: &str = "boot pass";

/// How maps without room are listed.
pub const FULL: &str = "maps full";

/// How frames that passed because the program could not judge them are listed.
pub const UNJUDGED: &str = "enforcement: frames unjudged";

/// How events that found no room in the ring are listed.
pub const LOST: &str = "events lost";

/// How containers that cannot be removed are listed.
pub const WATCHDOG: &str = "watchdog";

/// How enforcement is listed that cannot do what is configured, on all bridges.
pub const ENFORCEMENT: &str = "enforcement";

/// How neighbours that cannot be read are listed.
pub const NEIGHBOURS: &str = "neighbours";

/// How HTTP that cannot be served is listed.
pub const HTTP: &str = "http";

const BRAKE: &str = "brake ";
const BRIDGE: &str = "bridge ";
const POOL: &str = "pool ";
const SOURCE: &str = "source ";

/// How a source that does not answer completely is listed.
pub fn source(name: &str) -> String {
    format!("{SOURCE}{name}")
}

/// How a bridge is listed that does not enforce all that is configured.
pub fn enforcement(bridge: &str) -> String {
    format!("{ENFORCEMENT} {bridge}")
}

/// How a bridge is listed on which the brake is on.
pub fn brake(bridge: &str) -> String {
    format!("{BRAKE}{bridge}")
}

/// How a bridge that does not exist is listed.
pub fn bridge(name: &str) -> String {
    format!("{BRIDGE}{name}")
}

/// How a bridge is listed over which is what no port sees.
pub fn above(name: &str) -> String {
    format!("{BRIDGE}{name}: macvlans")
}

/// How a pool is listed whose VLAN no port is in.
pub fn pool(name: &str) -> String {
    format!("{POOL}{name}")
}

/// When a loop last came round.
#[derive(Debug)]
pub struct Heartbeat {
    origin: Instant,
    /// In milliseconds since then.
    last: AtomicU64,
}

impl Heartbeat {
    /// Has just come round.
    pub fn new(now: Instant) -> Self {
        Self { origin: now, last: AtomicU64::new(0) }
    }

    /// Its loop runs.
    pub fn beat(&self, now: Instant) {
        let since = now.saturating_duration_since(self.origin).as_millis();
        self.last.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long ago it came round.
    pub fn age(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        now.saturating_duration_since(self.origin).saturating_sub(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_booted_and_whole() {
        let health = Health::default();
        assert!(!health.ready());
        health.boot_pass_ended();
        assert!(health.ready());
        health.degraded("bridge rt0", "it does not exist");
        assert!(!health.ready());
        let since = health.list()[0].since;
        health.degraded("bridge rt0", "it vanished");
        assert_eq!(health.list()[0].since, since, "the same trouble, another reason");
        health.recovered("bridge rt0");
        assert!(health.ready());
    }

    #[test]
    fn a_brake_is_listed_and_takes_no_readiness_away() {
        let health = Health::default();
        health.boot_pass_ended();
        health.degraded(&brake("rt0"), "it is on");
        assert!(health.ready() && health.observer().is_none());
        assert_eq!(health.list().len(), 1);
        health.degraded(STORE, "it is damaged");
        assert!(!health.ready());
    }

    #[test]
    fn a_heartbeat_ages_until_the_next() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let heartbeat = Heartbeat::new(start);
        assert_eq!(heartbeat.age(at(11)), Duration::from_secs(11));
        heartbeat.beat(at(11));
        assert_eq!(heartbeat.age(at(11)), Duration::ZERO);
        assert_eq!(heartbeat.age(at(14)), Duration::from_secs(3));
    }
}
