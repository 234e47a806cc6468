//! The dashboard: each of its queries on a Prometheus that scrapes the agent.

use std::fs;

use anyhow::{Context, Result, ensure};
use guard_tests::{BRIDGE, Lab, Launch, POOL, Prometheus, dist, eventually};
use serde_json::Value;

/// What Grafana puts in the place of its variables.
fn filled(expr: &str) -> String {
    expr.replace("$__rate_interval", "10s")
        .replace("$instance", "127.0.0.1:9477")
        .replace("$bridge", BRIDGE)
        .replace("$pool", POOL)
}

/// The labels that a legend names: `{{pool}}`.
fn legend(text: &str) -> Vec<&str> {
    text.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0)).collect()
}

/// A query for a variable's values as one that Prometheus knows: `label_values(METRIC, LABEL)`.
fn variable(query: &str) -> Option<(String, &str)> {
    let inner = query.strip_prefix("label_values(")?.strip_suffix(')')?;
    let (metric, label) = inner.rsplit_once(", ")?;
    Some((format!("count by ({label}) ({metric})"), label))
}

fn answers(prometheus: &Prometheus, title: &str, expr: &str, labels: &[&str]) -> Result<()> {
    let expr = filled(expr);
    ensure!(!expr.contains('$'), "{title}: a variable that nobody fills: {expr}");
    // A rate wants two scrapes.
    let series = eventually(&format!("{title}: a series for {expr}"), || {
        let series = prometheus.query(&expr)?;
        Ok((!series.is_empty()).then_some(series))
    })?;
    for label in labels {
        let found = series.iter().all(|one| one["metric"][*label].is_string());
        ensure!(found, "{title}: no {label} in {series:?}");
    }
    Ok(())
}

#[test]
fn every_query_gives_series_of_the_agent() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config()?.with("[[subscriber]]\nname = \"nfs-proxy\"")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let prometheus = lab.prometheus(&dist("prometheus/guard.rules.yml"))?;
    agent.admit(&lab.sandbox("a")?)?;
    let text = fs::read_to_string(dist("grafana/guard.json"))?;
    let dashboard: Value = serde_json::from_str(&text).context("the dashboard")?;
    let variables = dashboard["templating"]["list"].as_array().context("no variables")?;
    for query in variables.iter().filter_map(|variable| variable["query"]["query"].as_str()) {
        let (expr, label) = variable(query).with_context(|| query.to_owned())?;
        answers(&prometheus, query, &expr, &[label])?;
    }
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().context("no panels")? {
        let title = panel["title"].as_str().context("a panel without a title")?;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().with_context(|| title.to_owned())?;
            let labels = legend(target["legendFormat"].as_str().unwrap_or_default());
            answers(&prometheus, title, expr, &labels)?;
            asked += 1;
        }
    }
    assert!(asked > 30, "{asked} queries");
    Ok(())
}
