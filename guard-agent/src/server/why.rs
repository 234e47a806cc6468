//! What is known of an address, a port or a MAC, and what was dropped of it: `Guard.Why`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use guard_api::proto;
use guard_core::{
    incident::{Incident, Target},
    lease::model::Binding,
    mac::Mac,
    segment::Segment,
};
use guard_ebpf::trace::SAYS_CLAIM;
use tonic::Status;

use super::{
    Deps, convert, enforcement,
    error::{self, Invalid},
    explain, sources,
};
use crate::{
    enforcement::{Counted, decode},
    observer::PortStatus,
};

/// The most explanations and rows of what was dropped that are given: somebody reads them.
const ROWS: usize = 64;
/// The most incidents.
const INCIDENTS: usize = 16;

/// What is asked about.
enum About {
    Address(IpAddr),
    Port(String),
    Mac(Mac),
}

impl About {
    fn new(request: proto::WhyRequest) -> Result<Self, Invalid> {
        let proto::WhyRequest { address, interface, mac } = request;
        match (&*address, &*interface, &*mac) {
            ("", "", "") => Err(Invalid::Address(address)),
            (_, "", "") => {
                let parsed = address.parse();
                parsed.map(Self::Address).map_err(|_| Invalid::Address(address))
            }
            ("", _, "") => Ok(Self::Port(interface)),
            ("", "", _) => mac.parse().map(Self::Mac).map_err(|_| Invalid::Mac(mac)),
            _ => Err(Invalid::Missing("name an address, a port or a MAC: one of them")),
        }
    }

    /// Whether an incident is about it.
    fn concerns(&self, incident: &Incident) -> bool {
        let Incident { target, claimants, .. } = incident;
        match self {
            Self::Address(address) => *target == Target::Address(*address),
            Self::Port(port) => {
                claimants.iter().any(|one| one.interface.as_deref() == Some(&**port))
            }
            Self::Mac(mac) => {
                *target == Target::Mac(*mac) || claimants.iter().any(|one| one.mac == Some(*mac))
            }
        }
    }

    /// Whether a frame names it, by the first that was kept.
    fn is_in(&self, row: &Counted) -> bool {
        match self {
            Self::Address(address) => row.address() == Some(*address),
            Self::Port(_) => false,
            Self::Mac(Mac(mac)) => {
                let first = decode(&row.frame);
                first.eth_src == *mac || first.says == SAYS_CLAIM && first.mac == *mac
            }
        }
    }
}

pub(super) async fn why(
    deps: &Deps,
    request: proto::WhyRequest,
) -> Result<proto::WhyResponse, Status> {
    let about = About::new(request)?;
    let ports = deps.observer.ports.read().clone();
    let bound = bound(deps, &about, &ports)?;
    let explanations = match &about {
        About::Address(address) => explain::explain(deps, *address).await?,
        About::Port(_) | About::Mac(_) => explained(deps, &bound.addresses).await?,
    };
    let mut rows = deps.enforcement.drops();
    rows.retain(|row| bound.ports.contains(&row.ifindex) || about.is_in(row));
    rows.truncate(ROWS);
    let incidents = deps.reporter.list(true);
    let conflicts = incidents.iter().rev().filter(|incident| about.concerns(incident));
    let conflicts = conflicts.take(INCIDENTS);
    let last = deps.reconciler.last();
    Ok(proto::WhyResponse {
        explanations,
        sources: sources::all(deps).await,
        last_pass: last.as_ref().map(|last| convert::timestamp(last.at.wall)),
        last_result: last.map_or("", |last| last.result).to_owned(),
        conflicts: conflicts.map(|incident| convert::conflict(incident, &*deps.live)).collect(),
        drops: enforcement::messages(deps, &rows, &ports),
    })
}

/// What leases bind to each other: the addresses, and the ports that are there.
#[derive(Default)]
struct Bound {
    addresses: BTreeSet<(Segment, IpAddr)>,
    ports: BTreeSet<u32>,
}

fn bound(deps: &Deps, about: &About, ports: &BTreeMap<u32, PortStatus>) -> Result<Bound, Status> {
    let owners = &deps.owners;
    let addresses: BTreeSet<_> = match about {
        About::Address(address) => owners.segments_of(*address).into_iter().collect(),
        About::Port(port) => {
            let is = |binding: &Binding| binding.interface.as_deref() == Some(&**port);
            owners.declared_of(is).into_iter().collect()
        }
        About::Mac(mac) => {
            owners.declared_of(|binding| binding.mac == Some(*mac)).into_iter().collect()
        }
    };
    let holders =
        addresses.iter().filter_map(|(segment, address)| owners.holder(segment, *address));
    let mut on: BTreeSet<_> = holders.filter_map(|holder| holder.binding.ifindex).collect();
    if let About::Port(port) = about {
        let named = ports.iter().filter(|(_, status)| *status.port.interface == **port);
        on.extend(named.map(|(ifindex, _)| *ifindex));
        if on.is_empty() && addresses.is_empty() {
            return Err(error::port_unknown(port));
        }
    }
    Ok(Bound { addresses, ports: on })
}

/// What is known of each address, where it is bound.
async fn explained(
    deps: &Deps,
    addresses: &BTreeSet<(Segment, IpAddr)>,
) -> Result<Vec<proto::Explanation>, Status> {
    let mut all = Vec::new();
    for (segment, address) in addresses.iter().take(ROWS) {
        let mut of_address = explain::explain(deps, *address).await?;
        of_address.retain(|one| explain::is_on(one, segment));
        all.append(&mut of_address);
    }
    Ok(all)
}
