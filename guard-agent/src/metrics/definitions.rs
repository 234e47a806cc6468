//! Each metric, with its name, help and labels.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    core::Collector, exponential_buckets,
};

/// Leases and the calls that make and end them.
#[derive(Debug)]
pub struct LeaseMetrics {
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
    /// By pool.
    pub readopted: IntCounterVec,
    /// By source.
    pub transitions_waiting: IntGaugeVec,
    /// By subscriber.
    pub holds_expired: IntCounterVec,
}

impl LeaseMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            leases: gauge(
                registry,
                "guard_leases",
                "Addresses that are not free, by state.",
                &["pool", "state"],
            )?,
            pool_capacity: gauge(
                registry,
                "guard_pool_capacity_addresses",
                "Addresses that a pool can hand out at all.",
                &["pool"],
            )?,
            allocations: counter(
                registry,
                "guard_allocations_total",
                "Allocations; the result is ok or the reason of the refusal.",
                &["pool", "result"],
            )?,
            allocation_duration: register(
                registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "guard_allocation_duration_seconds",
                        "Time from an allocation's arrival to its reply, the commit included.",
                    )
                    .buckets(exponential_buckets(0.000_5, 2.0, 12)?),
                    &["pool"],
                )?,
            )?,
            releases: counter(
                registry,
                "guard_releases_total",
                "Releases; the result is the outcome.",
                &["pool", "result"],
            )?,
            quarantined: counter(
                registry,
                "guard_quarantined_total",
                "Addresses that were quarantined, by reason.",
                &["pool", "reason"],
            )?,
            readopted: counter(
                registry,
                "guard_readopted_total",
                "Addresses in use without a lease that the inventory knew the owner of.",
                &["pool"],
            )?,
            transitions_waiting: gauge(
                registry,
                "guard_transitions_waiting",
                "Addresses whose next state waits for a source to answer completely.",
                &["source"],
            )?,
            holds_expired: counter(
                registry,
                "guard_holds_expired_total",
                "Releases that a subscriber did not acknowledge before its deadline.",
                &["subscriber"],
            )?,
        })
    }
}

/// What the program counts, and where it is.
#[derive(Debug)]
pub struct DatapathMetrics {
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
    /// By map.
    pub repaired: IntCounterVec,
    /// Of the ring.
    pub events_lost: IntCounter,
    /// By bridge and whether they are covered.
    pub ports: IntGaugeVec,
}

impl DatapathMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            frames: counter(
                registry,
                "guard_frames_total",
                "Frames that the ports of a bridge delivered, by kind.",
                &["bridge", "kind"],
            )?,
            malformed: counter(
                registry,
                "guard_malformed_total",
                "Frames that cannot be read, by reason.",
                &["bridge", "reason"],
            )?,
            frames_dropped: counter(
                registry,
                "guard_frames_dropped_total",
                "Frames that were dropped, by reason; none where the mode is observe.",
                &["bridge", "reason"],
            )?,
            would_drop: counter(
                registry,
                "guard_frames_would_drop_total",
                "Frames from access ports that the mode enforce would have dropped, by reason.",
                &["bridge", "reason"],
            )?,
            claims_ignored: counter(
                registry,
                "guard_claims_ignored_total",
                "Claims that count for nothing, by reason; over_quota are those of a port that has \
                 used up its quota.",
                &["bridge", "reason"],
            )?,
            suspect: counter(
                registry,
                "guard_suspect_frames_total",
                "Frames from a MAC of another port (clone), of a router where none is allowed \
                 (router), or that no honest host sends (odd).",
                &["bridge", "kind"],
            )?,
            map_full: counter(
                registry,
                "guard_map_full_total",
                "Entries that found no room in a map of the program.",
                &["bridge", "map"],
            )?,
            repaired: counter(
                registry,
                "guard_map_repairs_total",
                "Entries of the kernel's maps that someone else had changed, and that were put right.",
                &["map"],
            )?,
            events_lost: register(
                registry,
                IntCounter::new(
                    "guard_events_lost_total",
                    "Events that the ring had no room for; the maps were read anew.",
                )?,
            )?,
            ports: gauge(
                registry,
                "guard_ports",
                "Ports of a bridge; covered says whether the program sees every frame of them.",
                &["bridge", "covered"],
            )?,
        })
    }
}

/// Incidents, and the events that tell of them.
#[derive(Debug)]
pub struct IncidentMetrics {
    /// By bridge and kind.
    pub conflicts: IntCounterVec,
    /// By bridge and kind.
    pub conflicts_open: IntGaugeVec,
    /// Of an alert.
    pub detection_latency: Histogram,
    /// By subscriber.
    pub subscriber_lag: IntGaugeVec,
}

impl IncidentMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            conflicts: counter(
                registry,
                "guard_conflicts_total",
                "Incidents that opened, by kind; of kind inventory they are about no bridge.",
                &["bridge", "kind"],
            )?,
            conflicts_open: gauge(
                registry,
                "guard_conflicts_open",
                "Incidents that are open now, by kind and severity.",
                &["bridge", "kind", "severity"],
            )?,
            detection_latency: histogram(
                registry,
                "guard_detection_latency_seconds",
                "Time from the frame in the kernel to the alert.",
                exponential_buckets(0.000_01, 2.0, 16)?,
            )?,
            subscriber_lag: gauge(
                registry,
                "guard_subscriber_lag_events",
                "Events that a configured subscriber has not been sent yet.",
                &["subscriber"],
            )?,
        })
    }
}

/// The sources of evidence, and the passes that ask them.
#[derive(Debug)]
pub struct PassMetrics {
    /// By bridge and source.
    pub live_addresses: IntGaugeVec,
    /// By source.
    pub source_healthy: IntGaugeVec,
    /// By result.
    pub reconcile_runs: IntCounterVec,
    /// Of a pass.
    pub reconcile_duration: Histogram,
    /// By pool.
    pub reaped: IntCounterVec,
    /// By pool.
    pub reap_blocked: IntGaugeVec,
    /// By result.
    pub watchdog_removed: IntCounterVec,
}

impl PassMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            live_addresses: gauge(
                registry,
                "guard_live_addresses",
                "Addresses in use, by the source of the evidence.",
                &["bridge", "source"],
            )?,
            source_healthy: gauge(
                registry,
                "guard_source_healthy",
                "1 while a source of evidence answers completely, else 0.",
                &["source"],
            )?,
            reconcile_runs: counter(
                registry,
                "guard_reconcile_runs_total",
                "Passes of the reconciler; ended is one that a source kept from concluding anything.",
                &["result"],
            )?,
            reconcile_duration: histogram(
                registry,
                "guard_reconcile_duration_seconds",
                "Time that a pass of the reconciler took, the sources' answers included.",
                exponential_buckets(0.001, 2.0, 15)?,
            )?,
            reaped: counter(
                registry,
                "guard_reaped_total",
                "Leases that were taken back since nothing was left of their owner.",
                &["pool"],
            )?,
            reap_blocked: gauge(
                registry,
                "guard_reap_blocked",
                "Leases that would be taken back at once and wait for an operator's consent.",
                &["pool"],
            )?,
            watchdog_removed: counter(
                registry,
                "guard_watchdog_removed_total",
                "Containers that the watchdog removed, or failed to; it tries again in each pass.",
                &["result"],
            )?,
        })
    }
}

/// Which ports drop frames.
#[derive(Debug)]
pub struct EnforcementMetrics {
    /// By bridge.
    pub ports_enforcing: IntGaugeVec,
    /// By bridge.
    pub ports_dropping: IntGaugeVec,
    /// By bridge.
    pub braked: IntGaugeVec,
    /// By bridge.
    pub first_on_hook: IntGaugeVec,
    /// By pool.
    pub unprotected: IntGaugeVec,
}

impl EnforcementMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let of_bridge = |name, help| gauge(registry, name, help, &["bridge"]);
        Ok(Self {
            ports_enforcing: of_bridge(
                "guard_ports_enforcing",
                "Ports whose frames are dropped where they break the rules.",
            )?,
            ports_dropping: of_bridge(
                "guard_ports_dropping",
                "Ports that had a frame dropped within the last minute.",
            )?,
            braked: of_bridge(
                "guard_enforce_braked",
                "1 while frames pass since a change had many ports drop at once, else 0.",
            )?,
            first_on_hook: of_bridge(
                "guard_first_on_hook",
                "1 while no other program is before the agent's on any port, else 0.",
            )?,
            unprotected: gauge(
                registry,
                "guard_leases_unprotected",
                "Leases on enforcing bridges whose binding was only learned: their impostors pass.",
                &["pool"],
            )?,
        })
    }
}

fn counter(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauge(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntGaugeVec> {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: Vec<f64>,
) -> prometheus::Result<Histogram> {
    register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
}

pub(super) fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
