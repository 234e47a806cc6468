//! Where incidents become alerts: a log line, a metric and an event, before anything else is done.

use std::{net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    clock::Now,
    hub::{Hub, Subject},
    incident::{Claimant, Incident, Incidents, Phase, Severity, Sighting},
    lease::{Lease, State, command::Change},
    ledger::Lifecycle,
    metrics::Metrics,
    segment::Segment,
};

/// The incidents, and those who are told.
pub struct Alerts {
    incidents: Mutex<Incidents>,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
}

impl Alerts {
    /// No incident yet.
    pub fn new(incidents: Incidents, hub: Arc<Hub>, metrics: Arc<Metrics>) -> Self {
        Self { incidents: Mutex::new(incidents), hub, metrics }
    }

    /// A frame claims what another has. `latency` is the time since the kernel saw it.
    pub fn sighted(&self, sighting: Sighting, now: Now, latency: Duration) {
        let Some((phase, incident)) = self.incidents.lock().sighted(sighting, now) else { return };
        if phase == Phase::Opened {
            self.metrics.conflict_opened(&incident, latency);
            log_opened(&incident);
        }
        self.hub.publish(now.wall, Subject::Conflict(phase, Box::new(incident)));
    }

    /// A holder without a declared binding still speaks.
    pub fn holder_spoke(&self, segment: &Segment, address: IpAddr, holder: &Claimant) {
        self.incidents.lock().spoke(segment, address, holder);
    }

    /// Whether there is an open incident about an address.
    pub fn is_open(&self, segment: &Segment, address: IpAddr) -> bool {
        self.incidents.lock().is_open(segment, address)
    }

    /// A port is gone.
    pub fn port_gone(&self, ifindex: u32, now: Now) {
        let closed = self.incidents.lock().port_gone(ifindex, now);
        self.closed(closed, now);
    }

    /// Closes what has been quiet for long enough.
    pub fn close_quiet(&self, now: Now) {
        let closed = self.incidents.lock().close(now);
        self.closed(closed, now);
    }

    /// The incidents, the oldest first.
    pub fn list(&self, all: bool) -> Vec<Incident> {
        self.incidents.lock().list(all)
    }

    /// Those that are open and the events from now on, with nothing in between.
    pub fn subscribe(&self) -> (Vec<Incident>, crate::hub::Subscription) {
        let incidents = self.incidents.lock();
        (incidents.list(false), self.hub.subscribe(None))
    }

    /// Sets the gauges of open incidents.
    pub fn collect(&self) {
        self.metrics.set_conflicts_open(&self.incidents.lock().count());
    }

    fn closed(&self, closed: Vec<Incident>, now: Now) {
        for incident in closed {
            tracing::info!(
                id = incident.id,
                bridge = %incident.segment.bridge,
                vlan = incident.segment.vlan,
                address = %incident.address,
                kind = incident.kind.name(),
                claimants = claimants(&incident),
                "conflict closed"
            );
            self.hub.publish(now.wall, Subject::Conflict(Phase::Closed, Box::new(incident)));
        }
    }
}

impl Lifecycle for Arc<Alerts> {
    fn restored(&mut self, _leases: &[Arc<Lease>]) {}

    /// The owner's side of a dispute ends with its lease.
    fn committed(&mut self, changes: &[Change], now: Now) {
        for change in changes {
            let (Change::Put(lease) | Change::Free(lease)) = change;
            let over = matches!(change, Change::Free(_)) || lease.state == State::Cooling;
            if over {
                let closed = self.incidents.lock().settled(&lease.segment, lease.address, now);
                self.closed(closed.into_iter().collect(), now);
            }
        }
    }
}

fn log_opened(incident: &Incident) {
    let Incident { id, segment, address, kind, first_seen, .. } = incident;
    let severity = kind.severity();
    let text = match severity {
        Severity::Warning => "conflict: two claimants of one address",
        Severity::Critical => "conflict: an address of the host is claimed",
    };
    tracing::warn!(
        id,
        bridge = %segment.bridge,
        vlan = segment.vlan,
        %address,
        kind = kind.name(),
        severity = severity.name(),
        claimants = claimants(incident),
        %first_seen,
        "{text}"
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
    let owner = owner.as_ref().map(|owner| format!(" (sandbox {})", owner.sandbox));
    format!("{} {mac} on {interface}{}", role.name(), owner.unwrap_or_default())
}
