//! The alert rules: their unit tests, their runbook, and one alert from a real frame.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use guard_tests::{Lab, checked, dist, eventually};

fn rules() -> Result<String> {
    fs::read_to_string(dist("prometheus/guard.rules.yml")).context("the rules")
}

fn names(text: &str, key: &str) -> BTreeSet<String> {
    let values = text.lines().filter_map(|line| Some(line.split_once(key)?.1));
    values.map(|value| value.split([',', '}']).next().unwrap_or(value).trim().to_owned()).collect()
}

#[test]
fn promtool_takes_the_rules_and_their_unit_tests_pass() -> Result<()> {
    for arguments in [["check", "rules"], ["test", "rules"]] {
        let file = if arguments[0] == "check" { "guard.rules.yml" } else { "guard.rules.test.yml" };
        let mut promtool = Command::new("promtool");
        let said =
            checked(promtool.args(arguments).arg(file).current_dir(dist("prometheus")), b"")?;
        assert!(said.contains("SUCCESS"), "{said}");
    }
    Ok(())
}

#[test]
fn every_alert_is_tested_and_has_an_entry_in_the_runbook() -> Result<()> {
    let alerts = names(&rules()?, "- alert: ");
    assert!(alerts.len() > 10, "{alerts:?}");
    let tests = fs::read_to_string(dist("prometheus/guard.rules.test.yml"))?;
    assert_eq!(names(&tests, "alertname: "), alerts);
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let docs = fs::read_to_string(docs).context("the runbook")?;
    assert_eq!(
        names(&docs, "### Guard")
            .iter()
            .map(|name| format!("Guard{name}"))
            .collect::<BTreeSet<_>>(),
        alerts
    );
    for entry in docs.split("\n### Guard").skip(1) {
        assert!(entry.contains("**Over when** "), "nothing says when it is over: {entry}");
    }
    let anchors = names(&rules()?, "runbook: operations.md#");
    assert_eq!(anchors, alerts.iter().map(|alert| alert.to_lowercase()).collect());
    Ok(())
}

#[test]
fn a_duplicate_on_the_wire_fires_its_alert() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let prometheus = lab.prometheus(&dist("prometheus/guard.rules.yml"))?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    eventually("a scrape", || Ok(prometheus.query("guard_conflicts_open")?.pop()))?;
    assert_eq!(prometheus.query("ALERTS{alertstate=\"firing\"}")?, Vec::<serde_json::Value>::new());
    thief.announce(lease.address)?;
    let firing = "ALERTS{alertname=\"GuardDuplicateAddress\", alertstate=\"firing\"}";
    let alert = eventually("the alert", || Ok(prometheus.query(firing)?.pop()))?;
    assert_eq!(alert["metric"]["severity"], "critical", "{alert}");
    assert_eq!(alert["metric"]["bridge"], guard_tests::BRIDGE, "{alert}");
    Ok(())
}
