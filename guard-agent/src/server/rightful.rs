//! Whose it is what a frame claims, for the rows of what was dropped.

use std::{cell::OnceCell, collections::HashMap, net::IpAddr};

use guard_core::{arbiter::Holder, lease::model::Binding, mac::Mac, segment::Segment};
use guard_ebpf::{
    counters::DropReason,
    trace::{SAYS_CLAIM, Traced},
};

use super::Deps;

/// Looks up who has an address or a MAC on a bridge.
pub(super) struct Rightful<'a> {
    pub(super) deps: &'a Deps,
    /// All bound MACs, read once where a row asks for one.
    macs: OnceCell<HashMap<Mac, (Segment, IpAddr)>>,
}

impl<'a> Rightful<'a> {
    pub(super) fn new(deps: &'a Deps) -> Self {
        Self { deps, macs: OnceCell::new() }
    }

    /// Who has what the first frame claims that was dropped for a reason. Empty where nobody does.
    pub(super) fn owner(&self, bridge: &str, reason: DropReason, first: &Traced) -> String {
        let said = match reason {
            DropReason::BridgeMac => Some("bridge".to_owned()),
            DropReason::Clone | DropReason::Mac => self.of_mac(Mac(first.eth_src)),
            _ if first.says == SAYS_CLAIM => self.of_address(bridge, first.key.ip()),
            _ => None,
        };
        said.unwrap_or_default()
    }

    fn of_mac(&self, mac: Mac) -> Option<String> {
        let macs = self.macs.get_or_init(|| self.deps.owners.bound_macs());
        let (segment, address) = macs.get(&mac)?;
        self.deps.owners.holder(segment, *address).map(|holder| named(&holder))
    }

    fn of_address(&self, bridge: &str, address: IpAddr) -> Option<String> {
        let Deps { owners, .. } = self.deps;
        let config = self.deps.config();
        let here = config.pools.iter().filter(|pool| *pool.segment().bridge == *bridge);
        let mut segments: Vec<_> = here.map(|pool| pool.segment().clone()).collect();
        segments.sort();
        segments.dedup();
        let mut held = segments.iter().filter_map(|segment| owners.holder(segment, address));
        if let Some(holder) = held.next() {
            return Some(named(&holder));
        }
        if segments.iter().any(|segment| owners.is_host(segment, address)) {
            return Some("host".to_owned());
        }
        let reserved = segments.iter().any(|segment| owners.is_reserved(segment, address));
        reserved.then(|| "gateway".to_owned())
    }
}

/// `web-1 (02:00:00:00:00:0a on veth-web-1)`
fn named(Holder { owner, binding, .. }: &Holder) -> String {
    let Binding { mac, interface, .. } = binding;
    match (mac, interface) {
        (None, None) => owner.to_string(),
        (Some(mac), None) => format!("{owner} ({mac})"),
        (None, Some(port)) => format!("{owner} (on {port})"),
        (Some(mac), Some(port)) => format!("{owner} ({mac} on {port})"),
    }
}
