//! The core's types as messages.

use std::{net::IpAddr, time::Duration};

use guard_core::{
    evidence::{Evidence, Source},
    incident::{Claimant, Incident, Kind, Role, Severity, Target},
    lease::{Binding, InterfaceName, Lease, PoolStatus, State, Subnet},
    segment::Segment,
};
use jiff::Timestamp;

use crate::proto;

/// A moment.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

/// What is not there is the empty text.
pub fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// One reason to keep an address.
pub fn evidence(evidence: &Evidence) -> proto::Evidence {
    let Evidence { source, detail, mac, interface, owner, since, age, .. } = evidence;
    let source = match source {
        Source::Wire => proto::Source::Wire,
        Source::Kernel => proto::Source::Kernel,
        Source::Inventory => proto::Source::Inventory,
        Source::Controller => proto::Source::Controller,
    };
    proto::Evidence {
        source: source.into(),
        detail: match owner {
            Some(owner) => format!("{detail}, of sandbox {owner}"),
            None => detail.clone(),
        },
        mac: text(*mac),
        interface: text(interface.as_ref()),
        since: Some(timestamp(*since)),
        age: duration(*age),
    }
}

/// The state of a row.
pub fn state(state: State) -> proto::LeaseState {
    match state {
        State::Held => proto::LeaseState::Held,
        State::Active => proto::LeaseState::Active,
        State::Releasing => proto::LeaseState::Releasing,
        State::Cooling => proto::LeaseState::Cooling,
        State::Quarantined => proto::LeaseState::Quarantined,
    }
}

/// Free is no state of a row.
pub fn to_state(state: proto::LeaseState) -> Option<State> {
    match state {
        proto::LeaseState::Unspecified | proto::LeaseState::Free => None,
        proto::LeaseState::Held => Some(State::Held),
        proto::LeaseState::Active => Some(State::Active),
        proto::LeaseState::Releasing => Some(State::Releasing),
        proto::LeaseState::Cooling => Some(State::Cooling),
        proto::LeaseState::Quarantined => Some(State::Quarantined),
    }
}

/// How a lease came to its binding.
pub fn binding(binding: &Binding) -> proto::Binding {
    match binding {
        Binding { declared: true, .. } => proto::Binding::Declared,
        Binding { declared: false, mac: None, interface: None, ifindex: None, .. } => {
            proto::Binding::Unspecified
        }
        Binding { declared: false, .. } => proto::Binding::Learned,
    }
}

/// How full a pool is; `away` are the sources that its transitions wait for.
pub fn pool(status: &PoolStatus, away: &[&'static str]) -> proto::Pool {
    let small = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
    let awaited = |source: &&'static str| proto::AwaitedSource {
        source: (*source).to_owned(),
        addresses: status.waiting_for(source),
    };
    proto::Pool {
        name: status.name.to_string(),
        bridge: status.segment.bridge.to_string(),
        vlan: status.segment.vlan.into(),
        prefix: status.prefix.to_string(),
        gateway: text(status.gateway),
        capacity: small(status.capacity),
        free: small(status.free),
        held: status.count(State::Held),
        active: status.count(State::Active),
        releasing: status.count(State::Releasing),
        cooling: status.count(State::Cooling),
        quarantined: status.count(State::Quarantined),
        utilisation: status.utilisation(),
        waits_for: away.iter().map(awaited).collect(),
        held_back: status.held_back,
    }
}

/// A child subnet.
pub fn subnet(subnet: &Subnet) -> proto::Subnet {
    let Subnet { id, segment, prefix, pool, created_at, maker } = subnet;
    let Segment { bridge, vlan, .. } = segment;
    proto::Subnet {
        prefix: prefix.to_string(),
        id: id.to_string(),
        pool: pool.to_string(),
        bridge: bridge.to_string(),
        vlan: (*vlan).into(),
        created_at: Some(timestamp(*created_at)),
        maker: *maker,
    }
}

/// A reserved interface name.
pub fn interface_name(interface: &InterfaceName, exists: bool) -> proto::InterfaceName {
    let InterfaceName { name, prefix, id, created_at, maker } = interface;
    proto::InterfaceName {
        name: name.to_string(),
        prefix: prefix.to_string(),
        id: id.to_string(),
        exists,
        created_at: Some(timestamp(*created_at)),
        maker: *maker,
    }
}

fn claimant(claimant: &Claimant) -> proto::Claimant {
    let role = match claimant.role {
        Role::Owner => proto::Role::Owner,
        Role::Impostor => proto::Role::Impostor,
        Role::Claimant => proto::Role::Claimant,
    };
    let owner = claimant.owner.as_ref();
    proto::Claimant {
        role: role.into(),
        mac: text(claimant.mac),
        interface: text(claimant.interface.as_ref()),
        ifindex: claimant.ifindex.unwrap_or(0),
        sandbox: text(owner.map(|owner| &owner.sandbox)),
        lifecycle: text(owner.map(|owner| &owner.lifecycle)),
        first_seen: Some(timestamp(claimant.first_seen)),
        last_seen: was_heard(claimant).then(|| timestamp(claimant.last_seen)),
        frames: claimant.frames,
        dropped: claimant.dropped,
    }
}

/// Whether a claimant has said anything: an owner is one by its binding alone.
fn was_heard(claimant: &Claimant) -> bool {
    let Claimant { role, frames, first_seen, last_seen, .. } = claimant;
    *role != Role::Owner || *frames > 0 || last_seen > first_seen
}

/// An incident.
pub fn conflict(incident: &Incident) -> proto::Conflict {
    let kind = match incident.kind {
        Kind::Inventory => proto::ConflictKind::Inventory,
        Kind::Flood => proto::ConflictKind::Flood,
        Kind::Loop => proto::ConflictKind::Loop,
        Kind::Proxy => proto::ConflictKind::Proxy,
        Kind::Opaque => proto::ConflictKind::Opaque,
        Kind::Router => proto::ConflictKind::Router,
        Kind::Coverage => proto::ConflictKind::Coverage,
        Kind::Declined => proto::ConflictKind::Declined,
        Kind::Unowned => proto::ConflictKind::Unowned,
        Kind::Flap => proto::ConflictKind::Flap,
        Kind::Duplicate => proto::ConflictKind::Duplicate,
        Kind::Clone => proto::ConflictKind::Clone,
        Kind::Gateway => proto::ConflictKind::Gateway,
    };
    let severity = match incident.severity() {
        Severity::Info => proto::Severity::Info,
        Severity::Warning => proto::Severity::Warning,
        Severity::Critical => proto::Severity::Critical,
    };
    let (source, entry) = match &incident.target {
        Target::Entry(source, entry) => (source.name().to_owned(), entry.to_string()),
        Target::Address(_) | Target::Mac(_) | Target::Port(_) | Target::Subnet(..) => {
            Default::default()
        }
    };
    let action = if incident.is_dropped() { proto::Action::Dropped } else { proto::Action::Passed };
    proto::Conflict {
        id: incident.id.to_string(),
        bridge: incident.segment.bridge.to_string(),
        vlan: incident.segment.vlan.into(),
        address: text(incident.target.address()),
        kind: kind.into(),
        severity: severity.into(),
        claimants: incident.claimants.iter().map(claimant).collect(),
        flaps: incident.flaps,
        first_seen: Some(timestamp(incident.first_seen)),
        last_seen: Some(timestamp(incident.last_seen)),
        open: incident.closed_at.is_none(),
        silenced_until: incident.silenced_until.map(timestamp),
        source,
        entry,
        detail: incident.detail.to_string(),
        inner_vlan: incident.segment.inner_vlan.into(),
        action: action.into(),
    }
}

/// An address in use, and the generation of its lease.
pub fn live_address(
    segment: &Segment,
    address: IpAddr,
    all: &[Evidence],
    lease: Option<&Lease>,
) -> proto::LiveAddress {
    let first = all.first();
    proto::LiveAddress {
        address: address.to_string(),
        bridge: segment.bridge.to_string(),
        vlan: segment.vlan.into(),
        mac: text(first.and_then(|evidence| evidence.mac)),
        interface: text(first.and_then(|evidence| evidence.interface.as_ref())),
        evidence: all.iter().map(evidence).collect(),
        lease: lease.map(|lease| lease.generation),
        inner_vlan: segment.inner_vlan.into(),
        sandbox: text(lease.and_then(|lease| lease.owner.as_ref()).map(|owner| &owner.sandbox)),
    }
}
