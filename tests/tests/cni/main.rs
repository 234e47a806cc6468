//! CNI: `guard-ipam` beneath Debian's `bridge`, behind it, and called directly.

mod chained;
mod collect;
mod containers;
mod direct;
mod from_host_local;
mod retry;
mod workload;

use anyhow::Result;
use guard_tests::{Agent, BRIDGE, Lab, POOL, Plugin};
use serde_json::{Value, json};

/// The versions that Debian's `bridge` speaks too.
const VERSIONS: [&str; 2] = ["0.4.0", "1.0.0"];

/// A network on the lab's bridge, whose plugin is `kind`.
fn network(agent: &Agent, version: &str, kind: &str) -> Value {
    json!({
        "cniVersion": version,
        "name": "net",
        "type": kind,
        "bridge": BRIDGE,
        "ipam": { "type": "guard-ipam", "pool": POOL, "socket": agent.socket() },
    })
}

/// `bridge`, with us as its `ipam`.
fn bridge(lab: &Lab, agent: &Agent, version: &str) -> Result<Plugin> {
    let conf = network(agent, version, "bridge");
    Plugin::debian("bridge", Some(lab.host()), conf)?.beside_ours()
}

/// Us alone.
fn ipam(agent: &Agent, version: &str) -> Result<Plugin> {
    Plugin::guard_ipam(None, network(agent, version, "bridge"))
}

/// Us behind `bridge`, with its result.
fn chained(agent: &Agent, version: &str, result: &Value) -> Result<Plugin> {
    Plugin::guard_ipam(
        None,
        json!({
            "cniVersion": version,
            "name": "net",
            "type": "guard-ipam",
            "socket": agent.socket(),
            "prevResult": result,
        }),
    )
}

/// What one container has, by state.
fn of(agent: &Agent, container: &str) -> Result<Vec<(String, Value)>> {
    let leases = agent.list(&["leases", "--sandbox", container], "leases")?;
    let state = |lease: &Value| lease["state"].as_str().unwrap_or_default().to_owned();
    Ok(leases.into_iter().map(|lease| (state(&lease), lease)).collect())
}
