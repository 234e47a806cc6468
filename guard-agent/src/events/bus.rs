//! The event stream: what was committed or told, in order, for any number of subscribers.
//!
//! Nobody who publishes ever waits: a subscriber that lags loses events and is told so.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use guard_core::{
    evidence::Station,
    incident::{Incident, Phase},
    lease::{Lease, State, command::Change},
    segment::Segment,
    time::Now,
};
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::sync::broadcast;

use crate::ledger::AfterCommit;

/// Events that a subscriber can still ask for, and that one may lag behind.
const KEPT: usize = 8192;

/// What an event is about.
#[derive(Clone, Debug)]
pub enum Subject {
    /// An address that is not free.
    Lease(Arc<Lease>),
    /// An address that is free again.
    Free(Arc<Lease>),
    /// An incident.
    Conflict(Phase, Box<Incident>),
    /// An operator does without a source until then, or does so no more.
    Source {
        /// Its name in the configuration.
        name: &'static str,
        /// Until when.
        ignored_until: Option<Timestamp>,
    },
    /// Two stations probe for one address.
    ProbeRace {
        /// Where.
        segment: Segment,
        /// For what.
        address: IpAddr,
        /// Who, the first one first.
        stations: [Station; 2],
    },
    /// Frames of a port are dropped.
    Dropped(Box<DroppedFrames>),
}

/// Frames of a port that are dropped for one reason.
#[derive(Clone, Debug)]
pub struct DroppedFrames {
    /// The bridge.
    pub bridge: Arc<str>,
    /// The port.
    pub interface: Arc<str>,
    /// Its index.
    pub ifindex: u32,
    /// Why.
    pub reason: &'static str,
    /// What the first one claimed.
    pub address: Option<IpAddr>,
    /// How many there were since it was told last.
    pub frames: u64,
    /// How many there were in all.
    pub dropped: u64,
}

impl Subject {
    /// The event's `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lease(lease) => match lease.state {
                State::Held => "lease.held",
                State::Active => "lease.active",
                State::Releasing => "lease.releasing",
                State::Cooling => "lease.cooling",
                State::Quarantined => "lease.quarantined",
            },
            Self::Free(_) => "lease.free",
            Self::Conflict(Phase::Opened, _) => "conflict.opened",
            Self::Conflict(Phase::Changed, _) => "conflict.changed",
            Self::Conflict(Phase::Closed, _) => "conflict.closed",
            Self::Source { ignored_until: Some(_), .. } => "source.ignored",
            Self::Source { ignored_until: None, .. } => "source.heeded",
            Self::ProbeRace { .. } => "probe_race",
            Self::Dropped(_) => "frames.dropped",
        }
    }
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Grows with every event, over restarts too.
    pub seq: u64,
    /// When it was published.
    pub time: Timestamp,
    /// What it is about.
    pub subject: Subject,
}

/// What a subscription begins with.
pub struct Subscription {
    /// Events between the asked one and now.
    pub backlog: Vec<Arc<Event>>,
    /// Some of those that were asked for are not held any more.
    pub gap: bool,
    /// The number of the last event before `receiver`.
    pub seq: u64,
    /// Events from now on.
    pub receiver: broadcast::Receiver<Arc<Event>>,
}

/// How far each configured subscriber has got.
#[derive(Debug)]
struct Reader {
    name: Arc<str>,
    sent: Arc<AtomicU64>,
}

/// The event stream.
pub struct EventBus {
    inner: Mutex<Inner>,
    sender: broadcast::Sender<Arc<Event>>,
    readers: RwLock<Vec<Reader>>,
}

struct Inner {
    last: u64,
    recent: VecDeque<Arc<Event>>,
}

impl EventBus {
    /// The stream of one run of the agent. `epoch` counts the runs: sequence numbers of a later run
    /// are greater, whatever an earlier one did not get on disk.
    pub fn new(epoch: u64, subscribers: impl IntoIterator<Item = Arc<str>>) -> Self {
        let last = epoch << 32;
        let inner = Inner { last, recent: VecDeque::new() };
        let bus = Self {
            inner: Mutex::new(inner),
            sender: broadcast::Sender::new(KEPT),
            readers: RwLock::default(),
        };
        bus.set_subscribers(subscribers);
        bus
    }

    /// From now on these are the configured subscribers. One that is new has missed nothing.
    pub fn set_subscribers(&self, subscribers: impl IntoIterator<Item = Arc<str>>) {
        let last = self.inner.lock().last;
        let mut readers = self.readers.write();
        let mut known = std::mem::take(&mut *readers);
        for name in subscribers {
            let old = known.iter().position(|reader| reader.name == name);
            let new = || Reader { name, sent: Arc::new(AtomicU64::new(last)) };
            readers.push(old.map_or_else(new, |at| known.swap_remove(at)));
        }
    }

    /// Where a configured subscriber's progress is written down; nowhere for others.
    pub fn progress(&self, subscriber: &str) -> Option<Arc<AtomicU64>> {
        let readers = self.readers.read();
        let reader = readers.iter().find(|reader| *reader.name == *subscriber)?;
        Some(Arc::clone(&reader.sent))
    }

    /// How many events each configured subscriber has not been sent yet, connected or not.
    pub fn lags(&self) -> Vec<(Arc<str>, u64)> {
        let last = self.inner.lock().last;
        let lag = |reader: &Reader| last.saturating_sub(reader.sent.load(Ordering::Relaxed));
        let readers = self.readers.read();
        readers.iter().map(|reader| (Arc::clone(&reader.name), lag(reader))).collect()
    }

    /// The number of the last event: whatever changes from now on gets a greater one.
    pub fn last(&self) -> u64 {
        self.inner.lock().last
    }

    /// Tells all subscribers.
    pub fn publish(&self, time: Timestamp, subject: Subject) {
        let inner = &mut *self.inner.lock();
        inner.last += 1;
        let event = Arc::new(Event { seq: inner.last, time, subject });
        if inner.recent.len() == KEPT {
            inner.recent.pop_front();
        }
        inner.recent.push_back(event.clone());
        // An error says that nobody listens.
        let _ = self.sender.send(event);
    }

    /// Subscribes to what comes after `from`, or from now on. A number that no event has had yet is
    /// another store's: what came after it there is missing here.
    pub fn subscribe(&self, from: Option<u64>) -> Subscription {
        let inner = self.inner.lock();
        let receiver = self.sender.subscribe();
        let from = from.unwrap_or(inner.last);
        let backlog: Vec<_> =
            inner.recent.iter().filter(|event| event.seq > from).cloned().collect();
        let first = backlog.first().map_or(inner.last + 1, |event| event.seq);
        Subscription {
            backlog,
            gap: from != inner.last && first - 1 != from,
            seq: inner.last,
            receiver,
        }
    }
}

impl AfterCommit for Arc<EventBus> {
    fn restored(&mut self, _leases: &[Arc<Lease>]) {}

    fn committed(&mut self, changes: &[Change], now: Now) {
        for change in changes {
            self.publish(
                now.wall,
                match change.clone() {
                    Change::Put(lease) => Subject::Lease(lease),
                    Change::Free(lease) => Subject::Free(lease),
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    use guard_core::incident::{Flaps, Incidents, Kind};

    fn publish(bus: &EventBus, count: usize) {
        let window = std::time::Duration::ZERO;
        let flaps = Flaps::new(window, std::num::NonZeroU32::MIN);
        let mut incidents = Incidents::new(window, flaps, 1);
        let now = clock::now();
        let claimant = guard_core::incident::Claimant {
            role: guard_core::incident::Role::Impostor,
            mac: None,
            interface: None,
            ifindex: None,
            owner: None,
            first_seen: now.wall,
            last_seen: now.wall,
            last: now.boot,
            frames: 1,
            dropped: 0,
            is_dropped: false,
            counter: 0,
            gone: false,
        };
        let sighting = guard_core::incident::Sighting {
            segment: Segment::new("rt0", 0),
            target: guard_core::incident::Target::Address(IpAddr::from([10, 0, 0, 1])),
            kind: Kind::Gateway,
            mild: false,
            critical: false,
            holder: None,
            challenger: claimant,
            detail: None,
            unanswered: false,
        };
        let (phase, incident) = incidents.sighted(sighting, now).unwrap();
        for _ in 0..count {
            bus.publish(now.wall, Subject::Conflict(phase, Box::new(incident.clone())));
        }
    }

    #[test]
    fn a_subscriber_resumes_where_it_was() {
        let bus = EventBus::new(3, []);
        publish(&bus, 3);
        let first = 3 << 32;
        let Subscription { backlog, gap, seq, .. } = bus.subscribe(Some(first + 1));
        assert_eq!(backlog.iter().map(|event| event.seq - first).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((gap, seq), (false, first + 3));
        assert!(bus.subscribe(None).backlog.is_empty() && !bus.subscribe(None).gap);
    }

    #[test]
    fn a_subscriber_that_stays_keeps_its_place() {
        let bus = EventBus::new(3, ["a".into(), "b".into()]);
        publish(&bus, 2);
        bus.set_subscribers(["c".into(), "b".into()]);
        publish(&bus, 1);
        assert_eq!(bus.lags(), [("c".into(), 1), ("b".into(), 3)]);
        assert!(bus.progress("a").is_none());
    }

    #[test]
    fn what_is_not_held_any_more_is_a_gap() {
        let bus = EventBus::new(3, []);
        publish(&bus, KEPT + 1);
        assert!(bus.subscribe(Some(3 << 32)).gap);
        assert!(!bus.subscribe(Some((3 << 32) + 1)).gap);
        assert!(bus.subscribe(Some(2 << 32)).gap, "an earlier run's events");
    }

    #[test]
    fn a_number_that_no_event_has_had_is_a_gap() {
        let bus = EventBus::new(3, []);
        publish(&bus, 1);
        let last = bus.last();
        for from in [last + 1, u64::MAX - 1, u64::MAX] {
            let Subscription { backlog, gap, seq, .. } = bus.subscribe(Some(from));
            assert!(backlog.is_empty() && gap && seq == last, "{from}");
        }
        assert!(!bus.subscribe(Some(last)).gap);
    }
}
