//! The configuration: read from TOML, checked as a whole, then immutable.

mod change;
pub mod containerd;
mod file;
mod http;
pub mod inventory;
mod place;
mod print;
mod rules;
mod sources;

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use guard_core::{
    homes::{self, MAX_HOMES},
    lease::{Exclusion, ExclusionError, Pool, PoolError, Pools},
    policy::{Allow, Conflict, MAX_RULES, Quota},
    segment::Segment,
};
use ipnet::IpNet;

use self::place::{Fault, at};

pub use change::Change;
pub use file::{Access, LogFormat, WhenDegraded};
pub use http::HttpAddress;
pub use print::commented_defaults;

/// A configuration that has been checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Holds `leases.db`.
    pub state_dir: PathBuf,
    /// The API's Unix socket.
    pub socket: PathBuf,
    /// Where programs, links and maps are pinned; on a bpffs.
    pub bpffs: PathBuf,
    /// Metrics and health.
    pub http: HttpAddress,
    /// How log lines look.
    pub log_format: LogFormat,
    /// How long the boot pass may take before `when_degraded` decides.
    pub boot_timeout: Duration,
    /// How long what a source listed last is good for when it does not answer any more.
    pub source_stale: Duration,
    /// Whether to hand out addresses while the observer cannot see all.
    pub when_degraded: WhenDegraded,
    /// When two claimants are a conflict, and how long an incident lasts.
    pub conflict: Conflict,
    /// What one port may add about addresses that nobody owns.
    pub quota: Quota,
    /// The bridges to watch.
    pub bridges: Vec<Bridge>,
    /// The pools to allocate from.
    pub pools: Pools,
    /// How slow and how sure leases are taken back.
    pub reconcile: guard_core::reconcile::Settings,
    /// Who is asked which sandboxes there are.
    pub sources: inventory::Settings,
    /// How containers are removed whose sandboxes are over.
    pub watchdog: guard_core::watchdog::Settings,
    /// Whose acknowledgement a released address waits for, and how long at most.
    pub subscribers: Vec<(Arc<str>, Duration)>,
    /// Who may call what.
    pub access: Access,
}

/// A bridge to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: Arc<str>,
    /// Ports that lead to other hosts.
    pub uplinks: Vec<Arc<str>>,
    /// Ports that lead to sandboxes, whatever device they are.
    pub access: Vec<Arc<str>>,
    /// The prefixes on the link that no pool has, with their VLANs.
    pub prefixes: Vec<(u16, IpNet)>,
    /// Who may claim what another has.
    pub allow: Vec<Allow>,
    /// The gateways that are guests.
    pub homes: Vec<Home>,
}

/// A gateway that is at home on ports of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Its VLAN.
    pub vlan: u16,
    /// Its address.
    pub address: IpAddr,
    /// Patterns of the ports' names.
    pub ports: Vec<Arc<str>>,
}

impl Bridge {
    /// The ports of each of those gateways.
    pub fn homes(&self) -> impl Iterator<Item = &[Arc<str>]> {
        self.homes.iter().map(|home| &home.ports[..])
    }
}

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind; the source names the line.
    #[error("{path}: {source}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// The keys are right, what they say together is not.
    #[error("{path}: {}{source}", .line.map(|line| format!("line {line}: ")).unwrap_or_default())]
    Check {
        /// Which file.
        path: PathBuf,
        /// Where; `None` where it is about what is not there.
        line: Option<usize>,
        /// What is wrong.
        source: CheckError,
    },
}

/// What is wrong with settings that are well formed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Enforcement does not exist yet.
    #[error(
        "bridge {bridge:?}: mode = \"enforce\" is not available yet; use mode = \"observe\", which \
         reports impostors and drops nothing"
    )]
    Enforce {
        /// Which bridge.
        bridge: String,
    },
    /// The name cannot be an interface's.
    #[error("{name:?} is not an interface name: 1 to 15 bytes without '/', spaces or ':'")]
    InterfaceName {
        /// The name.
        name: String,
    },
    /// A port that is said to be both.
    #[error("bridge {bridge:?}: port {port:?} is in uplinks and in access; leave it in one")]
    TwoKinds {
        /// Which bridge.
        bridge: String,
        /// Which port.
        port: String,
    },
    /// Two sections for one bridge.
    #[error("bridge {bridge:?} is configured twice; merge the two [[bridge]] sections")]
    BridgeTwice {
        /// Which bridge.
        bridge: String,
    },
    /// A pool on a bridge that is not configured.
    #[error("pool {pool:?} is on bridge {bridge:?}, which has no [[bridge]] section; add one")]
    BridgeUnknown {
        /// Which pool.
        pool: String,
        /// Which bridge.
        bridge: String,
    },
    /// No bridge to watch.
    #[error("there is no [[bridge]] section: name at least one bridge to watch")]
    NoBridge,
    /// A span that lets nothing fall into it.
    #[error("[conflict] {key} = \"0s\" would never tell anything; give it at least a second")]
    NoSpan {
        /// Which setting.
        key: &'static str,
    },
    /// More bridges than the program keeps counters for.
    #[error("{count} bridges are configured, an agent watches at most {most}")]
    TooManyBridges {
        /// How many.
        count: usize,
        /// How many it may be.
        most: u32,
    },
    /// Something to be on the link that is no prefix.
    #[error("bridge {bridge:?}: prefixes: {why}")]
    OnLink {
        /// Which bridge.
        bridge: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// An allow rule that allows nothing, or too much.
    #[error("bridge {bridge:?}, [[bridge.allow]] of kind {kind:?}: {why}")]
    Allow {
        /// Which bridge.
        bridge: String,
        /// What the rule is for.
        kind: &'static str,
        /// What is wrong, and what to do.
        why: String,
    },
    /// More rules than the program tells apart.
    #[error("bridge {bridge:?} has {count} [[bridge.allow]] rules, it can have {MAX_RULES}")]
    TooManyRules {
        /// Which bridge.
        bridge: String,
        /// How many.
        count: usize,
    },
    /// A VLAN id that no frame can carry.
    #[error("pool {pool:?}: vlan = {vlan} is not a VLAN id (0 for untagged, 1 to 4094)")]
    Vlan {
        /// Which pool.
        pool: String,
        /// The id.
        vlan: u16,
    },
    /// Ports for a gateway that cannot have any.
    #[error("pool {pool:?}: gateway_ports: {what}")]
    GatewayPorts {
        /// Which pool.
        pool: Arc<str>,
        /// What is wrong.
        what: String,
    },
    /// Something to exclude that is no address, range or prefix.
    #[error("pool {pool:?}: exclude: {source}")]
    Exclusion {
        /// Which pool.
        pool: String,
        /// What is wrong.
        source: ExclusionError,
    },
    /// A setting that no agent could work with.
    #[error("{section}: {what}")]
    Setting {
        /// Which section.
        section: &'static str,
        /// What is wrong, and what to do.
        what: String,
    },
    /// An address, a prefix or a pair of pools.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Names the file, the line where there is one, the object, and what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Checks what a file says.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let path = || path.to_owned();
        let file = toml::from_str::<file::File>(text)
            .map_err(|source| ConfigError::Parse { path: path(), source: Box::new(source) })?;
        Self::check(file).map_err(|Fault { place, error: source }| ConfigError::Check {
            path: path(),
            line: place::line(text, &place),
            source,
        })
    }

    fn check(file: file::File) -> Result<Self, Fault> {
        let file::File {
            state_dir,
            socket,
            bpffs,
            http,
            log,
            allocate,
            conflict,
            quota,
            bridge,
            pool,
            reconcile,
            inventory,
            directory,
            watchdog,
            subscriber,
            access,
        } = file;
        check_spans(&conflict)?;
        let mut bridges = check_bridges(bridge)?;
        let pools = check_pools(pool, &mut bridges)?;
        check_gateways(&bridges, &pools)?;
        let sources = inventory::Settings {
            containerd: inventory.containerd.map(sources::containerd).transpose()?,
            directory: directory.map(|directory| directory.socket),
        };
        Ok(Self {
            state_dir,
            socket,
            bpffs,
            http,
            log_format: log.format,
            boot_timeout: allocate.boot_timeout,
            source_stale: allocate.source_stale,
            when_degraded: allocate.when_degraded,
            conflict,
            quota,
            bridges,
            pools: Pools::new(pools.clone()).map_err(|error| {
                let place = format!("pool.{}", second(&pools, &error));
                at(place)(error)
            })?,
            reconcile: sources::reconcile(&reconcile)?,
            watchdog: sources::watchdog(&watchdog, &sources)?,
            sources,
            subscribers: sources::subscribers(subscriber)?,
            access,
        })
    }

    /// The prefixes of each segment: its pools', and what is on the link besides.
    pub fn prefixes(&self) -> Vec<(Segment, IpNet)> {
        let pools = self.pools.iter().map(|pool| (pool.segment().clone(), pool.prefix()));
        let others = self.bridges.iter().flat_map(|bridge| {
            let of = |(vlan, net): &(u16, IpNet)| (Segment::new(bridge.name.clone(), *vlan), *net);
            bridge.prefixes.iter().map(of)
        });
        pools.chain(others).collect()
    }

    /// The pools' gateways, each with the bit of the ports that it is at home on.
    pub fn gateways(&self) -> Vec<((Segment, IpAddr), u16)> {
        let home = |segment: &Segment, address: IpAddr| {
            let bridge = self.bridges.iter().find(|bridge| bridge.name == segment.bridge)?;
            let bits = homes::of_gateways(bridge.homes());
            let mut homes = bridge.homes.iter().zip(bits);
            let is =
                |(home, _): &(&Home, u16)| (home.vlan, home.address) == (segment.vlan, address);
            homes.find(is).map(|(_, bit)| bit)
        };
        let gateway = |pool: &Pool| {
            let (segment, address) = (pool.segment().clone(), pool.gateway()?);
            let home = home(&segment, address).unwrap_or(0);
            Some(((segment, address), home))
        };
        self.pools.iter().filter_map(gateway).collect()
    }

    /// The segments that have a pool, each once.
    pub fn segments(&self) -> Vec<Segment> {
        let mut segments: Vec<_> =
            self.pools.iter().map(|pool| pool.spec().segment.clone()).collect();
        segments.sort();
        segments.dedup();
        segments
    }
}

fn check_pools(sections: Vec<file::Pool>, bridges: &mut [Bridge]) -> Result<Vec<Pool>, Fault> {
    let mut pools = Vec::with_capacity(sections.len());
    for (index, pool) in sections.into_iter().enumerate() {
        let key = |key| format!("pool.{index}.{key}");
        let name = pool.name.clone();
        let Some(on) = bridges.iter().position(|bridge| *bridge.name == *pool.bridge) else {
            let error = CheckError::BridgeUnknown { pool: name, bridge: pool.bridge };
            return Err(at(key("bridge"))(error));
        };
        if pool.vlan > 4094 {
            return Err(at(key("vlan"))(CheckError::Vlan { pool: name, vlan: pool.vlan }));
        }
        let ports: Vec<_> = pool.gateway_ports.iter().map(|port| Arc::from(&**port)).collect();
        let mut spec = pool
            .into_spec()
            .map_err(|source| CheckError::Exclusion { pool: name, source })
            .map_err(at(key("exclude")))?;
        spec.exclude.extend(taken(bridges, &spec.segment).map(Exclusion::from));
        let pool = Pool::new(spec).map_err(|error| {
            let wrong = match error {
                PoolError::Gateway { .. } => "gateway",
                PoolError::NoAttempts { .. } => "max_attempts",
                _ => "prefix",
            };
            at(key(wrong))(error)
        })?;
        if !ports.is_empty() {
            let homes = &mut bridges[on].homes;
            let wrong = |what: String| CheckError::GatewayPorts { pool: pool.name().clone(), what };
            let fault = at(key("gateway_ports"));
            let Some(address) = pool.gateway() else {
                return Err(fault(wrong("the pool has no gateway".to_owned())));
            };
            if homes.len() == MAX_HOMES {
                let what = format!("{MAX_HOMES} other pools of the bridge have some already");
                return Err(fault(wrong(what)));
            }
            homes.push(Home { vlan: pool.segment().vlan, address, ports });
        }
        pools.push(pool);
    }
    Ok(pools)
}

/// Which of the two pools that do not go together is the later one, and what about it.
fn second(pools: &[Pool], error: &PoolError) -> String {
    let last = |name: &Arc<str>| pools.iter().rposition(|pool| pool.name() == name).unwrap_or(0);
    match error {
        PoolError::Overlap { first, second, .. } => {
            format!("{}.prefix", last(first).max(last(second)))
        }
        PoolError::Name { pool } => format!("{}.name", last(pool)),
        PoolError::NotUnicast { .. } | PoolError::Gateway { .. } | PoolError::NoAttempts { .. } => {
            "0".to_owned()
        }
    }
}

fn check_spans(conflict: &Conflict) -> Result<(), Fault> {
    let Conflict { live_window, quiet, flap_window, flap_count: _, grace: _ } = conflict;
    let spans = [("live_window", live_window), ("quiet", quiet), ("flap_window", flap_window)];
    match spans.into_iter().find(|(_, span)| span.is_zero()) {
        Some((key, _)) => Err(at(format!("conflict.{key}"))(CheckError::NoSpan { key })),
        None => Ok(()),
    }
}

/// What allow rules leave to those whom they name: no pool hands it out.
fn taken<'a>(bridges: &'a [Bridge], segment: &'a Segment) -> impl Iterator<Item = IpNet> + 'a {
    let own = bridges.iter().filter(|bridge| bridge.name == segment.bridge);
    let rules = own.flat_map(|bridge| &bridge.allow);
    let rules = rules.filter(|rule| rule.vlan == segment.vlan && rule.declares());
    rules.flat_map(|rule| &rule.addresses).copied()
}

/// A gateway is everyone's: only ports that are named may claim it.
fn check_gateways(bridges: &[Bridge], pools: &[Pool]) -> Result<(), Fault> {
    for pool in pools {
        let (segment, gateway) = (pool.segment(), pool.gateway());
        let Some(gateway) = gateway else { continue };
        let own = bridges.iter().enumerate().filter(|(_, bridge)| bridge.name == segment.bridge);
        for (at_bridge, bridge) in own {
            let open = |rule: &Allow| rule.ports.is_empty() && rule.names(segment.vlan, gateway);
            let Some(at_rule) = bridge.allow.iter().position(open) else { continue };
            let error = CheckError::Allow {
                bridge: segment.bridge.to_string(),
                kind: bridge.allow[at_rule].kind.name(),
                why: format!("{gateway} is a gateway; name the ports that may claim it"),
            };
            return Err(at(format!("bridge.{at_bridge}.allow.{at_rule}"))(error));
        }
    }
    Ok(())
}

fn check_bridges(sections: Vec<file::Bridge>) -> Result<Vec<Bridge>, Fault> {
    let mut bridges = Vec::<Bridge>::with_capacity(sections.len());
    for (index, section) in sections.into_iter().enumerate() {
        let file::Bridge { name, mode, uplinks, access, prefixes, allow } = section;
        let key = |key| format!("bridge.{index}.{key}");
        check_interface(&name).map_err(at(key("name")))?;
        for (setting, ports) in [("uplinks", &uplinks), ("access", &access)] {
            for (index, port) in ports.iter().enumerate() {
                check_interface(port).map_err(at(format!("{}.{index}", key(setting))))?;
            }
        }
        if let Some(index) = access.iter().position(|port| uplinks.contains(port)) {
            let error = CheckError::TwoKinds { bridge: name, port: access[index].clone() };
            return Err(at(format!("{}.{index}", key("access")))(error));
        }
        if mode == file::Mode::Enforce {
            return Err(at(key("mode"))(CheckError::Enforce { bridge: name }));
        }
        if bridges.iter().any(|bridge| *bridge.name == *name) {
            return Err(at(key("name"))(CheckError::BridgeTwice { bridge: name }));
        }
        let [uplinks, access] =
            [uplinks, access].map(|ports| ports.into_iter().map(Arc::from).collect());
        if allow.len() > MAX_RULES {
            let error = CheckError::TooManyRules { bridge: name, count: allow.len() };
            return Err(at(format!("{}.{MAX_RULES}", key("allow")))(error));
        }
        let allow = allow.into_iter().enumerate().map(|(index, section)| {
            let place = format!("{}.{index}", key("allow"));
            rules::allow(&name, section).map_err(at(place))
        });
        let allow = allow.collect::<Result<_, _>>()?;
        let prefixes = prefixes.into_iter().enumerate().map(|(index, section)| {
            let place = format!("{}.{index}", key("prefixes"));
            rules::on_link(&name, section).map_err(at(place))
        });
        let prefixes = prefixes.collect::<Result<_, _>>()?;
        bridges.push(Bridge {
            name: name.into(),
            uplinks,
            access,
            prefixes,
            allow,
            homes: Vec::new(),
        });
    }
    match u32::try_from(bridges.len()) {
        Ok(0) => Err(at("bridge")(CheckError::NoBridge)),
        Ok(count) if count <= guard_ebpf::abi::MAX_BRIDGES => Ok(bridges),
        _ => Err(at(format!("bridge.{}", guard_ebpf::abi::MAX_BRIDGES))(
            CheckError::TooManyBridges { count: bridges.len(), most: guard_ebpf::abi::MAX_BRIDGES },
        )),
    }
}

/// The kernel's own rule, `dev_valid_name` in `net/core/dev.c`.
fn check_interface(name: &str) -> Result<(), CheckError> {
    let valid = (1..16).contains(&name.len())
        && ![".", ".."].contains(&name)
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if valid { Ok(()) } else { Err(CheckError::InterfaceName { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests;
