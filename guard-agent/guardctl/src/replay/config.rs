//! What a configuration of guard's agent says of the bridge that a capture was taken on. Whether the
//! file as a whole is right the agent judges; of keys that are not named here nothing is asked.

use std::{io, net::IpAddr, path::Path, sync::Arc};

use guard_api::files;
use guard_core::{
    bounds,
    enforcement::{self, ExceptionKind, Hygiene, Mode, Strict},
    lease::{self, Pool, PoolError, PoolSpec},
    policy::{self, AllowKind, Conflict, MAX_RULES},
    segment::Segment,
};
use ipnet::IpNet;
use serde::Deserialize;

use super::{Gateway, OnLink, Settings};

/// Why a configuration says nothing of a capture.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// It is not TOML, or a value is of the wrong kind.
    #[error("{path}: {source}")]
    Parse {
        /// Which file.
        path: String,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// The bridge is not clear, or what is said of it makes no sense.
    #[error("{path}: {fault}")]
    Bridge {
        /// Which file.
        path: String,
        /// What is wrong.
        fault: Fault,
    },
}

/// What is wrong with a file that can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// None is named, and the file has none or several.
    #[error("it has {0} bridges; say which the capture is of (--bridge NAME)")]
    Unclear(usize),
    /// It has no such bridge.
    #[error("it has no bridge {0:?}")]
    Unknown(String),
    /// A pool cannot be.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A word stands where an address or a prefix should.
    #[error("{0:?} is neither an address nor a prefix")]
    Address(String),
    /// More than the program has bits for.
    #[error("a bridge can have {MAX_RULES} allow rules, and this one has {0}")]
    Rules(usize),
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    conflict: Conflict,
    #[serde(default)]
    bridge: Vec<Bridge>,
    #[serde(default)]
    pool: Vec<PoolSection>,
}

#[derive(Deserialize)]
struct Bridge {
    name: String,
    #[serde(default)]
    uplinks: Vec<String>,
    #[serde(default)]
    prefixes: Vec<Prefix>,
    #[serde(default)]
    allow: Vec<Allow>,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    strict: Strict,
    #[serde(default)]
    drop: Hygiene,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prefix {
    Untagged(IpNet),
    Of { prefix: IpNet, vlan: u16 },
}

#[derive(Deserialize)]
struct Allow {
    kind: ExceptionKind,
    #[serde(default)]
    vlan: u16,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    vrids: Vec<u8>,
    #[serde(default)]
    sandboxes: Vec<String>,
}

#[derive(Deserialize)]
struct PoolSection {
    name: String,
    bridge: String,
    #[serde(default)]
    vlan: u16,
    prefix: IpNet,
    gateway: Option<String>,
    #[serde(default)]
    gateway_ports: Vec<Arc<str>>,
}

impl Settings {
    /// Adds what a file says of a bridge; of its only one, if none is named.
    ///
    /// # Errors
    /// The file cannot be read, or says nothing that makes sense of such a bridge.
    pub(crate) fn configure(
        &mut self,
        path: &Path,
        bridge: Option<&str>,
    ) -> Result<(), ConfigError> {
        let name = || path.display().to_string();
        let text = files::read(path, bounds::CONFIGURATION)
            .map_err(|source| ConfigError::Read { path: name(), source })?;
        let file: File = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: name(), source: Box::new(source) })?;
        self.take(file, bridge).map_err(|fault| ConfigError::Bridge { path: name(), fault })
    }

    fn take(&mut self, file: File, named: Option<&str>) -> Result<(), Fault> {
        let File { conflict, mut bridge, pool } = file;
        let all = bridge.len();
        bridge.retain(|bridge| named.is_none_or(|name| bridge.name == name));
        let bridge = match (bridge.pop(), named) {
            (Some(bridge), Some(_)) => bridge,
            (Some(bridge), None) if all == 1 => bridge,
            (_, None) => return Err(Fault::Unclear(all)),
            (None, Some(name)) => return Err(Fault::Unknown(name.to_owned())),
        };
        let Bridge { name, uplinks, prefixes, allow, mode, strict, drop } = bridge;
        self.enforcement = enforcement::Settings { mode, strict, hygiene: drop };
        if allow.len() > MAX_RULES {
            return Err(Fault::Rules(allow.len()));
        }
        self.conflict = conflict;
        let rules = allow.into_iter().filter_map(|rule| rule.parse().transpose());
        self.rules = rules.collect::<Result<_, _>>()?;
        self.uplinks.extend(uplinks);
        self.prefixes.extend(prefixes.into_iter().map(OnLink::from));
        for pool in pool.into_iter().filter(|pool| pool.bridge == name) {
            let (on_link, gateway) = pool.parse()?;
            self.prefixes.push(on_link);
            self.gateways.extend(gateway);
        }
        self.bridge = name;
        Ok(())
    }
}

impl From<Prefix> for OnLink {
    fn from(prefix: Prefix) -> Self {
        let (net, vlan) = match prefix {
            Prefix::Untagged(net) => (net, 0),
            Prefix::Of { prefix, vlan } => (prefix, vlan),
        };
        Self { vlan: Some(vlan), net: net.trunc() }
    }
}

impl Allow {
    /// As a rule of the bridge; none where it is an exception of its ports alone.
    fn parse(self) -> Result<Option<policy::Allow>, Fault> {
        let Self { kind, vlan, addresses, ports, vrids, sandboxes } = self;
        let kind = match kind {
            ExceptionKind::Vrrp => AllowKind::Vrrp,
            ExceptionKind::Shared => AllowKind::Shared,
            ExceptionKind::Router => AllowKind::Router,
            ExceptionKind::Proxy => AllowKind::Proxy,
            _ => return Ok(None),
        };
        let by_exception = !vrids.is_empty() || (ports.is_empty() && !sandboxes.is_empty());
        let net = |text: String| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            let parsed = address.or_else(|_| text.parse::<IpNet>().map(|net| net.trunc()));
            parsed.map_err(|_| Fault::Address(text))
        };
        Ok(Some(policy::Allow {
            kind,
            vlan,
            addresses: addresses.into_iter().map(net).collect::<Result<_, _>>()?,
            ports: ports.into_iter().map(From::from).collect(),
            by_exception,
        }))
    }
}

impl PoolSection {
    /// Its prefix, and its gateway if it has one: the first host address unless another is named.
    fn parse(self) -> Result<(OnLink, Option<Gateway>), Fault> {
        let Self { name, bridge, vlan, prefix, gateway, gateway_ports: ports } = self;
        let gateway = match gateway {
            None => lease::Gateway::FirstHost,
            Some(text) if text == "none" => lease::Gateway::None,
            Some(text) => lease::Gateway::Is(text.parse().map_err(|_| Fault::Address(text))?),
        };
        let spec = PoolSpec { gateway, ..PoolSpec::new(name, Segment::new(bridge, vlan), prefix) };
        let pool = Pool::new(spec)?;
        let gateway = pool.gateway();
        let gateway =
            gateway.map(|address| Gateway { vlan: Some(vlan), address, mac: None, ports });
        Ok((OnLink { vlan: Some(vlan), net: pool.prefix() }, gateway))
    }
}
