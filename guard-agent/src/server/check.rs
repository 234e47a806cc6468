//! The consistency checker: compares store, index, owners and kernel.

use std::{net::IpAddr, time::Duration};

use guard_api::proto::Disagreement;
use guard_core::{
    lease::{LeaseFilter, Standing, command::Refusal},
    segment::Segment,
};

use super::Deps;
use crate::datapath::Place;

/// What disagrees must do so in so many looks: between two of them a change that is under way
/// arrives everywhere.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Lists what disagrees with the leases: the store, the engine's index, the bindings here and in
/// the kernel, and what is live.
pub(super) async fn check(deps: &Deps) -> Result<Vec<Disagreement>, Refusal> {
    let mut found = look(deps).await?;
    for _ in 1..LOOKS {
        if found.is_empty() {
            break;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
        let again = look(deps).await?;
        found.retain(|disagreement| again.contains(disagreement));
    }
    Ok(found)
}

async fn look(deps: &Deps) -> Result<Vec<Disagreement>, Refusal> {
    let Deps { ledger, owners, live, .. } = deps;
    let config = deps.config();
    let whole = |between: &str, what: String| Disagreement {
        between: between.to_owned(),
        what,
        ..Disagreement::default()
    };
    let one = |between: &str, segment: &Segment, address: IpAddr, what: &str| Disagreement {
        between: between.to_owned(),
        address: address.to_string(),
        bridge: segment.bridge.to_string(),
        vlan: segment.vlan.into(),
        what: what.to_owned(),
    };
    let mut wrong = Vec::new();
    wrong.extend(ledger.check_store().await?.into_iter().map(|what| whole("store", what)));
    wrong.extend(ledger.check().await?.into_iter().map(|what| whole("index", what)));
    let leases: Vec<_> = ledger.leases(LeaseFilter::default()).await?;
    let leases: Vec<_> = leases.into_iter().map(|(lease, _)| lease).collect();
    match owners.check(&leases) {
        Ok(differ) => wrong.extend(
            differ.iter().map(|((segment, address), what)| one("kernel", segment, *address, what)),
        ),
        Err(error) => wrong.push(whole("kernel", format!("its map cannot be read: {error}"))),
    }
    wrong.extend(bare_ports(deps));
    let subnets = ledger.subnets(None, usize::MAX).await?;
    let known: std::collections::HashSet<_> =
        leases.iter().map(|lease| (&lease.segment, lease.address)).collect();
    for (segment, address, _) in live.claims(None) {
        let handed_out = config.pools.iter().any(|pool| {
            *pool.segment() == segment && pool.standing(address) == Standing::Allocatable
        });
        // Whoever has the subnet gives its addresses.
        let carved = subnets
            .iter()
            .any(|subnet| subnet.segment == segment && subnet.prefix.contains(&address));
        if handed_out
            && !carved
            && !known.contains(&(&segment, address))
            && !owners.is_reserved(&segment, address)
        {
            wrong.push(one("live", &segment, address, "it is in use, and counts as free"));
        }
    }
    Ok(wrong)
}

/// Ports whose frames the program does not all see, by the kernel's word.
fn bare_ports(deps: &Deps) -> Vec<Disagreement> {
    let ports = deps.observer.ports.read();
    let wrong = ports.iter().filter_map(|(ifindex, status)| {
        let interface = &status.port.interface;
        // A port that cannot be asked is about to go: netlink tells.
        let place = status.coverage.map_or(Ok(Place::Off), |coverage| coverage.place(*ifindex));
        let what = match place.ok()? {
            Place::First => return None,
            Place::Behind(other) => format!("{other} is before the program on port {interface}"),
            Place::Off => format!("the program is not on port {interface}"),
        };
        let bridge = status.port.bridge.to_string();
        Some(Disagreement { between: "kernel".to_owned(), bridge, what, ..Disagreement::default() })
    });
    wrong.collect()
}
