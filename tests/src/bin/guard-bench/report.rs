//! What was measured, for people and for programs.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

/// One point.
#[derive(Debug, Serialize)]
pub(crate) struct Point {
    pub bench: &'static str,
    pub clients: usize,
    pub fill: f64,
    pub allocations: usize,
    pub p50_us: f64,
    pub p99_us: f64,
    pub per_second: f64,
    pub raw_commit_p50_us: f64,
    pub raw_commit_per_second: f64,
    /// A bare gRPC server that writes one row for each call, in groups.
    pub bare_p50_us: f64,
    pub bare_per_second: f64,
    pub host_local_per_second: f64,
    pub ratio_to_raw: f64,
    pub ratio_to_bare: f64,
}

/// A full pool, and an agent that starts on it.
#[derive(Debug, Serialize)]
pub(crate) struct Restart {
    pub bench: &'static str,
    pub leases: usize,
    pub ready_ms: f64,
    pub rss_mib: f64,
    /// Before it was stopped, after all that the bench did to it.
    pub rss_before_mib: f64,
}

/// Where the figures go, as they come.
pub(crate) struct Report {
    json: bool,
}

impl Report {
    /// Begins a report.
    pub(crate) fn new(json: bool) -> Self {
        if !json {
            println!(
                "{:>7} {:>4} {:>8} {:>8} {:>7}  {:>8} {:>8} {:>7} {:>7}",
                "clients", "fill", "p50", "p99", "per s", "raw p50", "bare p50", "raw/s", "bare/s"
            );
        }
        Self { json }
    }

    /// Reports a point.
    pub(crate) fn point(&self, point: &Point) -> Result<()> {
        if self.json {
            return line(point);
        }
        println!(
            "{:>7} {:>3.0}% {:>5.0} µs {:>5.0} µs {:>7.0}  {:>5.0} µs {:>5.0} µs {:>7.0} {:>7.0}",
            point.clients,
            point.fill * 100.0,
            point.p50_us,
            point.p99_us,
            point.per_second,
            point.raw_commit_p50_us,
            point.bare_p50_us,
            point.raw_commit_per_second,
            point.bare_per_second,
        );
        println!(
            "{:>13} per second × raw {:.2}, × bare {:.2}; p50 × raw {:.2}, × bare {:.2}; host-local \
             {:.0}/s",
            "",
            point.ratio_to_raw,
            point.ratio_to_bare,
            point.p50_us / point.raw_commit_p50_us,
            point.p50_us / point.bare_p50_us,
            point.host_local_per_second,
        );
        Ok(())
    }

    /// Reports the restart.
    pub(crate) fn restart(&self, restart: &Restart) -> Result<()> {
        if self.json {
            return line(restart);
        }
        println!(
            "\nWith {} leases the agent is ready {:.0} ms after its start, in {:.1} MiB; before \
             that it was in {:.1} MiB.",
            restart.leases, restart.ready_ms, restart.rss_mib, restart.rss_before_mib
        );
        Ok(())
    }
}

/// One line of JSON.
pub(crate) fn line(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

/// The value that this share of all is not above, in microseconds.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length is a length"
    )]
    let at = (sorted.len() as f64 * share) as usize;
    let value = sorted.get(at.min(sorted.len().saturating_sub(1)));
    round(value.map_or(0.0, |value| value.as_secs_f64() * 1e6))
}

/// To a tenth: more would be noise.
pub(crate) fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
