//! Creates the series that are known beforehand, at zero: a counter that is first seen at one has
//! not grown for Prometheus, and its alert would stay silent.

use super::Metrics;

use guard_core::{
    incident::Kind,
    lease::{command::Reason, reason},
};

use crate::config::Config;

/// The bridge of what is about none.
const NO_BRIDGE: &str = "";

impl Metrics {
    /// Makes the series of what is configured.
    pub fn prepare(&self, config: &Config) {
        let exhausted = [Reason::PoolExhausted, Reason::NoConflictFreeAddress].map(Reason::name);
        let quarantines = [
            reason::LIVE,
            reason::UNCONFIRMED_LIVE,
            reason::DISPUTED,
            reason::RELEASED_RUNNING,
            reason::OPERATOR,
            reason::RECOVERED,
        ];
        for pool in &config.pools {
            let pool = &**pool.name();
            for result in exhausted.into_iter().chain(["ok"]) {
                self.leases.allocations.with_label_values(&[pool, result]);
            }
            for result in ["releasing", "cooling"] {
                self.leases.releases.with_label_values(&[pool, result]);
            }
            for reason in quarantines {
                self.leases.quarantined.with_label_values(&[pool, reason]);
            }
            self.leases.allocation_duration.with_label_values(&[pool]);
            self.passes.reaped.with_label_values(&[pool]);
            self.passes.reap_blocked.with_label_values(&[pool]);
            self.leases.readopted.with_label_values(&[pool]);
            self.enforcement.unprotected.with_label_values(&[pool]);
        }
        for bridge in &config.bridges {
            for kind in Kind::about(&bridge.name) {
                self.incidents.conflicts.with_label_values(&[&*bridge.name, kind.name()]);
            }
        }
        for kind in Kind::about(NO_BRIDGE) {
            self.incidents.conflicts.with_label_values(&[NO_BRIDGE, kind.name()]);
        }
        for result in ["done", "ended", "blocked", "failed"] {
            self.passes.reconcile_runs.with_label_values(&[result]);
        }
        for result in ["removed", "failed"] {
            self.passes.watchdog_removed.with_label_values(&[result]);
        }
        for reason in super::REFUSALS {
            self.refusals.with_label_values(&[reason]);
        }
        for (subscriber, _) in &config.subscribers {
            self.leases.holds_expired.with_label_values(&[&**subscriber]);
        }
    }

    /// Nothing is open until it is set.
    pub(super) fn clear_conflicts_open<'a>(&self, bridges: impl Iterator<Item = &'a str>) {
        self.incidents.conflicts_open.reset();
        for bridge in bridges.chain([NO_BRIDGE]) {
            for kind in Kind::about(bridge) {
                let labels = [bridge, kind.name(), kind.severity().name()];
                self.incidents.conflicts_open.with_label_values(&labels).set(0);
            }
        }
    }
}
