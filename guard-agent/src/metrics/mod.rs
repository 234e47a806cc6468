//! What Prometheus reads.

mod datapath;
mod definitions;
mod openmetrics;
mod prepare;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use guard_core::{
    incident::{Incident, Kind, Severity},
    lease::{Lease, Notice, State, command::Change, reason},
    time::Now,
};
use prometheus::{
    Encoder as _, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use self::definitions::{DatapathMetrics, IncidentMetrics, register};
pub use self::{
    datapath::Counters,
    definitions::{EnforcementMetrics, LeaseMetrics, PassMetrics},
    openmetrics::of_text as openmetrics,
};
use crate::ledger::AfterCommit;

/// Why calls and connections are refused or ended: the caller lacks the role, what it wants is another's, it
/// has too many, asks for too much at a time, or does not read.
pub const REFUSALS: [&str; 7] =
    ["role", "not_yours", "calls", "connections", "work", "unread", "http"];

/// All metrics of the agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// As `/readyz`.
    pub ready: IntGauge,
    /// Lines of the log.
    pub log_dropped: IntCounter,
    refusals: IntCounterVec,
    /// Leases and calls.
    pub leases: LeaseMetrics,
    /// Frames and ports.
    pub datapath: DatapathMetrics,
    /// Incidents and events.
    pub incidents: IncidentMetrics,
    /// Sources and passes.
    pub passes: PassMetrics,
    /// What enforces.
    pub enforcement: EnforcementMetrics,
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// A name twice, or one that Prometheus does not allow: a mistake in the definitions.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let build = IntGaugeVec::new(
            Opts::new("guard_build_info", "Always 1; the version is in the label."),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        register(&registry, build)?;
        let ready = IntGauge::new(
            "guard_ready",
            "1 once the boot pass has ended and while nothing is degraded, else 0.",
        )?;
        let log_dropped = IntCounter::new(
            "guard_log_lines_dropped_total",
            "Lines of the log that were not written, since whoever reads it does not keep up.",
        )?;
        let refusals = IntCounterVec::new(
            Opts::new(
                "guard_refusals_total",
                "Calls and connections that were refused for who made them, or for how many; the \
                 reason http is a connection to the metrics.",
            ),
            &["reason"],
        )?;
        Ok(Self {
            ready: register(&registry, ready)?,
            log_dropped: register(&registry, log_dropped)?,
            refusals: register(&registry, refusals)?,
            leases: LeaseMetrics::new(&registry)?,
            datapath: DatapathMetrics::new(&registry)?,
            incidents: IncidentMetrics::new(&registry)?,
            passes: PassMetrics::new(&registry)?,
            enforcement: EnforcementMetrics::new(&registry)?,
            registry,
        })
    }

    /// Counts an incident.
    pub fn conflict_opened(&self, incident: &Incident) {
        let labels = [&*incident.segment.bridge, incident.kind.name()];
        self.incidents.conflicts.with_label_values(&labels).inc();
    }

    /// Notes how long it took from the frame to the alert.
    pub fn detected(&self, latency: Duration) {
        self.incidents.detection_latency.observe(latency.as_secs_f64());
    }

    /// Sets how many incidents are open, also where there are none.
    pub fn set_conflicts_open<'a>(
        &self,
        bridges: impl Iterator<Item = &'a str>,
        open: &BTreeMap<(&str, Kind, Severity), usize>,
    ) {
        self.clear_conflicts_open(bridges);
        for ((bridge, kind, severity), count) in open {
            let labels = [*bridge, kind.name(), severity.name()];
            self.incidents.conflicts_open.with_label_values(&labels).set(gauge_value(*count));
        }
    }

    /// Makes a counter show what the kernel has counted.
    pub fn follow(counter: &IntCounter, total: u64) {
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    /// The text format 0.0.4.
    ///
    /// # Errors
    /// A metric that cannot be written.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    /// The counter of refusals for a reason, which is one of [`REFUSALS`].
    pub fn refused(&self, reason: &str) -> IntCounter {
        self.refusals.with_label_values(&[reason])
    }
}

impl AfterCommit for Arc<Metrics> {
    fn restored(&mut self, _leases: &[Arc<Lease>]) {}

    fn noticed(&mut self, notices: &[Notice]) {
        for notice in notices {
            if let Notice::HoldExpired(_, late) = notice {
                for subscriber in late {
                    self.leases.holds_expired.with_label_values(&[&**subscriber]).inc();
                }
            }
        }
    }

    fn committed(&mut self, changes: &[Change], _now: Now) {
        for change in changes {
            let Change::Put(lease) = change else { continue };
            if lease.created_at != lease.updated_at {
                continue;
            }
            if lease.state == State::Quarantined {
                let labels = [&*lease.pool, &*lease.reason];
                self.leases.quarantined.with_label_values(&labels).inc();
            } else if lease.state == State::Active && *lease.reason == *reason::ADOPTED {
                self.leases.readopted.with_label_values(&[&*lease.pool]).inc();
            }
        }
    }
}

/// A count as a gauge's value.
pub fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_that_prometheus_takes() {
        let metrics = Metrics::new().unwrap();
        metrics.leases.allocations.with_label_values(&["sandboxes", "ok"]).inc();
        let text = metrics.encode().unwrap();
        assert!(text.contains("guard_allocations_total{pool=\"sandboxes\",result=\"ok\"} 1"));
        assert!(text.contains("guard_build_info{version="));
    }

    #[test]
    fn a_counter_follows_the_kernel_and_never_falls() {
        let counter = IntCounter::new("a", "b").unwrap();
        Metrics::follow(&counter, 5);
        Metrics::follow(&counter, 3);
        assert_eq!(counter.get(), 5);
    }
}
