//! The settings as they stand in the file. Each default and each setting's description stands here and
//! nowhere else: `print-config` writes both down.

use std::{
    fmt::{self, Display, Formatter},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use documented::{Documented, DocumentedFields};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use guard_core::{
    duration,
    enforcement::{Hygiene, Mode, Strict},
    lease::{self, ExclusionError, PoolSpec},
    policy::{Conflict, Quota},
    segment::Segment,
};

use super::HttpAddress;
pub(super) use super::allow::Allow;

/// The configuration of guard's agent. What is not given has the value that stands here.
#[derive(Debug, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    /// Holds the lease store and the history of incidents.
    pub state_dir: PathBuf,
    /// The API's Unix socket.
    pub socket: PathBuf,
    /// Another one, on which nobody is more than a reader: for containers, whose root is root here. Where
    /// it is empty, there is none.
    pub reader_socket: PathBuf,
    /// Where programs, links and maps are pinned: a directory of a mounted bpffs.
    pub bpffs: PathBuf,
    /// Metrics and health, over HTTP and without a password: an address with a port, or "unix:" and a
    /// path.
    pub http: HttpAddress,
    /// How it logs.
    pub log: Log,
    /// When addresses are handed out.
    pub allocate: Allocate,
    /// What is a conflict.
    pub conflict: Conflict,
    /// What one port may say.
    pub quota: Quota,
    /// What holds wherever frames are dropped.
    pub enforce: Enforce,
    /// The bridges to watch.
    #[serde(skip_serializing)]
    pub bridge: Vec<Bridge>,
    /// The pools to allocate from.
    #[serde(skip_serializing)]
    pub pool: Vec<Pool>,
    /// How leases are taken back.
    pub reconcile: Reconcile,
    /// Who is asked for sandboxes.
    pub inventory: Inventory,
    /// The controller's list.
    pub directory: Option<Directory>,
    /// When containers are removed.
    pub watchdog: Watchdog,
    /// Who is waited for.
    #[serde(skip_serializing)]
    pub subscriber: Vec<Subscriber>,
    /// Whose leases are whose.
    #[serde(skip_serializing)]
    pub controller: Vec<Controller>,
    /// Who may call.
    pub access: Access,
}

impl Default for File {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/guard".into(),
            socket: "/run/guard/guard.sock".into(),
            reader_socket: PathBuf::new(),
            bpffs: "/sys/fs/bpf/guard".into(),
            http: HttpAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 9477))),
            log: Log::default(),
            allocate: Allocate::default(),
            conflict: Conflict::default(),
            quota: Quota::default(),
            enforce: Enforce::default(),
            bridge: Vec::new(),
            pool: Vec::new(),
            reconcile: Reconcile::default(),
            inventory: Inventory::default(),
            directory: None,
            watchdog: Watchdog::default(),
            subscriber: Vec::new(),
            controller: Vec::new(),
            access: Access::default(),
        }
    }
}

/// What the agent logs, to standard error. RUST_LOG narrows or widens it.
#[derive(Debug, Default, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    /// "text" for people, "json" for one object a line.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// When addresses are handed out.
#[derive(Debug, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Allocate {
    /// How long the first look at everything may take; then `when_degraded` decides.
    #[serde(with = "duration")]
    pub boot_timeout: Duration,
    /// How long what a source listed last is good for when it does not answer any more; then
    /// `when_degraded` decides.
    #[serde(with = "duration")]
    pub source_stale: Duration,
    /// "refuse" hands nothing out while not all is seen; "allow" goes on with what is.
    pub when_degraded: WhenDegraded,
}

impl Default for Allocate {
    fn default() -> Self {
        Self {
            boot_timeout: Duration::from_secs(60),
            source_stale: Duration::from_secs(300),
            when_degraded: WhenDegraded::Refuse,
        }
    }
}

/// What allocation does while the observer cannot see all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenDegraded {
    /// Answers `UNAVAILABLE`.
    Refuse,
    /// Goes on with the evidence that there is.
    Allow,
}

/// What holds on every bridge that drops frames.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, Documented, DocumentedFields,
)]
#[serde(deny_unknown_fields, default)]
pub struct Enforce {
    /// Where soon after a change many ports at once begin to have frames dropped that claim nothing of
    /// anybody, it is the change that is wrong: those frames pass again until an operator has looked.
    pub brake: bool,
}

impl Default for Enforce {
    fn default() -> Self {
        Self { brake: true }
    }
}

/// A bridge to watch; at least one.
#[derive(Debug, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub(super) struct Bridge {
    /// Its name. It may be yet to come.
    pub name: String,
    /// "observe" tells of impostors, counts what "enforce" would drop, and drops nothing; "enforce" drops
    /// their frames.
    #[serde(default)]
    pub mode: Mode,
    /// Who may use no address and no MAC but its own: "bound", the ports that leases name; "all", every
    /// access port; "none".
    #[serde(default)]
    pub strict: Strict,
    /// What no sandbox has a reason to send: "router", "dhcp_server", "control", "ethertype", "tagged",
    /// "opaque", "malformed".
    #[serde(default)]
    pub drop: Hygiene,
    /// Ports that lead to other hosts.
    #[serde(default)]
    pub uplinks: Vec<String>,
    /// Ports that lead to sandboxes, beside taps and veths, which do without being named. One that is
    /// neither named nor one of these is judged as an uplink, and `guardctl status` asks which it is.
    #[serde(default)]
    pub access: Vec<String>,
    /// What is on the link although no pool has it: "192.0.2.0/24", or { prefix = "192.0.2.0/24", vlan =
    /// 5 }. The prefixes of the host's own addresses there need not be named.
    #[serde(default)]
    pub prefixes: Vec<OnLink>,
    /// Who may claim what another has.
    #[serde(default, skip_serializing)]
    pub allow: Vec<Allow>,
}

/// A prefix of a bridge.
#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged, expecting = "a prefix, \"192.0.2.0/24\", or { prefix, vlan }")]
pub(super) enum OnLink {
    /// In the VLAN of untagged frames.
    Untagged(String),
    /// In any.
    InVlan(InVlan),
}

/// A prefix and its VLAN.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InVlan {
    pub prefix: String,
    #[serde(default)]
    pub vlan: u16,
}

/// A pool to allocate from. What is not given is as it stands here.
#[derive(Debug, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    /// How it is asked for.
    pub name: String,
    /// The bridge that it is on, which has a section of its own.
    pub bridge: String,
    /// The VLAN of that bridge: 0 for untagged, on a bridge that filters VLANs its
    /// `vlan_default_pvid`.
    #[serde(default)]
    pub vlan: u16,
    /// What its addresses are of.
    #[serde(deserialize_with = "prefix")]
    pub prefix: IpNet,
    /// Never handed out; by default the first host address. "none": there is none.
    pub gateway: Option<Gateway>,
    /// The ports that the gateway is behind, if it is a guest: names, in which "*" stands for any text
    /// and "?" for any character. Else it is the host or behind an uplink.
    #[serde(default)]
    pub gateway_ports: Vec<String>,
    /// Not handed out either: addresses, ranges ("10.8.64.2-10.8.64.9") or prefixes.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// How long an address rests after its release.
    #[serde(default, with = "duration::option")]
    pub cooldown: Option<Duration>,
    /// Hand out the one that has rested longest where no other is left.
    pub cooldown_bypass: Option<bool>,
    /// How long a lease may stay unconfirmed.
    #[serde(default, with = "duration::option")]
    pub unconfirmed_ttl: Option<Duration>,
    /// How long a quarantined address must be silent.
    #[serde(default, with = "duration::option")]
    pub probation: Option<Duration>,
    /// How many addresses in use one allocation passes over.
    pub max_attempts: Option<u32>,
    /// Guests number themselves in it: what they use without a lease is no incident.
    pub slaac: Option<bool>,
}

/// A pool's gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gateway {
    None,
    Is(IpAddr),
}

impl Display for Gateway {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Is(address) => address.fmt(f),
        }
    }
}

impl Serialize for Gateway {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Gateway {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "none" {
            return Ok(Self::None);
        }
        text.parse()
            .map(Self::Is)
            .map_err(|_| D::Error::custom(format!("{text:?} is neither an address nor \"none\"")))
    }
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        D::Error::custom(format!("{text:?} is not a prefix; write it as \"10.8.64.0/24\""))
    })
}

impl Pool {
    pub(super) fn into_spec(self) -> Result<PoolSpec, ExclusionError> {
        let default = PoolSpec::new(self.name, Segment::new(self.bridge, self.vlan), self.prefix);
        Ok(PoolSpec {
            gateway: match self.gateway {
                None => lease::Gateway::FirstHost,
                Some(Gateway::None) => lease::Gateway::None,
                Some(Gateway::Is(address)) => lease::Gateway::Is(address),
            },
            exclude: self.exclude.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
            cooldown: self.cooldown.unwrap_or(default.cooldown),
            cooldown_bypass: self.cooldown_bypass.unwrap_or(default.cooldown_bypass),
            unconfirmed_ttl: self.unconfirmed_ttl.unwrap_or(default.unconfirmed_ttl),
            probation: self.probation.unwrap_or(default.probation),
            max_attempts: self.max_attempts.unwrap_or(default.max_attempts),
            slaac: self.slaac.unwrap_or(default.slaac),
            ..default
        })
    }
}

/// How slow and how sure leases are taken back whose owners are gone.
#[derive(Debug, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Reconcile {
    /// Time from one pass to the next.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// So many passes in a row must find nothing that speaks for a lease.
    pub misses: u32,
    /// The share of a pool's leases, 0 to 1, that a pass may take back without consent.
    pub max_reap_share: f64,
}

impl Default for Reconcile {
    fn default() -> Self {
        Self { interval: Duration::from_secs(300), misses: 3, max_reap_share: 0.2 }
    }
}

/// Without a section a source is not asked.
#[derive(Debug, Default, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Inventory {
    /// The container runtime.
    pub containerd: Option<Containerd>,
}

/// Ask containerd which sandboxes there are. Without this section it is not asked.
#[derive(Debug, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Containerd {
    /// containerd's socket.
    pub socket: PathBuf,
    /// Its namespace.
    pub namespace: String,
    /// The label that names the sandbox of a container.
    pub sandbox_label: String,
    /// The label that names its lifecycle.
    pub lifecycle_label: String,
    /// What labels that name its addresses begin with: …/ip, …/ip0, …/ip1.
    pub address_label: String,
}

impl Default for Containerd {
    fn default() -> Self {
        Self {
            socket: "/run/containerd/containerd.sock".into(),
            namespace: "sandbox".to_owned(),
            sandbox_label: "runtime.computer/sandbox".to_owned(),
            lifecycle_label: "runtime.computer/lifecycle".to_owned(),
            address_label: "runtime.computer/ip".to_owned(),
        }
    }
}

/// Ask the controller which sandboxes there are. Without this section it is not asked.
#[derive(Debug, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub(super) struct Directory {
    /// Where it serves `guard.directory.v1`.
    pub socket: PathBuf,
    /// The user that has to listen there; of anybody else nothing is believed. Any where it is left out.
    pub uid: Option<u32>,
}

/// Removes containers that no sandbox has any more. It wants [inventory.containerd] and [directory].
#[derive(Debug, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Watchdog {
    /// Without it nothing is removed; what would be can be looked at.
    pub enabled: bool,
    /// Time from one pass to the next.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// How long a sandbox that is listed as dead is left to its controller, and so are its leases.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// What runs in a container gets so much time to end by itself.
    #[serde(with = "duration")]
    pub stop_timeout: Duration,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self {
            enabled: false,
            interval: Duration::from_secs(300),
            grace: Duration::from_secs(180),
            stop_timeout: Duration::from_secs(5),
        }
    }
}

/// Who has to clean up before a released address is used again.
#[derive(Debug, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscriber {
    /// Its name in `Leases.AckHold`.
    pub name: String,
    /// How long it is waited for at most.
    #[serde(default = "hold_deadline", with = "duration")]
    pub hold_deadline: Duration,
}

pub(super) fn hold_deadline() -> Duration {
    Duration::from_secs(120)
}

/// A controller: a user who may read, and hand out and take back leases, subnets and names. What one has
/// made, another does not confirm, bind or give back.
#[derive(Debug, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub(super) struct Controller {
    /// Its number.
    pub uid: u32,
    /// The pools that it has; all where none is named.
    #[serde(default)]
    pub pools: Vec<String>,
    /// The subscriber that it acknowledges holds for. One that no controller names is every controller's.
    pub subscriber: Option<String>,
    /// What it makes is every controller's that has the pool, too.
    #[serde(default)]
    pub shared: bool,
}

/// Who may call, by the credentials of the process that connects.
#[derive(Debug, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Access {
    /// Administrators: users who may do everything.
    pub admin_uids: Vec<u32>,
    /// An administrator's process must have CAP_NET_ADMIN in the initial user namespace, too, when it
    /// connects: uid 0 of a container most likely has not.
    pub admin_net_admin: bool,
    /// Controllers: users who may read, and hand out and take back leases, subnets and names. Each is a
    /// [[controller]] of all pools.
    pub controller_uids: Vec<u32>,
    /// Readers: groups whose members may read.
    pub reader_gids: Vec<u32>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            admin_uids: vec![0],
            admin_net_admin: false,
            controller_uids: Vec::new(),
            reader_gids: Vec::new(),
        }
    }
}
