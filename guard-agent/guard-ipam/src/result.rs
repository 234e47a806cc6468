//! What ADD returns ("ADD Success" of the specification, for delegated plugins without interfaces).

use std::path::Path;

use guard_api::{bounds, files, proto::Lease};
use serde_json::{Map, Value, json};

use crate::{conf::Ipam, error::Error};

/// The document for these leases.
pub(crate) fn of(version: &str, ipam: &Ipam, dns: &Value, leases: &[Lease]) -> Value {
    if matches!(version, "0.1.0" | "0.2.0") {
        return before_0_3(version, ipam, dns, leases);
    }
    let ips: Vec<_> = leases.iter().map(|lease| ip(version, lease)).collect();
    let mut result = json!({ "cniVersion": version, "ips": ips, "dns": dns });
    if !ipam.routes.is_empty() {
        result["routes"] = ipam.routes.as_slice().into();
    }
    result
}

/// As it was before 0.3.0: one address of each family, each with the routes of its own.
fn before_0_3(version: &str, ipam: &Ipam, dns: &Value, leases: &[Lease]) -> Value {
    let mut result = json!({ "cniVersion": version, "dns": dns });
    for (key, is_six) in [("ip4", false), ("ip6", true)] {
        let Some(lease) = leases.iter().find(|lease| lease.address.contains(':') == is_six) else {
            continue;
        };
        let of_family =
            |route: &&Value| route["dst"].as_str().is_some_and(|dst| dst.contains(':') == is_six);
        let routes: Vec<_> = ipam.routes.iter().filter(of_family).collect();
        let mut ip = json!({ "ip": format!("{}/{}", lease.address, lease.prefix_len) });
        if !lease.gateway.is_empty() {
            ip["gateway"] = lease.gateway.as_str().into();
        }
        if !routes.is_empty() {
            ip["routes"] = json!(routes);
        }
        result[key] = ip;
    }
    result
}

fn ip(version: &str, lease: &Lease) -> Value {
    let mut ip = Map::new();
    // Gone with 1.0.0.
    if version.starts_with("0.") {
        let family = if lease.address.contains(':') { "6" } else { "4" };
        ip.insert("version".to_owned(), family.into());
    }
    ip.insert("address".to_owned(), format!("{}/{}", lease.address, lease.prefix_len).into());
    if !lease.gateway.is_empty() {
        ip.insert("gateway".to_owned(), lease.gateway.as_str().into());
    }
    Value::Object(ip)
}

/// `dns`, as `resolvConf` has it.
///
/// # Errors
/// That cannot be read.
pub(crate) fn dns(ipam: &Ipam) -> Result<Value, Error> {
    ipam.resolv_conf.as_deref().map_or_else(|| Ok(json!({})), read)
}

/// `resolv.conf(5)` as the specification's `dns`.
fn read(path: &Path) -> Result<Value, Error> {
    let text = files::read_regular(path, bounds::RESOLV_CONF)
        .map_err(|error| Error::Conf(format!("resolvConf {}: {error}", path.display())))?;
    let (mut nameservers, mut search, mut options) = (Vec::new(), Vec::new(), Vec::new());
    let mut dns = Map::new();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => nameservers.extend(words.next()),
            // The last one of each counts.
            Some("search") => search = words.collect(),
            Some("options") => options.extend(words),
            Some("domain") => {
                if let Some(domain) = words.next() {
                    dns.insert("domain".to_owned(), domain.into());
                }
            }
            _ => {}
        }
    }
    for (key, list) in [("nameservers", nameservers), ("search", search), ("options", options)] {
        if !list.is_empty() {
            dns.insert(key.to_owned(), list.into());
        }
    }
    Ok(Value::Object(dns))
}
