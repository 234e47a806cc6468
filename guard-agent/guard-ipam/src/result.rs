//! What ADD returns ("ADD Success" of the specification, for delegated plugins without interfaces).

use std::path::Path;

use guard_api::{bounds, files, proto::Lease};
use serde_json::{Map, Value, json};

use crate::{conf::Ipam, error::Error};

/// The document for these leases.
///
/// # Errors
/// `resolvConf` cannot be read.
pub(crate) fn of(version: &str, ipam: &Ipam, leases: &[Lease]) -> Result<Value, Error> {
    let ips: Vec<_> = leases.iter().map(|lease| ip(version, lease)).collect();
    let dns = ipam.resolv_conf.as_deref().map_or_else(|| Ok(json!({})), dns)?;
    let mut result = json!({ "cniVersion": version, "ips": ips, "dns": dns });
    if !ipam.routes.is_empty() {
        result["routes"] = ipam.routes.as_slice().into();
    }
    Ok(result)
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

/// `resolv.conf(5)` as the specification's `dns`.
fn dns(path: &Path) -> Result<Value, Error> {
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
