//! The core's types as messages, where that takes what the daemon knows.

use std::{sync::Arc, time::SystemTime};

pub(crate) use guard_api::convert::*;
use guard_api::proto;
use guard_core::{
    evidence::{Evidence, EvidenceView, Station},
    incident::Incident,
    judgement::Verdict,
    lease::{Lease, Pool},
    owner::Owner,
    watchdog::Watched,
};
use jiff::Timestamp;

use crate::{
    clock,
    config::Config,
    events::{self, Subject},
};

pub(crate) fn system_time(time: SystemTime) -> Option<prost_types::Timestamp> {
    Timestamp::try_from(time).ok().map(timestamp)
}

pub(crate) fn watched(watched: Watched) -> proto::WatchedContainer {
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

/// A lease, with the name that its port has now.
pub(crate) fn lease(
    lease: &Lease,
    all: &[Evidence],
    config: &Config,
    view: &dyn EvidenceView,
) -> proto::Lease {
    let pool = config.pools.get(&lease.pool);
    let now = clock::now();
    let until = lease.until.map(|until| timestamp(now.wall_at(until)));
    let port = lease.binding.ifindex.and_then(|ifindex| view.name_now(ifindex));
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
        interface: text(port.or_else(|| lease.binding.interface.clone())),
        binding: binding(&lease.binding).into(),
        reason: lease.reason.to_string(),
        evidence: all.iter().map(evidence).collect(),
        holds: lease.holds.iter().map(ToString::to_string).collect(),
        misses: lease.misses,
        created_at: Some(timestamp(lease.created_at)),
        updated_at: Some(timestamp(lease.updated_at)),
        until,
        cooldown_bypassed: lease.cooldown_bypassed,
        maker: lease.maker,
        labels: lease.labels.clone().into_iter().collect(),
    }
}

/// An incident. While it is open, the ports of its claimants have the names that they have now.
pub(crate) fn conflict(incident: &Incident, view: &dyn EvidenceView) -> proto::Conflict {
    let mut conflict = guard_api::convert::conflict(incident);
    for (claimant, shown) in incident.claimants.iter().zip(&mut conflict.claimants) {
        let is_there = conflict.open && !claimant.gone;
        if let Some(ifindex) = claimant.ifindex.filter(|_| is_there)
            && let Some(name) = view.name_now(ifindex)
        {
            shown.interface = name.to_string();
        }
    }
    conflict
}

pub(crate) fn event(
    event: &events::Event,
    config: &Config,
    view: &dyn EvidenceView,
) -> proto::Event {
    let events::Event { seq, time, subject } = event;
    let message = match subject {
        Subject::Lease(of) => proto::event::Subject::Lease(lease(of, &[], config, view)),
        Subject::Free(of) => proto::event::Subject::Lease(proto::Lease {
            state: proto::LeaseState::Free.into(),
            ..lease(of, &[], config, view)
        }),
        Subject::Conflict(_, incident) => proto::event::Subject::Conflict(conflict(incident, view)),
        Subject::Source { name, ignored_until } => {
            let until = ignored_until.map(timestamp);
            proto::event::Subject::Source(proto::IgnoredSource { name: (*name).to_owned(), until })
        }
        Subject::Dropped(of) => {
            let events::DroppedFrames {
                bridge,
                interface,
                ifindex,
                reason,
                address,
                frames,
                dropped,
            } = &**of;
            proto::event::Subject::Dropped(proto::DroppedFrames {
                bridge: bridge.to_string(),
                interface: interface.to_string(),
                ifindex: *ifindex,
                reason: (*reason).to_owned(),
                address: address.map(|address| address.to_string()).unwrap_or_default(),
                frames: *frames,
                dropped: *dropped,
            })
        }
        Subject::ProbeRace { segment, address, stations } => {
            proto::event::Subject::ProbeRace(proto::ProbeRace {
                bridge: segment.bridge.to_string(),
                vlan: segment.vlan.into(),
                inner_vlan: segment.inner_vlan.into(),
                address: address.to_string(),
                probers: stations.iter().map(prober).collect(),
            })
        }
    };
    proto::Event {
        seq: *seq,
        time: Some(timestamp(*time)),
        r#type: subject.name().to_owned(),
        subject: Some(message),
    }
}

fn prober(Station { mac, interface, ifindex }: &Station) -> proto::Prober {
    proto::Prober { mac: mac.to_string(), interface: interface.to_string(), ifindex: *ifindex }
}

/// Events up to this one were lost to the subscriber.
pub(crate) fn gap(seq: u64) -> proto::Event {
    let time = Some(timestamp(Timestamp::now()));
    proto::Event { seq, time, r#type: "gap".to_owned(), subject: None }
}
