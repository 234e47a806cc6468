//! Checks the allow rules and the prefixes of a bridge.

use std::{net::IpAddr, sync::Arc};

use guard_core::{
    enforcement::Mode,
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

pub(super) fn allow(bridge: &str, mode: Mode, section: file::Allow) -> Result<Allow, CheckError> {
    let file::Allow { kind, vlan, addresses, ports } = section;
    let error = |why: &str| CheckError::Allow {
        bridge: bridge.to_owned(),
        kind: kind.name(),
        why: why.to_owned(),
    };
    if vlan > 4094 {
        return Err(error(&format!("vlan = {vlan} is not a VLAN id (0, or 1 to 4094)")));
    }
    for name in &ports {
        check_interface(name)?;
    }
    if matches!(kind, AllowKind::Router | AllowKind::Proxy) && ports.is_empty() {
        return Err(error("any port could be one; name its ports"));
    }
    if mode.enforces() && kind != AllowKind::Proxy && ports.is_empty() {
        return Err(error(
            "with mode = \"enforce\" it would open the addresses to every port; name its ports",
        ));
    }
    if kind != AllowKind::Router && addresses.is_empty() {
        return Err(error("it allows nothing; name the addresses"));
    }
    let parse = |text: &String| {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        let parsed = address.or_else(|_| text.parse::<IpNet>().map(|net| net.trunc()));
        parsed.map_err(|_| error(&format!("{text:?} is neither an address nor a prefix")))
    };
    Ok(Allow {
        kind,
        vlan,
        addresses: addresses.iter().map(parse).collect::<Result<_, _>>()?,
        ports: ports.into_iter().map(Arc::from).collect(),
    })
}
