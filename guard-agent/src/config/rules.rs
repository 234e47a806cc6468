//! Checks the allow rules of a bridge.

use std::{net::IpAddr, sync::Arc};

use guard_core::policy::{Allow, AllowKind};
use ipnet::IpNet;

use super::{CheckError, check_interface, file};

pub(super) fn allow(bridge: &str, section: file::Allow) -> Result<Allow, CheckError> {
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
