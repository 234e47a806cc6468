//! What is known of an address, and what will happen to it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use guard_api::proto::{self, ConflictKind};
use guard_core::{
    duration,
    evidence::{Evidence, EvidenceView as _},
    judgement::Verdict,
    lease::{Lease, LeaseFilter, Place, Pool, Standing, State, reason},
    reconcile::Settings,
    segment::Segment,
};
use tonic::Status;

use super::{Deps, convert, error};
use crate::clock;

/// One explanation for each pool that has the address, and for each segment on which it is in use and no
/// pool has it.
pub(super) async fn explain(
    deps: &Deps,
    address: IpAddr,
) -> Result<Vec<proto::Explanation>, Status> {
    let Deps { ledger, live, .. } = deps;
    let config = deps.config();
    let filter = LeaseFilter { address: Some(address), ..LeaseFilter::default() };
    let leases = ledger.leases(filter).await.map_err(error::refused)?;
    let having: Vec<_> =
        config.pools.iter().filter(|pool| pool.standing(address) != Standing::Outside).collect();
    let of_lease = |(lease, evidence): &(Arc<Lease>, Vec<Evidence>)| {
        explanation(
            &lease.segment,
            &lease.pool,
            address,
            evidence,
            proto::Explanation {
                lease: Some(convert::lease(lease, evidence, &config, &**live)),
                next: next(lease, evidence, deps),
                ..proto::Explanation::default()
            },
        )
    };
    let without = |pool: &&Pool| !leases.iter().any(|(lease, _)| lease.segment == *pool.segment());
    let mut all: Vec<_> = leases.iter().map(of_lease).collect();
    for pool in having.into_iter().filter(without) {
        let evidence = live.evidence(pool.segment(), address);
        let place = Place { segment: pool.segment().clone(), address };
        let standing = ledger.standing(place).await.map_err(error::refused)?;
        let next = next_of_free(standing, &evidence);
        let rest = proto::Explanation { next, ..proto::Explanation::default() };
        all.push(explanation(pool.segment(), pool.name(), address, &evidence, rest));
    }
    for segment in live.segments_of(address) {
        if all.iter().any(|known| is_on(known, &segment)) {
            continue;
        }
        let next = "no pool has it: it is watched, and never handed out".to_owned();
        let rest = proto::Explanation { next, ..proto::Explanation::default() };
        let evidence = live.evidence(&segment, address);
        all.push(explanation(&segment, "", address, &evidence, rest));
    }
    if all.is_empty() {
        return Err(error::address_unknown(address));
    }
    let floods = deps.reporter.list(false);
    let floods: Vec<_> = floods.iter().map(|flood| convert::conflict(flood, &**live)).collect();
    for one in all.iter_mut().filter(|one| one.lease.is_some()) {
        one.next += &uncounted(&floods, &one.bridge);
    }
    Ok(all)
}

/// What may hide claims on the addresses of a bridge (claims.md, "Budgets").
fn uncounted(conflicts: &[proto::Conflict], bridge: &str) -> String {
    let here = conflicts.iter().filter(|one| one.bridge == bridge);
    let hiding = here.filter_map(|one| match one.kind() {
        ConflictKind::Flood => Some(("flood", one)),
        ConflictKind::Proxy => Some(("proxy", one)),
        _ => None,
    });
    let of = hiding.flat_map(|(kind, one)| {
        let ports = one.claimants.iter().map(|claimant| &claimant.interface);
        let ports = ports.filter(|port| !port.is_empty());
        ports.map(move |port| format!("{kind} on port {port}"))
    });
    let all: Vec<_> = of.collect();
    if all.is_empty() {
        return String::new();
    }
    format!("; claims on it may have gone uncounted: {}", all.join(", "))
}

/// Whether it is about this segment.
pub(super) fn is_on(known: &proto::Explanation, segment: &Segment) -> bool {
    (&*known.bridge, known.vlan, known.inner_vlan)
        == (&*segment.bridge, segment.vlan.into(), segment.inner_vlan.into())
}

fn explanation(
    segment: &Segment,
    pool: &str,
    address: IpAddr,
    evidence: &[Evidence],
    rest: proto::Explanation,
) -> proto::Explanation {
    proto::Explanation {
        address: address.to_string(),
        pool: pool.to_owned(),
        bridge: segment.bridge.to_string(),
        vlan: segment.vlan.into(),
        inner_vlan: segment.inner_vlan.into(),
        evidence: evidence.iter().map(convert::evidence).collect(),
        ..rest
    }
}

fn next_of_free(standing: Standing, evidence: &[Evidence]) -> String {
    match standing {
        Standing::Reserved => {
            "it is the network, broadcast, gateway or a host address: never \
                               handed out"
        }
        Standing::Elsewhere => {
            "it is leased on the segment that the pool was on before: not handed out until that ends"
        }
        Standing::Excluded => "the configuration excludes it: never handed out",
        Standing::Carved => "a child subnet has it: not handed out until that is released",
        Standing::Allocatable | Standing::Outside if evidence.is_empty() => {
            "it is free and can be handed out"
        }
        Standing::Allocatable | Standing::Outside => {
            "it is in use without a lease: about to be adopted or quarantined"
        }
    }
    .to_owned()
}

fn next(lease: &Lease, evidence: &[Evidence], deps: &Deps) -> String {
    let now = clock::now();
    let until = lease.until.map(|until| now.wall_at(until));
    let at = until.map_or_else(|| "then".to_owned(), |until| format!("at {until}"));
    let live = !evidence.is_empty();
    match lease.state {
        State::Held => format!(
            "confirmed or bound it becomes active; unconfirmed it is looked at {at}, and given \
             back unless something speaks for it"
        ),
        State::Active => next_of_active(lease, live, deps),
        State::Releasing if live => {
            "it cools down once nothing is left of it and every hold is acknowledged".to_owned()
        }
        State::Releasing => format!("it cools down once its holds are acknowledged, or {at}"),
        State::Cooling => format!("it is free {at}, or earlier where a pool has no other"),
        State::Quarantined if *lease.reason == *reason::OPERATOR => {
            "it stays out of use until an operator gives it back".to_owned()
        }
        State::Quarantined if live => "it stays out of use as long as it is in use, and is \
            adopted if the inventory names its one owner"
            .to_owned(),
        State::Quarantined => format!("it is free {at} unless it is used again"),
    }
}

fn next_of_active(lease: &Lease, live: bool, deps: &Deps) -> String {
    let Deps { reconciler, .. } = deps;
    let Settings { interval, misses, .. } = reconciler.settings();
    if live {
        return "it stays as long as something speaks for it, or until it is released".to_owned();
    }
    if !reconciler.is_verifiable(lease) {
        return "unverifiable: nothing speaks for it, and nobody is configured who could tell \
                ([inventory.containerd], [directory]); it stays until it is released"
            .to_owned();
    }
    if let Some(unhealthy) = reconciler.sources().status().iter().find(|s| !s.healthy()) {
        return format!(
            "nothing speaks for it, and no miss is counted while {} does not answer completely",
            unhealthy.name
        );
    }
    let unless = match reconciler.judged(lease) {
        Some(Verdict::Keep(kept)) => {
            return format!("nothing speaks for it, but {kept}: it stays");
        }
        Some(Verdict::LookUp(_)) => ", unless the directory finds it by name",
        Some(Verdict::Over(_)) | None => "",
    };
    let left = misses.saturating_sub(lease.misses);
    if left == 0 {
        return format!("nothing speaks for it: the next pass takes it back{unless}");
    }
    let span = duration::format(Duration::from_secs(interval.saturating_mul(left).as_secs()));
    format!(
        "nothing speaks for it: {} of {misses} misses; it is taken back after {left} more, in \
         about {span}{unless}",
        lease.misses
    )
}
