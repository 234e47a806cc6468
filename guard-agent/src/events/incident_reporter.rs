//! Where incidents become alerts: an event and a metric, before anything else is done, and then a line
//! in the agent's log and in the incident log.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use guard_core::{
    arbiter::Holder,
    evidence::{Source, Station, Unreadable},
    incident::{
        Claimant, Incident, Incidents, Kind, Named, Phase, Role, Severity, Sighting, Silent, Target,
    },
    lease::{Lease, Notice, State, command::Change},
    mac::Mac,
    owner::Owner,
    segment::Segment,
    time::Now,
};
use ipnet::IpNet;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};

use super::unowned::Unowned;
use crate::{
    clock,
    events::{DroppedFrames, EventBus, IncidentLog, Subject},
    ledger::AfterCommit,
    metrics::Metrics,
};

/// The incidents, and where they are reported.
pub struct IncidentReporter {
    incidents: Mutex<Incidents>,
    bus: Arc<EventBus>,
    metrics: Arc<Metrics>,
    log: IncidentLog,
    unwritten: Mutex<Vec<Line>>,
    unowned: Mutex<Unowned>,
    /// The ports on which what claims another's is dropped.
    enforced: RwLock<BTreeSet<u32>>,
}

/// What is to be written of an incident.
struct Line {
    incident: Incident,
    phase: Option<Phase>,
}

impl IncidentReporter {
    /// Starts with the incidents that an earlier run has written down. In `slaac` guests number
    /// themselves by right.
    pub fn new(
        incidents: Incidents,
        bus: Arc<EventBus>,
        metrics: Arc<Metrics>,
        log: IncidentLog,
        slaac: Vec<(Segment, IpNet)>,
    ) -> Self {
        let unwritten = Mutex::default();
        let unowned = Mutex::new(Unowned::new(slaac));
        let enforced = RwLock::default();
        Self { incidents: Mutex::new(incidents), bus, metrics, log, unwritten, unowned, enforced }
    }

    /// These are the ports on which what claims another's is dropped.
    pub fn set_enforced(&self, ports: BTreeSet<u32>) {
        *self.enforced.write() = ports;
    }

    /// A frame claims what another has. `latency` is the time since the kernel saw it, if the agent ran. What is to be
    /// written of it waits for [`IncidentReporter::write_down`], as with [`IncidentReporter::moved`].
    pub fn sighted(&self, sighting: Sighting, now: Now, latency: Option<Duration>) {
        if self.tell(sighting, now) == Some(Phase::Opened)
            && let Some(latency) = latency
        {
            self.metrics.detected(latency);
        }
    }

    fn tell(&self, mut sighting: Sighting, now: Now) -> Option<Phase> {
        let Claimant { role, ifindex, is_dropped, .. } = &mut sighting.challenger;
        let is_enforced = ifindex.is_some_and(|port| self.enforced.read().contains(&port));
        *is_dropped = *role == Role::Impostor && is_enforced;
        let (phase, incident) = self.incidents.lock().sighted(sighting, now)?;
        self.alert(phase, incident, now);
        Some(phase)
    }

    /// The one alert.
    fn alert(&self, phase: Phase, incident: Incident, now: Now) {
        let speaks = incident.silenced_until.is_none();
        let told = speaks && incident.told;
        if told {
            self.publish(phase, &incident, now);
        } else if speaks {
            // It may have got worse than what was not told.
            self.end_silences(now);
        }
        if phase == Phase::Opened {
            // Those of which nobody is notified count too.
            self.metrics.conflict_opened(&incident);
        }
        self.write_later(told.then_some(phase), incident);
    }

    fn write_later(&self, phase: Option<Phase>, incident: Incident) {
        self.unwritten.lock().push(Line { incident, phase });
    }

    /// How much waits for [`IncidentReporter::write_down`].
    pub fn unwritten(&self) -> usize {
        self.unwritten.lock().len()
    }

    /// Writes what has been reported into the agent's log and the incident log. Who waits for news
    /// should have had them by now: this takes its time.
    pub fn write_down(&self) {
        let mut unwritten = self.unwritten.lock();
        for Line { incident, phase } in unwritten.drain(..) {
            match phase {
                Some(Phase::Opened) => log_opened(&incident),
                Some(Phase::Closed) => log_closed(&incident),
                Some(Phase::Changed) | None => {}
            }
            self.log.write(incident);
        }
    }

    fn publish(&self, phase: Phase, incident: &Incident, now: Now) {
        self.bus.publish(now.wall, Subject::Conflict(phase, Box::new(incident.clone())));
    }

    /// Keeps an incident from alerting anyone for a while. None if there is no such incident.
    pub fn silence(&self, id: u64, span: Duration, now: Now) -> Option<Incident> {
        let incident = self.incidents.lock().silence(id, span, now)?;
        tracing::info!(id, address = %incident.target, until = ?incident.silenced_until, "silenced");
        if incident.told {
            self.publish(Phase::Changed, &incident, now);
        }
        self.write_later(None, incident.clone());
        self.end_silences(now);
        self.write_down();
        Some(incident)
    }

    /// Tells of what lasts longer than its silence.
    fn end_silences(&self, now: Now) {
        let due = self.incidents.lock().end_silences(now);
        for incident in due {
            self.publish(Phase::Opened, &incident, now);
            self.write_later(Some(Phase::Opened), incident);
        }
    }

    /// An address went by right from one claimant to another.
    pub fn moved(
        &self,
        segment: &Segment,
        address: IpAddr,
        sides: (Option<&Claimant>, &Claimant),
        mild: bool,
        now: Now,
    ) {
        let moved = self.incidents.lock().moved(segment, address, sides, mild, now);
        if let Some((phase, incident)) = moved {
            self.alert(phase, incident, now);
        }
    }

    /// What a port claims of an address is part of an incident about the port.
    pub fn folded(&self, segment: &Segment, address: IpAddr, ifindex: u32, now: Now) {
        let closed = self.incidents.lock().folded(segment, address, ifindex, now);
        self.closed(closed.into_iter().collect(), now);
    }

    /// A holder in a dispute still speaks.
    pub fn holder_spoke(&self, segment: &Segment, address: IpAddr, holder: &Claimant, now: Now) {
        let worse = self.incidents.lock().holder_spoke(segment, address, holder, now);
        if let Some((phase, incident)) = worse {
            self.alert(phase, incident, now);
        }
    }

    /// Claimants that have not been heard for long.
    pub fn silent(&self, now: Now) -> Vec<Silent> {
        self.incidents.lock().silent(now)
    }

    /// A claimant is gone. Returns the incident, where it is over with it.
    pub fn claimant_gone(
        &self,
        key: &(Segment, Target),
        who: (Option<Mac>, Option<u32>),
        now: Now,
    ) -> Option<Incident> {
        let over = self.incidents.lock().gone(key, who, now)?;
        self.closed(vec![over.clone()], now);
        Some(over)
    }

    /// The kind of the incident that is open about an address or a MAC.
    pub fn kind(&self, segment: &Segment, target: Target) -> Option<Kind> {
        self.incidents.lock().kind(segment, target)
    }

    /// Whether an incident has counted so many frames of a station.
    pub fn has_counted(&self, key: &(Segment, Target), station: (Mac, u32), frames: u64) -> bool {
        self.incidents.lock().has_counted(key, station, frames)
    }

    /// A port is gone.
    pub fn port_gone(&self, ifindex: u32, now: Now) {
        let closed = self.incidents.lock().port_gone(ifindex, now);
        self.closed(closed, now);
        self.write_down();
    }

    /// A port has left its bridge.
    pub fn port_left(&self, ifindex: u32, now: Now) {
        let closed = self.incidents.lock().port_left(ifindex, now);
        self.closed(closed, now);
        self.write_down();
    }

    /// Closes what has been quiet for long enough.
    pub fn close_quiet(&self, now: Now) {
        self.end_silences(now);
        let closed = self.incidents.lock().close(now);
        self.closed(closed, now);
        self.write_down();
    }

    /// The incidents, the oldest first.
    pub fn list(&self, all: bool) -> Vec<Incident> {
        self.incidents.lock().list(all)
    }

    /// Those of [`Self::list`] that come after an id, at most so many.
    pub fn list_after(&self, all: bool, id: u64, most: usize) -> Vec<Incident> {
        self.incidents.lock().list_after(all, id, most)
    }

    /// Those that are open and the events from now on, with nothing in between.
    pub fn subscribe(&self) -> (Vec<Incident>, crate::events::Subscription) {
        let incidents = self.incidents.lock();
        (incidents.list(false), self.bus.subscribe(None))
    }

    /// A lease has a declared binding, that of before or another: it ends what it has settled.
    fn bound(&self, lease: &Lease, now: Now) -> bool {
        let Lease { segment, address, generation, binding, .. } = lease;
        let declared = binding.declared && !binding.port_ended;
        let Some(owner) = lease.owner.clone().filter(|_| declared) else { return false };
        let holder = Holder { owner, generation: *generation, binding: binding.clone() };
        let owner = holder.claimant(now);
        let over = self.incidents.lock().bound(segment, *address, (binding, &owner), now);
        let told = !over.is_empty();
        self.closed(over, now);
        told
    }

    fn is_unowned(&self, lease: &Lease) -> bool {
        self.kind(&lease.segment, Target::Address(lease.address)) == Some(Kind::Unowned)
            || self.unowned.lock().has(&lease.segment, lease.address)
    }

    /// A source lists these entries that cannot be read, and no others.
    pub fn unreadable(&self, source: Source, all: &[Unreadable], now: Now) {
        let told = self.incidents.lock().unreadable(source, all, now);
        self.all(told, now);
        self.write_down();
    }

    /// Another program is before ours on a port, and may keep frames from it; or ours was taken off it.
    pub fn hidden(&self, segment: &Segment, port: Claimant, by: &str, now: Now) {
        let told = self.incidents.lock().hidden(segment, port, by, now);
        self.all(told, now);
        self.write_down();
    }

    /// The addresses that several were said to have, as far as that is not over.
    pub fn listed(&self) -> Vec<(Segment, IpAddr)> {
        self.incidents.lock().listed()
    }

    /// An operator does without a source until then, or does so no more.
    pub fn source(&self, name: &'static str, ignored_until: Option<Timestamp>, now: Now) {
        self.bus.publish(now.wall, Subject::Source { name, ignored_until });
    }

    /// Frames of a port are dropped.
    pub fn dropped(&self, frames: DroppedFrames, now: Now) {
        self.bus.publish(now.wall, Subject::Dropped(Box::new(frames)));
    }

    /// Two stations probe for one address, which is no conflict (claims.md A05, N03).
    pub fn probe_race(
        &self,
        segment: &Segment,
        address: IpAddr,
        stations: [&Station; 2],
        now: Now,
    ) {
        let (segment, stations) = (segment.clone(), stations.map(Clone::clone));
        self.bus.publish(now.wall, Subject::ProbeRace { segment, address, stations });
    }

    fn all(&self, told: impl IntoIterator<Item = (Phase, Incident)>, now: Now) {
        for (phase, incident) in told {
            if phase == Phase::Closed {
                self.closed(vec![incident], now);
            } else {
                self.alert(phase, incident, now);
            }
        }
    }

    /// Sets the gauges of open incidents.
    pub fn collect<'a>(&self, bridges: impl Iterator<Item = &'a str>) {
        self.metrics.set_conflicts_open(bridges, &self.incidents.lock().count());
    }

    fn closed(&self, closed: Vec<Incident>, now: Now) {
        for incident in closed {
            if incident.told {
                self.publish(Phase::Closed, &incident, now);
            }
            self.write_later(incident.told.then_some(Phase::Closed), incident);
        }
    }
}

impl AfterCommit for Arc<IncidentReporter> {
    fn restored(&mut self, leases: &[Arc<Lease>]) {
        let (mut unowned, now) = (self.unowned.lock(), clock::now());
        for lease in leases.iter().filter(|lease| lease.state == State::Quarantined) {
            // Its incident is among those that were written down.
            unowned.found(lease, now);
        }
    }

    /// The owner's side of a dispute ends with its lease, and what is in use without one is nobody's.
    fn committed(&mut self, changes: &[Change], now: Now) {
        let mut told = false;
        for change in changes {
            match change {
                Change::Put(lease) if lease.state == State::Quarantined => {
                    let found = self.unowned.lock().found(lease, now);
                    told |= found.is_some_and(|it| self.tell(it, now).is_some());
                }
                Change::Put(lease) if lease.state == State::Releasing => {}
                Change::Put(lease) if lease.state.is_owned() && !self.is_unowned(lease) => {
                    told |= self.bound(lease, now);
                }
                Change::Put(lease) | Change::Free(lease) => {
                    let Lease { segment, address, .. } = &**lease;
                    let group = self.unowned.lock().gone(segment, *address);
                    for target in group.into_iter().chain([Target::Address(*address)]) {
                        let closed = self.incidents.lock().settled(segment, target, now);
                        told |= closed.is_some();
                        self.closed(closed.into_iter().collect(), now);
                    }
                }
            }
        }
        // Or else whoever commits would wait for what the observer has to write.
        if told {
            self.write_down();
        }
    }

    fn noticed(&mut self, notices: &[Notice]) {
        let now = clock::now();
        let mut told = false;
        for notice in notices {
            let Notice::Named { segment, address, holder, others } = notice else { continue };
            let named = named(holder.as_deref(), others);
            let dispute = self.incidents.lock().disputed(segment, *address, &named, now);
            told |= dispute.is_some();
            self.all(dispute, now);
        }
        if told {
            self.write_down();
        }
    }
}

/// Those who are said to have an address, its holder first.
fn named(holder: Option<&Lease>, others: &[Owner]) -> Vec<Named> {
    let declared = holder.is_some_and(|lease| lease.binding.declared);
    let (of_holder, of_others) =
        if declared { (Role::Owner, Role::Impostor) } else { (Role::Claimant, Role::Claimant) };
    let holder = holder.and_then(|lease| lease.owner.clone());
    let holder = holder.map(|owner| Named { owner, role: of_holder });
    let others = others.iter().map(|owner| Named { owner: owner.clone(), role: of_others });
    holder.into_iter().chain(others).collect()
}

/// A line in the log, as loud as an incident is bad. A level is fixed where a line is written, so there
/// are three of it.
macro_rules! log_at {
    ($severity:expr, $($line:tt)+) => {
        match $severity {
            Severity::Critical => tracing::error!($($line)+),
            Severity::Warning => tracing::warn!($($line)+),
            Severity::Info => tracing::info!($($line)+),
        }
    };
}

fn log_opened(incident: &Incident) {
    let Incident { id, segment, target, detail, kind, first_seen, .. } = incident;
    let severity = incident.severity();
    let text = match kind {
        Kind::Inventory => {
            return log_at!(
                severity,
                id,
                source = %target,
                kind = kind.name(),
                severity = severity.name(),
                detail = &**detail,
                %first_seen,
                "inventory: an entry cannot be read, and keeps what it said before"
            );
        }
        Kind::Flood => "conflict: a port is over its quota or its budget",
        Kind::Loop => "conflict: a port sends back what came from this bridge",
        Kind::Proxy => "conflict: a port claims the addresses of many",
        Kind::Opaque => "conflict: a port sends what cannot be read to its end",
        Kind::Router => "conflict: a port acts as a router",
        Kind::Coverage => "conflict: frames of a port may pass unseen",
        Kind::Declined => "conflict: a DHCP client has found an address to be another's",
        Kind::Unowned => "conflict: an address is in use without a lease",
        Kind::Flap => "conflict: an address goes back and forth",
        Kind::Duplicate if incident.unanswered => {
            "conflict: the former holder of an address does not answer; it has probably moved"
        }
        Kind::Duplicate => "conflict: two claimants of one address",
        Kind::Clone => "conflict: one MAC on two ports",
        Kind::Gateway => "conflict: an address or the MAC of the host is claimed",
    };
    log_at!(
        severity,
        id,
        bridge = %segment.bridge,
        vlan = segment.vlan,
        address = %target,
        kind = kind.name(),
        severity = severity.name(),
        claimants = claimants(incident),
        action = incident.is_dropped().then_some("dropped"),
        detail = (!detail.is_empty()).then_some(&**detail),
        %first_seen,
        "{text}"
    );
}

fn log_closed(incident: &Incident) {
    let Incident { id, segment, target, kind, .. } = incident;
    if *kind == Kind::Inventory {
        return tracing::info!(
            id, source = %target, kind = kind.name(),
            "inventory: what could not be read is over"
        );
    }
    tracing::info!(
        id,
        bridge = %segment.bridge,
        vlan = segment.vlan,
        address = %target,
        kind = kind.name(),
        claimants = claimants(incident),
        "conflict closed"
    );
}

fn claimants(incident: &Incident) -> String {
    incident.claimants.iter().map(describe).collect::<Vec<_>>().join(" / ")
}

/// `impostor 02:00:00:00:00:0b on veth-b (sandbox b)`.
fn describe(claimant: &Claimant) -> String {
    let Claimant { role, mac, interface, owner, .. } = claimant;
    let mac = mac.map_or_else(|| "any MAC".to_owned(), |mac| mac.to_string());
    let interface = interface.as_deref().unwrap_or("any port");
    let owner = owner.as_ref().map(|owner| format!(" (sandbox {owner})"));
    format!("{} {mac} on {interface}{}", role.name(), owner.unwrap_or_default())
}
