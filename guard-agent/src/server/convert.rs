//! The core's types as messages.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use guard_api::proto;
use guard_core::{
    evidence::{Evidence, Source},
    incident::{Claimant, Incident, Kind, Role, Severity, Target},
    judgement::Verdict,
    lease::{Binding, InterfaceName, Lease, Pool, PoolStatus, State, Subnet},
    owner::Owner,
    segment::Segment,
    watchdog::Watched,
};
use jiff::Timestamp;

use crate::{
    clock,
    config::Config,
    events::{self, Subject},
};

pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

pub fn system_time(time: SystemTime) -> Option<prost_types::Timestamp> {
    Timestamp::try_from(time).ok().map(timestamp)
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

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

pub fn watched(watched: Watched) -> proto::WatchedContainer {
    let Watched { container, verdict, failed } = watched;
    let (fate, why) = match (verdict, failed) {
        (Verdict::Keep(why), _) => (proto::Fate::Kept, why.to_string()),
        (Verdict::LookUp(_), _) => (proto::Fate::Kept, String::new()),
        (Verdict::Over(why), None) => (proto::Fate::Removed, why.to_string()),
        (Verdict::Over(_), Some(why)) => (proto::Fate::Failed, why),
    };
    proto::WatchedContainer {
        id: container.id.to_string(),
        sandbox: container.owner.sandbox.to_string(),
        lifecycle: container.owner.lifecycle.to_string(),
        fate: fate.into(),
        why: super::error::brief(why),
    }
}

fn state(state: State) -> proto::LeaseState {
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

fn binding(binding: &Binding) -> proto::Binding {
    match binding {
        Binding { declared: true, .. } => proto::Binding::Declared,
        Binding { declared: false, mac: None, interface: None, ifindex: None, .. } => {
            proto::Binding::Unspecified
        }
        Binding { declared: false, .. } => proto::Binding::Learned,
    }
}

pub fn lease(lease: &Lease, all: &[Evidence], config: &Config) -> proto::Lease {
    let pool = config.pools.get(&lease.pool);
    let now = clock::now();
    let until = lease.until.map(|until| timestamp(now.wall_at(until)));
    let owner = |part: fn(&Owner) -> &Arc<str>| text(lease.owner.as_ref().map(part));
    proto::Lease {
        address: lease.address.to_string(),
        prefix_len: pool.map_or(0, |pool| pool.prefix().prefix_len().into()),
        gateway: text(pool.and_then(Pool::gateway)),
        pool: lease.pool.to_string(),
        bridge: lease.segment.bridge.to_string(),
        vlan: lease.segment.vlan.into(),
        state: state(lease.state).into(),
        sandbox: owner(|owner| &owner.sandbox),
        lifecycle: owner(|owner| &owner.lifecycle),
        key: lease.key.to_string(),
        generation: lease.generation,
        mac: text(lease.binding.mac),
        interface: text(lease.binding.interface.as_ref()),
        binding: binding(&lease.binding).into(),
        reason: lease.reason.to_string(),
        evidence: all.iter().map(evidence).collect(),
        holds: lease.holds.iter().map(ToString::to_string).collect(),
        misses: lease.misses,
        created_at: Some(timestamp(lease.created_at)),
        updated_at: Some(timestamp(lease.updated_at)),
        until,
        cooldown_bypassed: lease.cooldown_bypassed,
        labels: lease.labels.clone().into_iter().collect(),
    }
}

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

pub fn subnet(subnet: &Subnet) -> proto::Subnet {
    let Subnet { id, segment: Segment { bridge, vlan }, prefix, pool, created_at } = subnet;
    proto::Subnet {
        prefix: prefix.to_string(),
        id: id.to_string(),
        pool: pool.to_string(),
        bridge: bridge.to_string(),
        vlan: (*vlan).into(),
        created_at: Some(timestamp(*created_at)),
    }
}

pub fn interface_name(interface: &InterfaceName, exists: bool) -> proto::InterfaceName {
    let InterfaceName { name, prefix, id, created_at } = interface;
    proto::InterfaceName {
        name: name.to_string(),
        prefix: prefix.to_string(),
        id: id.to_string(),
        exists,
        created_at: Some(timestamp(*created_at)),
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
        last_seen: Some(timestamp(claimant.last_seen)),
        frames: claimant.frames,
    }
}

pub fn conflict(incident: &Incident) -> proto::Conflict {
    let kind = match incident.kind {
        Kind::Inventory => proto::ConflictKind::Inventory,
        Kind::Flood => proto::ConflictKind::Flood,
        Kind::Unowned => proto::ConflictKind::Unowned,
        Kind::Flap => proto::ConflictKind::Flap,
        Kind::Duplicate => proto::ConflictKind::Duplicate,
        Kind::Clone => proto::ConflictKind::Clone,
        Kind::Gateway => proto::ConflictKind::Gateway,
    };
    let severity = match incident.kind.severity() {
        Severity::Info => proto::Severity::Info,
        Severity::Warning => proto::Severity::Warning,
        Severity::Critical => proto::Severity::Critical,
    };
    let (source, entry) = match &incident.target {
        Target::Entry(source, entry) => (source.name().to_owned(), entry.to_string()),
        Target::Address(_) | Target::Mac(_) | Target::Port(_) => Default::default(),
    };
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
    }
}

pub fn event(event: &events::Event, config: &Config) -> proto::Event {
    let events::Event { seq, time, subject } = event;
    let message = match subject {
        Subject::Lease(of) => proto::event::Subject::Lease(lease(of, &[], config)),
        Subject::Free(of) => proto::event::Subject::Lease(proto::Lease {
            state: proto::LeaseState::Free.into(),
            ..lease(of, &[], config)
        }),
        Subject::Conflict(_, incident) => proto::event::Subject::Conflict(conflict(incident)),
        Subject::Source { name, ignored_until } => {
            let until = ignored_until.map(timestamp);
            proto::event::Subject::Source(proto::IgnoredSource { name: (*name).to_owned(), until })
        }
    };
    proto::Event {
        seq: *seq,
        time: Some(timestamp(*time)),
        r#type: subject.name().to_owned(),
        subject: Some(message),
    }
}

/// Events up to this one were lost to the subscriber.
pub fn gap(seq: u64) -> proto::Event {
    let time = Some(timestamp(Timestamp::now()));
    proto::Event { seq, time, r#type: "gap".to_owned(), subject: None }
}

pub fn live_address(
    segment: &Segment,
    address: IpAddr,
    all: &[Evidence],
    lease: Option<u64>,
) -> proto::LiveAddress {
    let first = all.first();
    proto::LiveAddress {
        address: address.to_string(),
        bridge: segment.bridge.to_string(),
        vlan: segment.vlan.into(),
        mac: text(first.and_then(|evidence| evidence.mac)),
        interface: text(first.and_then(|evidence| evidence.interface.as_ref())),
        evidence: all.iter().map(evidence).collect(),
        lease,
    }
}
