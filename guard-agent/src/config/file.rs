//! The settings as they stand in the file. Each default stands here and nowhere else.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;

use super::AllowKind;
use crate::{
    lease::{ExclusionError, PoolSpec},
    segment::Segment,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    pub bpffs: PathBuf,
    pub http: SocketAddr,
    pub log: Log,
    pub allocate: Allocate,
    pub conflict: Conflict,
    pub quota: Quota,
    pub bridge: Vec<Bridge>,
    pub pool: Vec<Pool>,
    pub reconcile: Reconcile,
    pub inventory: Inventory,
    pub directory: Option<Directory>,
    pub watchdog: Watchdog,
    pub subscriber: Vec<Subscriber>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/guard".into(),
            socket: "/run/guard/guard.sock".into(),
            bpffs: "/sys/fs/bpf/guard".into(),
            http: SocketAddr::from(([127, 0, 0, 1], 9477)),
            log: Log::default(),
            allocate: Allocate::default(),
            conflict: Conflict::default(),
            quota: Quota::default(),
            bridge: Vec::new(),
            pool: Vec::new(),
            reconcile: Reconcile::default(),
            inventory: Inventory::default(),
            directory: None,
            watchdog: Watchdog::default(),
            subscriber: Vec::new(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Allocate {
    #[serde(with = "humantime_serde")]
    pub boot_timeout: Duration,
    pub when_degraded: WhenDegraded,
}

impl Default for Allocate {
    fn default() -> Self {
        Self { boot_timeout: Duration::from_secs(60), when_degraded: WhenDegraded::Refuse }
    }
}

/// What allocation does while the observer cannot see all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenDegraded {
    /// Answers `UNAVAILABLE`.
    Refuse,
    /// Goes on with the evidence that there is.
    Allow,
}

/// When two claimants are a conflict, and how long an incident lasts.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conflict {
    /// A wire claim without a frame for so long is no evidence any more.
    #[serde(with = "humantime_serde")]
    pub live_window: Duration,
    /// An incident closes when all claimants but one were silent for so long.
    #[serde(with = "humantime_serde")]
    pub quiet: Duration,
    /// An address that goes back within so long to who had it has flapped.
    #[serde(with = "humantime_serde")]
    pub flap_window: Duration,
    /// So many flaps within the window are an incident.
    pub flap_count: NonZeroU32,
    /// How long a doubt between undeclared claimants may be held.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

impl Default for Conflict {
    fn default() -> Self {
        Self {
            live_window: Duration::from_secs(300),
            quiet: Duration::from_secs(60),
            flap_window: Duration::from_secs(60),
            flap_count: const { NonZeroU32::new(2).expect("it is not 0") },
            grace: Duration::from_secs(2),
        }
    }
}

/// What one access port may add about addresses that nobody owns.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// So many addresses can be live there at once.
    pub addresses_per_port: NonZeroU32,
    /// So many ARP and ND frames a second count.
    pub nd_per_second: NonZeroU32,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            addresses_per_port: const { NonZeroU32::new(16).expect("it is not 0") },
            nd_per_second: const { NonZeroU32::new(50).expect("it is not 0") },
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bridge {
    pub name: String,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default)]
    pub uplinks: Vec<String>,
    #[serde(default)]
    pub allow: Vec<Allow>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allow {
    pub kind: AllowKind,
    #[serde(default)]
    pub vlan: u16,
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default)]
    pub ports: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    #[default]
    Observe,
    Enforce,
}

/// What is not given is as [`PoolSpec::new`] has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    pub name: String,
    pub bridge: String,
    #[serde(default)]
    pub vlan: u16,
    pub prefix: IpNet,
    pub gateway: Option<IpAddr>,
    #[serde(default)]
    pub exclude: Vec<String>,
    #[serde(default, with = "humantime_serde")]
    pub cooldown: Option<Duration>,
    pub cooldown_bypass: Option<bool>,
    #[serde(default, with = "humantime_serde")]
    pub unconfirmed_ttl: Option<Duration>,
    #[serde(default, with = "humantime_serde")]
    pub probation: Option<Duration>,
    pub max_attempts: Option<u32>,
}

impl Pool {
    pub(super) fn into_spec(self) -> Result<PoolSpec, ExclusionError> {
        let default = PoolSpec::new(self.name, Segment::new(self.bridge, self.vlan), self.prefix);
        Ok(PoolSpec {
            gateway: self.gateway,
            exclude: self.exclude.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
            cooldown: self.cooldown.unwrap_or(default.cooldown),
            cooldown_bypass: self.cooldown_bypass.unwrap_or(default.cooldown_bypass),
            unconfirmed_ttl: self.unconfirmed_ttl.unwrap_or(default.unconfirmed_ttl),
            probation: self.probation.unwrap_or(default.probation),
            max_attempts: self.max_attempts.unwrap_or(default.max_attempts),
            ..default
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Reconcile {
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    pub misses: u32,
    pub max_reap_share: f64,
}

impl Default for Reconcile {
    fn default() -> Self {
        Self { interval: Duration::from_secs(300), misses: 3, max_reap_share: 0.2 }
    }
}

/// Without a section a source is not asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Inventory {
    pub containerd: Option<Containerd>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Containerd {
    pub socket: PathBuf,
    pub namespace: String,
    pub sandbox_label: String,
    pub lifecycle_label: String,
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Directory {
    pub socket: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Watchdog {
    pub enabled: bool,
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    #[serde(with = "humantime_serde")]
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscriber {
    pub name: String,
    #[serde(default = "hold_deadline", with = "humantime_serde")]
    pub hold_deadline: Duration,
}

fn hold_deadline() -> Duration {
    Duration::from_secs(120)
}
