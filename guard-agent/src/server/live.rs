//! What is in use, a page at a time: what is leased has the evidence of its bound port too, the rest is
//! what the wire says.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use guard_core::{
    evidence::EvidenceView as _,
    lease::{Engine, Lease, LeaseFilter, LeaseKey, Order, Stretch, StretchOf, command::Refusal},
    segment::Segment,
};
use prost::Message as _;

use super::{
    Deps, convert,
    page::{AT_ONCE, Page},
};
use guard_api::proto;

type Place = (Segment, IpAddr);

/// The live addresses on a page, of one bridge or of all.
pub(super) async fn page(
    deps: &Deps,
    bridge: Option<Arc<str>>,
    page: &mut Page<LeaseKey>,
) -> Result<Vec<proto::LiveAddress>, Refusal> {
    let mut rows = Vec::new();
    let mut after = page.after.clone();
    loop {
        let (places, reached) = stretch(deps, bridge.clone(), after).await?;
        for ((segment, address), lease) in places {
            let Some(row) = row(deps, &segment, address, lease.as_deref()) else { continue };
            let key = LeaseKey { pool: guard_core::lease::no_text(), segment, address };
            if !page.takes(&key, row.encoded_len()) {
                return Ok(rows);
            }
            rows.push(row);
        }
        match reached {
            Some(reached) => after = Some(reached),
            None => return Ok(rows),
        }
        tokio::task::yield_now().await;
    }
}

/// The next places that have a lease or a claim, and how far they go, if not to the end.
async fn stretch(
    deps: &Deps,
    bridge: Option<Arc<str>>,
    after: Option<LeaseKey>,
) -> Result<(BTreeMap<Place, Option<Arc<Lease>>>, Option<LeaseKey>), Refusal> {
    let Deps { ledger, live, .. } = deps;
    let place = |key: &LeaseKey| (key.segment.clone(), key.address);
    let from = after.as_ref().map(place);
    let of = StretchOf {
        filter: LeaseFilter::default(),
        bridge: bridge.clone(),
        order: Order::Place,
        after,
        most: AT_ONCE,
    };
    let Stretch { leases, reached } = match ledger.stretch(of).await {
        // The observer goes on without leases.
        Err(refusal) if refusal.reason.is_store() => Stretch::default(),
        leases => leases?,
    };
    let claims = live.claimed_after(bridge.as_ref(), from.as_ref(), AT_ONCE);
    // As far as both of them are known.
    let of_claims = claims.last().filter(|_| claims.len() == AT_ONCE).cloned();
    let of_leases = reached.as_ref().map(place);
    let end = of_claims.into_iter().chain(of_leases).min();
    let leases = leases.into_iter().map(|lease| {
        let place = (lease.segment.clone(), lease.address);
        (place, Some(lease))
    });
    let mut places: BTreeMap<_, _> = claims.into_iter().map(|place| (place, None)).collect();
    places.extend(leases);
    if let Some(end) = &end {
        places.retain(|place, _| place <= end);
    }
    let reached = end.map(|(segment, address)| LeaseKey {
        pool: guard_core::lease::no_text(),
        segment,
        address,
    });
    Ok((places, reached))
}

/// An address and what says that it is in use; none where nothing does (any more).
fn row(
    deps: &Deps,
    segment: &Segment,
    address: IpAddr,
    lease: Option<&Lease>,
) -> Option<proto::LiveAddress> {
    let evidence = match lease {
        Some(lease) => Engine::evidence_of(lease, &*deps.live),
        None => deps.live.evidence(segment, address),
    };
    let held = lease.filter(|lease| lease.state.is_owned());
    (!evidence.is_empty()).then(|| convert::live_address(segment, address, &evidence, held))
}
