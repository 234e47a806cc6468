//! Checks the allow rules and the prefixes of a bridge.

use std::{net::IpAddr, sync::Arc};

use guard_core::{
    enforcement::{Exception, ExceptionKind, Grant, Macs, Mode},
    policy::{Allow, AllowKind},
};
use ipnet::IpNet;

use super::{CheckError, check::check_interface, file};

/// A prefix that is on the link, with its VLAN.
pub(super) fn on_link(bridge: &str, section: file::OnLink) -> Result<(u16, IpNet), CheckError> {
    let file::InVlan { prefix, vlan } = match section {
        file::OnLink::Untagged(prefix) => file::InVlan { prefix, vlan: 0 },
        file::OnLink::InVlan(in_vlan) => in_vlan,
    };
    let error = |why: String| CheckError::OnLink { bridge: bridge.to_owned(), why };
    if vlan > 4094 {
        return Err(error(format!("vlan = {vlan} is not a VLAN id (0 for untagged, 1 to 4094)")));
    }
    match prefix.parse::<IpNet>() {
        Ok(net) if net.addr().to_canonical() == net.addr() => Ok((vlan, net.trunc())),
        _ => {
            let why = format!("{prefix:?} is not a prefix; write it as \"192.0.2.0/24\"");
            Err(error(why))
        }
    }
}

/// What a section says as a rule of the bridge, and as an exception of ports.
pub(super) fn allow(
    bridge: &str,
    mode: Mode,
    section: file::Allow,
) -> Result<(Option<Allow>, Option<Grant>), CheckError> {
    use ExceptionKind as K;
    let file::Allow { kind, vlan, addresses, macs, any, vrids, ports, sandboxes } = section;
    let error = |why: &str| CheckError::Allow {
        bridge: bridge.to_owned(),
        kind: kind.name(),
        why: why.to_owned(),
    };
    for name in &ports {
        check_interface(name)?;
    }
    let goes_around = matches!(kind, K::Shared | K::Vrrp);
    let is_open = ports.is_empty() && sandboxes.is_empty();
    if !goes_around && is_open {
        return Err(error("any port could be one; name its ports"));
    }
    if !vrids.is_empty() && is_open {
        return Err(error("nobody is one of these virtual routers; name its ports"));
    }
    if mode.enforces() && is_open {
        return Err(error(
            "with mode = \"enforce\" it would open the addresses to every port; name its ports",
        ));
    }
    let net = |text: &String| {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        let parsed = address.or_else(|_| text.parse::<IpNet>().map(|net| net.trunc()));
        parsed.map_err(|_| error(&format!("{text:?} is neither an address nor a prefix")))
    };
    let addresses = addresses.iter().map(net).collect::<Result<Vec<_>, _>>()?;
    let mac = |text: &String| text.parse::<Macs>().map_err(|why| error(&why.to_string()));
    let macs = macs.iter().map(mac).collect::<Result<Vec<_>, _>>()?;
    let [ports, sandboxes]: [Vec<Arc<str>>; 2] =
        [ports, sandboxes].map(|names| names.into_iter().map(Arc::from).collect());
    let ruled = match kind {
        K::Vrrp => Some(AllowKind::Vrrp),
        K::Shared => Some(AllowKind::Shared),
        K::Router => Some(AllowKind::Router),
        K::Proxy => Some(AllowKind::Proxy),
        _ => None,
    };
    let mut exception = Exception { kind, vlan, addresses, macs, any, vrids };
    let Some(rule) = ruled else {
        exception.check().map_err(|why| error(&why))?;
        let bridge = Some(Arc::from(bridge));
        return Ok((None, Some(Grant { bridge, ports, sandboxes, exception })));
    };
    // Which virtual routers a port may be, and what a sandbox may, exceptions say. A rule of the bridge says
    // whose the addresses are.
    let by_exception = !exception.vrids.is_empty() || (ports.is_empty() && !sandboxes.is_empty());
    let rule = Allow {
        kind: rule,
        vlan,
        addresses: exception.addresses.clone(),
        ports: ports.clone(),
        by_exception,
    };
    if kind == K::Router && !sandboxes.is_empty() && !exception.addresses.is_empty() {
        return Err(error("the addresses of a sandbox are bound to it; name none here"));
    }
    if kind == K::Router {
        exception.addresses.clear();
    }
    // Of any virtual router the rule alone speaks.
    let of_rule = kind == K::Vrrp && sandboxes.is_empty() && exception.vrids.is_empty();
    let mut checked = exception.clone();
    if of_rule {
        checked.vrids.push(1);
    }
    checked.check().map_err(|why| error(&why))?;
    if of_rule || is_open {
        return Ok((Some(rule), None));
    }
    let bridge = Some(Arc::from(bridge));
    let grant = Grant { bridge, ports, sandboxes, exception };
    let is_empty = rule.addresses.is_empty() && by_exception;
    Ok((Some(rule).filter(|_| !is_empty), Some(grant)))
}
