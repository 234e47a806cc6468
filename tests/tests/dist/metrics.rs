//! The metrics of the contract.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result};
use guard_tests::{Agent, Lab, Launch, checked};

/// Each metric that others may rely on, and its labels.
const CONTRACT: [(&str, &[&str]); 38] = [
    ("guard_leases", &["pool", "state"]),
    ("guard_pool_capacity_addresses", &["pool"]),
    ("guard_allocations_total", &["pool", "result"]),
    ("guard_allocation_duration_seconds", &["pool"]),
    ("guard_releases_total", &["pool", "result"]),
    ("guard_conflicts_total", &["bridge", "kind"]),
    ("guard_conflicts_open", &["bridge", "kind", "severity"]),
    ("guard_live_addresses", &["bridge", "source"]),
    ("guard_frames_total", &["bridge", "kind"]),
    ("guard_frames_dropped_total", &["bridge", "reason"]),
    ("guard_malformed_total", &["bridge", "reason"]),
    ("guard_events_lost_total", &[]),
    ("guard_ports", &["bridge", "covered"]),
    ("guard_source_healthy", &["source"]),
    ("guard_reconcile_runs_total", &["result"]),
    ("guard_reconcile_duration_seconds", &[]),
    ("guard_reaped_total", &["pool"]),
    ("guard_reap_blocked", &["pool"]),
    ("guard_readopted_total", &["pool"]),
    ("guard_quarantined_total", &["pool", "reason"]),
    ("guard_holds_expired_total", &["subscriber"]),
    ("guard_subscriber_lag_events", &["subscriber"]),
    ("guard_detection_latency_seconds", &[]),
    ("guard_build_info", &["version"]),
    ("guard_ready", &[]),
    ("guard_frames_would_drop_total", &["bridge", "reason"]),
    ("guard_ports_enforcing", &["bridge"]),
    ("guard_ports_dropping", &["bridge"]),
    ("guard_enforce_braked", &["bridge"]),
    ("guard_first_on_hook", &["bridge"]),
    ("guard_leases_unprotected", &["pool"]),
    ("guard_claims_ignored_total", &["bridge", "reason"]),
    ("guard_suspect_frames_total", &["bridge", "kind"]),
    ("guard_map_full_total", &["bridge", "map"]),
    ("guard_map_repairs_total", &["map"]),
    ("guard_watchdog_removed_total", &["result"]),
    ("guard_log_lines_dropped_total", &[]),
    ("guard_refusals_total", &["reason"]),
];

/// An agent that nothing has happened to yet.
fn agent(lab: &Lab) -> Result<Agent> {
    let config = lab.config()?.with("[[subscriber]]\nname = \"nfs-proxy\"")?;
    lab.agent_with(Launch::config(&config)?)
}

#[test]
fn every_metric_is_there_from_the_start_with_its_labels_and_help() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent(&lab)?;
    let text = agent.http("/metrics")?.body;
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for sample in agent.metrics()? {
        let name = ["_bucket", "_sum", "_count"]
            .into_iter()
            .find_map(|suffix| sample.name.strip_suffix(suffix))
            .filter(|family| text.contains(&format!("# TYPE {family} histogram\n")))
            .unwrap_or(&sample.name);
        let known = labels.entry(name.to_owned()).or_default();
        let keys = sample.labels.split("\",").filter_map(|label| label.split_once('='));
        known.extend(keys.map(|(key, _)| key.to_owned()).filter(|key| key != "le"));
    }
    let contract = CONTRACT.into_iter().map(|(name, labels)| {
        (name.to_owned(), labels.iter().map(|label| (*label).to_owned()).collect())
    });
    assert_eq!(labels, contract.collect());
    for (name, _) in CONTRACT {
        let help = text.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
        assert!(help.is_some_and(|help| help.ends_with('.')), "{name}: {help:?}");
    }
    Ok(())
}

#[test]
fn promtool_has_nothing_to_say_about_them() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent(&lab)?;
    agent.admit(&lab.sandbox("a")?)?;
    let text = agent.http("/metrics")?.body;
    let said = checked(Command::new("promtool").args(["check", "metrics"]), text.as_bytes())?;
    assert_eq!(said, "");
    Ok(())
}

#[test]
fn who_asks_for_openmetrics_gets_units_and_the_same_samples() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent(&lab)?;
    let open = agent.http_as("/metrics", "application/openmetrics-text;version=1.0.0")?;
    let samples = |text: &str| -> BTreeSet<String> {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
            .collect()
    };
    assert_eq!(samples(&open.body), samples(&agent.http("/metrics")?.body));
    assert!(open.body.ends_with("# EOF\n"));
    let unit = "# UNIT guard_allocation_duration_seconds seconds\n";
    assert!(open.body.contains(unit), "{}", open.body);
    let counter = open.body.lines().find(|line| line.starts_with("# TYPE guard_allocations"));
    assert_eq!(counter.context("no allocations")?, "# TYPE guard_allocations counter");
    Ok(())
}
