//! What Prometheus reads: each metric's help stands with its definition.

mod datapath;
mod known;
mod openmetrics;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use guard_core::{
    incident::{Incident, Kind},
    lease::{Lease, Notice, State, command::Change, reason},
    time::Now,
};
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, core::Collector,
};

pub use self::datapath::Counters;
use crate::ledger::Lifecycle;

/// All metrics of the agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// As `/readyz`.
    pub ready: IntGauge,
    /// By pool and state.
    pub leases: IntGaugeVec,
    /// By pool.
    pub pool_capacity: IntGaugeVec,
    /// By pool and result.
    pub allocations: IntCounterVec,
    /// By pool.
    pub allocation_duration: HistogramVec,
    /// By pool and result.
    pub releases: IntCounterVec,
    /// By pool and reason.
    pub quarantined: IntCounterVec,
    conflicts: IntCounterVec,
    conflicts_open: IntGaugeVec,
    /// By bridge and source.
    pub live_addresses: IntGaugeVec,
    /// By bridge and kind.
    pub frames: IntCounterVec,
    /// By bridge and reason.
    pub malformed: IntCounterVec,
    /// By bridge and reason; none while guard only observes.
    pub frames_dropped: IntCounterVec,
    /// By bridge and reason.
    pub would_drop: IntCounterVec,
    /// By bridge and reason.
    pub claims_ignored: IntCounterVec,
    /// By bridge and what is odd about them.
    pub suspect: IntCounterVec,
    /// By bridge and map.
    pub map_full: IntCounterVec,
    /// Of the ring.
    pub events_lost: IntCounter,
    /// By bridge and whether they are covered.
    pub ports: IntGaugeVec,
    /// By source.
    pub source_healthy: IntGaugeVec,
    /// By source.
    pub transitions_waiting: IntGaugeVec,
    /// By result.
    pub reconcile_runs: IntCounterVec,
    /// Of a pass.
    pub reconcile_duration: prometheus::Histogram,
    /// By pool.
    pub reaped: IntCounterVec,
    /// By pool.
    pub reap_blocked: IntGaugeVec,
    /// By result.
    pub watchdog_removed: IntCounterVec,
    readopted: IntCounterVec,
    holds_expired: IntCounterVec,
    /// By subscriber.
    pub subscriber_lag: IntGaugeVec,
    detection_latency: prometheus::Histogram,
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// A name twice, or one that Prometheus does not allow: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let build = IntGaugeVec::new(
            Opts::new("guard_build_info", "Always 1; the version is in the label."),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        register(&registry, build)?;
        let counter = |name, help, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauge = |name, help, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let allocation_duration = HistogramOpts::new(
            "guard_allocation_duration_seconds",
            "Time from an allocation's arrival to its reply, the commit included.",
        )
        .buckets(prometheus::exponential_buckets(0.000_5, 2.0, 12)?);
        let detection_latency = HistogramOpts::new(
            "guard_detection_latency_seconds",
            "Time from the frame in the kernel to the alert.",
        )
        .buckets(prometheus::exponential_buckets(0.000_01, 2.0, 16)?);
        let reconcile_duration = HistogramOpts::new(
            "guard_reconcile_duration_seconds",
            "Time that a pass of the reconciler took, the sources' answers included.",
        )
        .buckets(prometheus::exponential_buckets(0.001, 2.0, 15)?);
        Ok(Self {
            ready: register(
                &registry,
                IntGauge::new(
                    "guard_ready",
                    "1 once the boot pass has ended and while nothing is degraded, else 0.",
                )?,
            )?,
            leases: gauge(
                "guard_leases",
                "Addresses that are not free, by state.",
                &["pool", "state"],
            )?,
            pool_capacity: gauge(
                "guard_pool_capacity_addresses",
                "Addresses that a pool can hand out at all.",
                &["pool"],
            )?,
            allocations: counter(
                "guard_allocations_total",
                "Allocations; the result is ok or the reason of the refusal.",
                &["pool", "result"],
            )?,
            allocation_duration: register(
                &registry,
                HistogramVec::new(allocation_duration, &["pool"])?,
            )?,
            releases: counter(
                "guard_releases_total",
                "Releases; the result is the outcome.",
                &["pool", "result"],
            )?,
            quarantined: counter(
                "guard_quarantined_total",
                "Addresses that were quarantined, by reason.",
                &["pool", "reason"],
            )?,
            conflicts: counter(
                "guard_conflicts_total",
                "Incidents that opened, by kind; of kind inventory they are about no bridge.",
                &["bridge", "kind"],
            )?,
            conflicts_open: gauge(
                "guard_conflicts_open",
                "Incidents that are open now.",
                &["bridge", "kind"],
            )?,
            live_addresses: gauge(
                "guard_live_addresses",
                "Addresses in use, by the source of the evidence.",
                &["bridge", "source"],
            )?,
            frames: counter(
                "guard_frames_total",
                "Frames that the ports of a bridge delivered, by kind.",
                &["bridge", "kind"],
            )?,
            malformed: counter(
                "guard_malformed_total",
                "Frames that cannot be read, by reason.",
                &["bridge", "reason"],
            )?,
            frames_dropped: counter(
                "guard_frames_dropped_total",
                "Frames that were dropped, by reason; none as long as the mode is observe.",
                &["bridge", "reason"],
            )?,
            would_drop: counter(
                "guard_frames_would_drop_total",
                "Frames from access ports that the mode enforce would have dropped, by reason.",
                &["bridge", "reason"],
            )?,
            claims_ignored: counter(
                "guard_claims_ignored_total",
                "Claims that count for nothing, by reason; over_quota are those of a port that has \
                 used up its quota.",
                &["bridge", "reason"],
            )?,
            suspect: counter(
                "guard_suspect_frames_total",
                "Frames from a MAC of another port (clone), of a router where none is allowed \
                 (router), or that no honest host sends (odd).",
                &["bridge", "kind"],
            )?,
            map_full: counter(
                "guard_map_full_total",
                "Entries that found no room in a map of the program.",
                &["bridge", "map"],
            )?,
            events_lost: register(
                &registry,
                IntCounter::new(
                    "guard_events_lost_total",
                    "Events that the ring had no room for; the maps were read anew.",
                )?,
            )?,
            ports: gauge(
                "guard_ports",
                "Ports of a bridge; covered says whether the program is on them.",
                &["bridge", "covered"],
            )?,
            source_healthy: gauge(
                "guard_source_healthy",
                "1 while a source of evidence answers completely, else 0.",
                &["source"],
            )?,
            transitions_waiting: gauge(
                "guard_transitions_waiting",
                "Addresses whose next state waits for a source to answer completely.",
                &["source"],
            )?,
            reconcile_runs: counter(
                "guard_reconcile_runs_total",
                "Passes of the reconciler; ended is one that a source kept from concluding anything.",
                &["result"],
            )?,
            reconcile_duration: register(
                &registry,
                prometheus::Histogram::with_opts(reconcile_duration)?,
            )?,
            reaped: counter(
                "guard_reaped_total",
                "Leases that were taken back since nothing was left of their owner.",
                &["pool"],
            )?,
            reap_blocked: gauge(
                "guard_reap_blocked",
                "Leases that would be taken back at once and wait for an operator's consent.",
                &["pool"],
            )?,
            watchdog_removed: counter(
                "guard_watchdog_removed_total",
                "Containers that the watchdog removed, or failed to; it tries again in each pass.",
                &["result"],
            )?,
            readopted: counter(
                "guard_readopted_total",
                "Addresses in use without a lease that the inventory knew the owner of.",
                &["pool"],
            )?,
            holds_expired: counter(
                "guard_holds_expired_total",
                "Releases that a subscriber did not acknowledge before its deadline.",
                &["subscriber"],
            )?,
            subscriber_lag: gauge(
                "guard_subscriber_lag_events",
                "Events that a configured subscriber has not been sent yet.",
                &["subscriber"],
            )?,
            detection_latency: register(
                &registry,
                prometheus::Histogram::with_opts(detection_latency)?,
            )?,
            registry,
        })
    }

    /// Counts an incident.
    pub fn conflict_opened(&self, incident: &Incident) {
        let labels = [&*incident.segment.bridge, incident.kind.name()];
        self.conflicts.with_label_values(&labels).inc();
    }

    /// Notes how long it took from the frame to the alert.
    pub fn detected(&self, latency: Duration) {
        self.detection_latency.observe(latency.as_secs_f64());
    }

    /// Sets how many incidents are open, also where there are none.
    pub fn set_conflicts_open<'a>(
        &self,
        bridges: impl Iterator<Item = &'a str>,
        open: &BTreeMap<(&str, Kind), usize>,
    ) {
        self.clear_conflicts_open(bridges);
        for ((bridge, kind), count) in open {
            let labels = [*bridge, kind.name()];
            self.conflicts_open.with_label_values(&labels).set(gauge_value(*count));
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

    /// OpenMetrics 1.0.
    ///
    /// # Errors
    /// As [`Metrics::encode`].
    pub fn encode_openmetrics(&self) -> Result<String, prometheus::Error> {
        self.encode().map(|text| openmetrics::of_text(&text))
    }
}

impl Lifecycle for Arc<Metrics> {
    fn restored(&mut self, _leases: &[Arc<Lease>]) {}

    fn noticed(&mut self, notices: &[Notice]) {
        for notice in notices {
            if let Notice::HoldExpired(_, late) = notice {
                for subscriber in late {
                    self.holds_expired.with_label_values(&[&**subscriber]).inc();
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
                self.quarantined.with_label_values(&labels).inc();
            } else if lease.state == State::Active && *lease.reason == *reason::ADOPTED {
                self.readopted.with_label_values(&[&*lease.pool]).inc();
            }
        }
    }
}

/// A count as a gauge's value.
pub fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_that_prometheus_takes() {
        let metrics = Metrics::new().unwrap();
        metrics.allocations.with_label_values(&["sandboxes", "ok"]).inc();
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
