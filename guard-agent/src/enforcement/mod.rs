//! Enforcement, as far as an operator has a hand in it: which bridges and ports drop, what was dropped,
//! and the brake. What follows from a port's bindings is the owners' to write; this room writes the
//! kernel's map of modes alone.

mod bridge;
mod counted;
mod file;
mod inner;
mod state;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use aya::maps::{Array, MapData, MapError};
use guard_core::{
    enforcement::{Facts, Finding, Grant, Kept, Mode, Override, PortFacts, Telling, preflight},
    incident::Kind,
};
use guard_ebpf::{abi, counters::DropReason};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use self::{bridge::Bridge, counted::DropsMap, file::OverridesFile, inner::Inner};
pub(crate) use self::{
    counted::{Counted, decode},
    state::{BridgeState, InForce},
};
use crate::{
    clock,
    config::Config,
    datapath::Slot,
    events::IncidentReporter,
    health::{self, Health},
    metrics::{Metrics, gauge_value},
    observer::{PortKind, PortStatus, SharedPorts},
    owners::Owners,
};

/// Frames of so long ago still tell what a port does.
const OF_LATE: Duration = Duration::from_secs(600);

/// Why a mode is not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModeError {
    /// It is not watched.
    #[error("no such bridge")]
    BridgeUnknown,
    /// It is no port of a watched bridge.
    #[error("no such port")]
    PortUnknown,
    /// Something speaks against it.
    #[error("{}", said(.0))]
    Preflight(Vec<Finding>),
    /// The kernel refuses.
    #[error("the kernel's maps cannot be written: {0}")]
    Kernel(#[from] MapError),
    /// It would be forgotten with the agent.
    #[error("the modes of ports cannot be stored: {0}")]
    Store(#[from] std::io::Error),
}

/// The findings in one line.
fn said(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|finding| format!("{}: {}", finding.what, finding.advice));
    lines.collect::<Vec<_>>().join("; ")
}

/// What ports may do besides their bindings, as the file has it.
fn exceptions(config: &Config) -> Vec<Grant> {
    config.bridges.iter().flat_map(|bridge| bridge.exceptions.iter().cloned()).collect()
}

/// What enforcement works with.
pub(crate) struct Deps {
    /// The kernel's modes of bridges.
    pub modes: Array<MapData, abi::Mode>,
    /// The place of each bridge in them.
    pub slots: Vec<Slot>,
    /// The kernel's counts of what was dropped.
    pub drops: DropsMap,
    /// Who may claim what, and the policies of ports.
    pub owners: Arc<Owners>,
    /// The incidents, which know whose frames are dropped.
    pub reporter: Arc<IncidentReporter>,
    /// What is degraded.
    pub health: Arc<Health>,
    /// Where the modes of ports are stored.
    pub state_dir: PathBuf,
}

/// Which bridges and ports drop.
pub(crate) struct Enforcement {
    owners: Arc<Owners>,
    reporter: Arc<IncidentReporter>,
    health: Arc<Health>,
    inner: Mutex<Inner>,
}

impl Enforcement {
    /// Takes over what is in force, and the modes of ports that are stored. The bridges' policies are set,
    /// and the owners know the ports' modes: to be called before any port is known.
    pub(crate) fn open(deps: Deps, config: &Config) -> Self {
        let Deps { modes, slots, drops, owners, reporter, health, state_dir } = deps;
        let file = OverridesFile::open(&state_dir).unwrap_or_else(|(file, error)| {
            let why =
                format!("the modes of ports cannot be read: {error}; they are their bridges'");
            health.degraded(health::ENFORCEMENT, &why);
            file
        });
        let bridges = slots.into_iter().zip(&config.bridges);
        let bridges = bridges.map(|(slot, settings)| Bridge::new(slot, settings, &modes));
        let bridges: Vec<_> = bridges.collect();
        for bridge in &bridges {
            report(&health, owners.set_enforcement(&bridge.name, bridge.settings.clone()));
        }
        for (ifindex, own) in file.iter() {
            report(&health, owners.set_port_mode(ifindex, Some(own.clone())));
        }
        report(&health, owners.set_exceptions(exceptions(config)));
        let ports = SharedPorts::default();
        let brake = config.enforce.brake;
        let inner = Inner {
            modes,
            drops,
            file,
            bridges,
            brake,
            counted: Vec::new(),
            ports,
            telling: Telling::default(),
        };
        Self { owners, reporter, health, inner: Mutex::new(inner) }
    }

    /// Leases and ports are known: from now on the bridges do what the configuration says.
    pub(crate) fn begin(&self, ports: SharedPorts) {
        let inner = &mut *self.inner.lock();
        inner.ports = ports;
        inner.read_drops();
        self.expire(inner);
        let counts: Vec<_> = inner.dropped().collect();
        inner.telling.begin(counts);
        for at in 0..inner.bridges.len() {
            self.apply(inner, at);
        }
        self.look(inner);
    }

    /// The configuration says this now.
    pub(crate) fn configured(&self, config: &Config) {
        let inner = &mut *self.inner.lock();
        inner.brake = config.enforce.brake;
        report(&self.health, self.owners.set_exceptions(exceptions(config)));
        for at in 0..inner.bridges.len() {
            let bridge = &mut inner.bridges[at];
            let new = config.bridges.iter().find(|new| new.name == bridge.name);
            let Some(new) = new.filter(|new| !bridge.is_set_to(new)) else { continue };
            bridge.settings = new.enforcement.clone();
            bridge.brake.changed(clock::monotonic());
            let set = self.owners.set_enforcement(&bridge.name, bridge.settings.clone());
            report(&self.health, set);
            self.apply(inner, at);
        }
        self.look(inner);
    }

    /// Has a bridge do what its settings say. What errors speak against is not begun; what is in force
    /// already goes on.
    fn apply(&self, inner: &mut Inner, at: usize) {
        let bridge = &inner.bridges[at];
        let (name, wanted) = (bridge.name.clone(), bridge.settings.mode);
        let key = health::enforcement(&name);
        if wanted.enforces() && !bridge.mode.enforces() {
            let mut errors = self.preflight(inner, at);
            errors.retain(|finding| finding.error);
            if !errors.is_empty() {
                return self.health.degraded(&key, &format!("not enforced: {}", said(&errors)));
            }
        }
        match inner.set_mode(at, wanted) {
            Ok(()) => self.health.recovered(&key),
            Err(error) => self.health.degraded(&key, &ModeError::from(error).to_string()),
        }
    }

    /// Has a bridge drop frames or not, until the configuration is read again.
    ///
    /// # Errors
    /// What speaks against it; warnings do not where `yes` is said.
    pub(crate) fn set_bridge(
        &self,
        bridge: &str,
        mode: Mode,
        yes: bool,
        dry_run: bool,
    ) -> Result<BridgeState, ModeError> {
        let inner = &mut *self.inner.lock();
        let at = inner.at(bridge).ok_or(ModeError::BridgeUnknown)?;
        self.may(inner, at, mode, yes)?;
        if !dry_run {
            inner.set_mode(at, mode)?;
            self.look(inner);
            tracing::warn!(bridge, %mode, "the mode of a bridge was set");
        }
        Ok(self.state(inner, at))
    }

    /// Gives a port a mode of its own, or with `None` its bridge's.
    ///
    /// # Errors
    /// As [`Self::set_bridge`].
    pub(crate) fn set_port(
        &self,
        port: &str,
        mode: Option<(Mode, Option<Timestamp>)>,
        yes: bool,
        dry_run: bool,
    ) -> Result<BridgeState, ModeError> {
        let inner = &mut *self.inner.lock();
        let (ifindex, bridge) = {
            let ports = inner.ports.read();
            let known = ports.iter().find(|(_, status)| *status.port.interface == *port);
            let (ifindex, status) = known.ok_or(ModeError::PortUnknown)?;
            (*ifindex, status.port.bridge.clone())
        };
        let at = inner.at(&bridge).ok_or(ModeError::BridgeUnknown)?;
        self.may(inner, at, mode.map_or(Mode::Observe, |(mode, _)| mode), yes)?;
        if !dry_run {
            let port: Arc<str> = port.into();
            let own =
                mode.map(|(mode, until)| Override { bridge, port: port.clone(), mode, until });
            inner.file.set(ifindex, own.clone())?;
            self.owners.set_port_mode(ifindex, own)?;
            inner.bridges[at].brake.changed(clock::monotonic());
            self.look(inner);
            let (mode, port) = (mode.map_or("bridge", |(mode, _)| mode.name()), &*port);
            tracing::warn!(port, mode, "the mode of a port was set");
        }
        Ok(self.state(inner, at))
    }

    /// Drops again what the brake has let pass.
    ///
    /// # Errors
    /// The bridge is not watched, or the kernel refuses.
    pub(crate) fn resume(&self, bridge: &str) -> Result<BridgeState, ModeError> {
        let inner = &mut *self.inner.lock();
        let at = inner.at(bridge).ok_or(ModeError::BridgeUnknown)?;
        inner.bridges[at].braked = 0;
        inner.write(at)?;
        self.look(inner);
        tracing::warn!(bridge, "the brake was taken off");
        Ok(self.state(inner, at))
    }

    /// How frames are judged: on all bridges, or on one.
    pub(crate) fn states(&self, bridge: &str) -> Vec<BridgeState> {
        let inner = &mut *self.inner.lock();
        let is_asked = |at: &usize| bridge.is_empty() || inner.at(bridge) == Some(*at);
        let asked: Vec<_> = (0..inner.bridges.len()).filter(is_asked).collect();
        asked.into_iter().map(|at| self.state(inner, at)).collect()
    }

    /// The mode that is in force on each bridge, and the one that is configured.
    pub(crate) fn modes(&self) -> BTreeMap<Arc<str>, (Mode, Mode)> {
        let inner = self.inner.lock();
        let modes = |bridge: &Bridge| (bridge.name.clone(), (bridge.mode, bridge.settings.mode));
        inner.bridges.iter().map(modes).collect()
    }

    /// What is in force, to ask without a lock.
    pub(crate) fn in_force(&self) -> InForce {
        self.inner.lock().in_force()
    }

    /// What was dropped, or would have been, in the order of ports and reasons.
    pub(crate) fn drops(&self) -> Vec<Counted> {
        let inner = &mut *self.inner.lock();
        inner.read_drops();
        inner.counted.clone()
    }

    /// Sets what is read rather than counted.
    pub(crate) fn collect(&self, metrics: &Metrics) {
        let inner = self.inner.lock();
        for bridge in &inner.bridges {
            let labels = [&*bridge.name];
            let (enforcing, dropping, first) = inner.ports_of(bridge);
            let gauges = &metrics.enforcement;
            gauges.ports_enforcing.with_label_values(&labels).set(gauge_value(enforcing));
            gauges.ports_dropping.with_label_values(&labels).set(gauge_value(dropping));
            gauges.braked.with_label_values(&labels).set(i64::from(bridge.braked != 0));
            gauges.first_on_hook.with_label_values(&labels).set(i64::from(first));
        }
        let enforces = |name: &Arc<str>| {
            inner.bridges.iter().any(|bridge| bridge.name == *name && bridge.mode.enforces())
        };
        let mut unprotected = BTreeMap::new();
        for ((bridge, pool), count) in self.owners.learned() {
            *unprotected.entry(pool).or_insert(0) += if enforces(&bridge) { count } else { 0 };
        }
        for (pool, count) in unprotected {
            let gauge = metrics.enforcement.unprotected.with_label_values(&[&*pool]);
            gauge.set(gauge_value(count));
        }
    }

    /// Looks once a second at what is dropped, and at what is over.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            second.tick().await;
            let looking = self.clone();
            // A full map takes its time to read.
            let looked = spawn_blocking(move || looking.every_second()).await;
            if let Err(panicked) = looked {
                std::panic::resume_unwind(panicked.into_panic());
            }
        }
    }

    fn every_second(&self) {
        let inner = &mut *self.inner.lock();
        let before = std::mem::take(&mut inner.counted);
        inner.read_drops();
        self.expire(inner);
        for at in 0..inner.bridges.len() {
            self.brake(inner, at, &before);
        }
        for dropped in inner.untold() {
            tracing::warn!(
                port = &*dropped.interface,
                reason = dropped.reason,
                address = dropped.address.map(tracing::field::display),
                frames = dropped.frames,
                "frames of a port are dropped"
            );
            self.reporter.dropped(dropped, clock::now());
        }
        self.look(inner);
    }

    /// Ends the modes of ports whose time is over, or which have ended.
    fn expire(&self, inner: &mut Inner) {
        let has_ended = |ifindex| !self.owners.has_mode(ifindex);
        let (over, stored) = inner.file.expire(clock::now().wall, has_ended);
        for (ifindex, Override { bridge, port, .. }) in over {
            let (bridge, port) = (&*bridge, &*port);
            tracing::warn!(bridge, port, "the mode of a port has ended");
            report(&self.health, self.owners.set_port_mode(ifindex, None));
        }
        if let Err(error) = stored {
            tracing::warn!(%error, "the modes of ports cannot be stored");
        }
    }

    /// Lets those frames pass again that a change has begun to drop, where it is the change that is wrong.
    fn brake(&self, inner: &mut Inner, at: usize, before: &[Counted]) {
        let name = inner.bridges[at].name.clone();
        let bound: Vec<_> = {
            let ports = inner.ports.read();
            let own = ports.iter().filter(|(_, status)| status.port.bridge == name);
            own.map(|(ifindex, _)| *ifindex)
                .filter(|port| self.owners.has_declared(*port))
                .collect()
        };
        let dropping = counted::begun(before, &inner.counted);
        let dropping = dropping.filter(|port| bound.contains(port));
        let dropping: Vec<_> = dropping.collect();
        let acts = inner.bridges[at].brake.dropping(clock::monotonic(), dropping, bound.len());
        if !acts || !inner.brake {
            return;
        }
        inner.bridges[at].braked = bridge::braked();
        if let Err(error) = inner.write(at) {
            tracing::error!(bridge = &*name, %error, "the brake cannot be put on");
        }
    }

    /// Says which ports enforce, and of each bridge that does what keeps it from doing so on all ports.
    fn look(&self, inner: &Inner) {
        self.reporter.set_enforced(inner.enforced());
        for bridge in &inner.bridges {
            let brake = health::brake(&bridge.name);
            if bridge.braked == 0 {
                self.health.recovered(&brake);
            } else {
                let why = "the brake is on: after a change many ports at once had frames dropped that \
                           claim nothing of anybody; they pass until `guardctl enforce resume`";
                self.health.degraded(&brake, why);
            }
            let key = health::enforcement(&bridge.name);
            if bridge.mode.enforces() {
                match inner.unknown(&bridge.name) {
                    Some(why) => self.health.degraded(&key, &why),
                    None => self.health.recovered(&key),
                }
            } else if !bridge.settings.mode.enforces() {
                self.health.recovered(&key);
            }
        }
    }

    /// Whether what the preflight finds lets a mode be set.
    fn may(&self, inner: &Inner, at: usize, mode: Mode, yes: bool) -> Result<(), ModeError> {
        if !mode.enforces() {
            return Ok(());
        }
        let mut found = self.preflight(inner, at);
        found.retain(|finding| finding.error || !yes);
        if found.is_empty() { Ok(()) } else { Err(ModeError::Preflight(found)) }
    }

    fn preflight(&self, inner: &Inner, at: usize) -> Vec<Finding> {
        let bridge = &inner.bridges[at];
        let now = clock::monotonic();
        let port = |(ifindex, status): (&u32, &PortStatus)| {
            let own = inner.counted.iter().filter(|counted| {
                counted.ifindex == *ifindex && now.saturating_sub(counted.last) < OF_LATE
            });
            let kept = own.map(|counted| Kept {
                reason: counted.reason,
                frames: counted.would_drop + counted.dropped,
                address: counted.address(),
            });
            let bound = self.owners.bound_to(*ifindex);
            PortFacts {
                name: status.port.interface.clone(),
                unknown: (status.kind.0 == PortKind::Unknown).then(|| status.kind.1.clone()),
                uncovered: status.why.clone(),
                sandbox: bound.map(|(sandbox, _)| sandbox.into()),
                addresses: self.owners.addresses_of(*ifindex),
                kept: kept.collect(),
            }
        };
        let ports = inner.ports.read();
        let own = ports.iter().filter(|(_, status)| status.port.bridge == bridge.name);
        let ports: Vec<_> = own.map(port).collect();
        let leased_hosts = self.owners.leased_hosts(&bridge.name);
        let store = self.health.why(health::STORE);
        let open = self.reporter.list(false);
        let proxies = open.iter().filter(|incident| {
            incident.kind == Kind::Proxy && incident.segment.bridge == bridge.name
        });
        let proxies = proxies.flat_map(|incident| &incident.claimants);
        let proxies: Vec<_> = proxies.filter_map(|claimant| claimant.interface.clone()).collect();
        preflight(&Facts {
            allow: &bridge.allow,
            ports: &ports,
            leased_hosts: &leased_hosts,
            store: store.as_deref(),
            accepts_ra: accepts_ra(&bridge.name),
            bridge: &bridge.name,
            proxies: &proxies,
        })
    }

    fn state(&self, inner: &mut Inner, at: usize) -> BridgeState {
        inner.read_drops();
        let findings = self.preflight(inner, at);
        let bridge = &inner.bridges[at];
        let (ports_enforcing, ports_dropping, _) = inner.ports_of(bridge);
        BridgeState {
            name: bridge.name.clone(),
            mode: bridge.mode,
            settings: bridge.settings.clone(),
            braked: DropReason::ALL
                .iter()
                .copied()
                .filter(|reason| reason.bit() & bridge.braked != 0)
                .collect(),
            ports_enforcing,
            ports_dropping,
            ports: inner
                .file
                .iter()
                .filter(|(_, own)| own.bridge == bridge.name)
                .map(|(_, own)| own.clone())
                .collect(),
            findings,
        }
    }
}

/// Whether the host takes routes from router advertisements on a bridge though it forwards (2): where it does
/// not, 1 is what the kernel begins with. Where it cannot be read there is no IPv6.
fn accepts_ra(bridge: &str) -> bool {
    let path = format!("/proc/sys/net/ipv6/conf/{bridge}/accept_ra");
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "2")
}

fn report(health: &Health, result: Result<(), MapError>) {
    if let Err(error) = result {
        let why = format!("the kernel's map of policies cannot be written: {error}");
        health.degraded(health::ENFORCEMENT, &why);
    }
}
