//! The configuration: read from TOML, checked as a whole, then immutable.

mod access;
mod allow;
mod change;
mod check;
pub mod containerd;
mod file;
mod http;
pub mod inventory;
mod place;
mod print;
mod rules;
mod sources;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use guard_api::files;
use guard_core::{
    bounds,
    enforcement::{Grant, Settings},
    homes::{self, MAX_HOMES},
    lease::{Exclusion, ExclusionError, Pool, PoolError, Pools},
    policy::{Allow, Conflict, MAX_RULES, Quota},
    segment::Segment,
};
use ipnet::IpNet;

use self::{
    check::{check_bridges, check_gateways, check_pools, check_spans, host_bits, second},
    place::{Fault, at},
};

pub use access::Access;
pub use change::Change;
pub use file::{Enforce, LogFormat, WhenDegraded};
pub use http::HttpAddress;
pub use print::commented_defaults;

/// A configuration that has been checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Holds `leases.db`.
    pub state_dir: PathBuf,
    /// The API's Unix socket.
    pub socket: PathBuf,
    /// Its second socket, on which nobody is more than a reader.
    pub reader_socket: Option<PathBuf>,
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
    /// What holds wherever frames are dropped.
    pub enforce: Enforce,
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
    /// What is taken otherwise than it is written.
    pub remarks: Vec<String>,
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
    /// What ports may do besides their bindings.
    pub exceptions: Vec<Grant>,
    /// The gateways that are guests.
    pub homes: Vec<Home>,
    /// What is dropped.
    pub enforcement: Settings,
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
        // A pipe may never answer, and a reload would wait for it.
        let text = files::read_regular(path, bounds::CONFIGURATION)
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
            reader_socket,
            bpffs,
            http,
            log,
            allocate,
            conflict,
            quota,
            enforce,
            bridge,
            pool,
            reconcile,
            inventory,
            directory,
            watchdog,
            subscriber,
            controller,
            access,
        } = file;
        check_spans(&conflict)?;
        let reader_socket = Some(reader_socket).filter(|path| !path.as_os_str().is_empty());
        if reader_socket.as_ref() == Some(&socket) {
            let what = "it is `socket`, on which others are more than readers".to_owned();
            let error = CheckError::Setting { section: "reader_socket", what };
            return Err(at("reader_socket")(error));
        }
        let mut bridges = check_bridges(bridge)?;
        let remarks = host_bits(&pool);
        let pools = check_pools(pool, &mut bridges)?;
        check_gateways(&bridges, &pools)?;
        let sources = inventory::Settings {
            containerd: inventory.containerd.map(sources::containerd).transpose()?,
            directory: directory
                .map(|file::Directory { socket, uid }| inventory::Directory { socket, uid }),
        };
        let pools = Pools::new(pools.clone()).map_err(|error| {
            let place = format!("pool.{}", second(&pools, &error));
            at(place)(error)
        })?;
        let subscribers = sources::subscribers(subscriber)?;
        Ok(Self {
            state_dir,
            socket,
            reader_socket,
            bpffs,
            http,
            log_format: log.format,
            boot_timeout: allocate.boot_timeout,
            source_stale: allocate.source_stale,
            when_degraded: allocate.when_degraded,
            conflict,
            quota,
            enforce,
            bridges,
            reconcile: sources::reconcile(&reconcile)?,
            watchdog: sources::watchdog(&watchdog, &sources)?,
            sources,
            access: access::check(access, controller, &pools, &subscribers)?,
            pools,
            subscribers,
            remarks,
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

    /// The prefixes of the pools in which guests number themselves.
    pub fn first_come(&self) -> Vec<(Segment, IpNet)> {
        let pools = self.pools.iter().filter(|pool| pool.spec().slaac);
        pools.map(|pool| (pool.segment().clone(), pool.prefix())).collect()
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

#[cfg(test)]
mod tests;
