//! `cni`: from a plugin's start to its answer, beside `host-local`, in turns.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use guard_tests::{Attachment, HostLocal, Lab, Launch, POOL, Plugin};
use serde::Serialize;
use serde_json::json;

use crate::{
    disk,
    report::{line, percentile},
};

/// How often each is called.
const CALLS: usize = 500;

/// How often before that, so that both are in memory.
const WARMING_UP: usize = 20;

#[derive(Serialize)]
struct Point {
    bench: &'static str,
    plugin: &'static str,
    p50_us: f64,
    p99_us: f64,
    /// The median in medians of `host-local`.
    ratio: f64,
}

/// Runs the benchmark with both stores in `dir`.
pub(crate) fn run(dir: &Path, json: bool) -> Result<()> {
    let dir = disk::directory(dir)?;
    let lab = Lab::with_prefix(16)?;
    let state = dir.path().join("state");
    let config = lab.config()?.with(&format!("state_dir = {state:?}"))?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let ours = Plugin::guard_ipam(
        None,
        json!({
            "cniVersion": "1.0.0",
            "name": "net",
            "type": "bridge",
            "ipam": { "type": "guard-ipam", "pool": POOL, "socket": agent.socket() },
        }),
    )?;
    let theirs = HostLocal::with_prefix(&lab, &dir.path().join("host-local"))?;
    let netns = lab.host().path();

    let (mut guard_ipam, mut host_local) = (Vec::new(), Vec::new());
    for number in 0..WARMING_UP + CALLS {
        let id = format!("c{number}");
        let attachment = Attachment::new(&id, &netns);
        // Neither is always the first after what the other has left in the caches.
        let turns = if number % 2 == 0 { [true, false] } else { [false, true] };
        for our_turn in turns {
            let (plugin, times) = match our_turn {
                true => (&ours, &mut guard_ipam),
                false => (theirs.plugin(), &mut host_local),
            };
            let start = Instant::now();
            plugin.done("ADD", attachment)?;
            let took = start.elapsed();
            if number >= WARMING_UP {
                times.push(took);
            }
            plugin.done("DEL", attachment)?;
        }
    }
    host_local.sort_unstable();
    guard_ipam.sort_unstable();
    let base = percentile(&host_local, 0.5);
    let points = [("guard-ipam", &guard_ipam), ("host-local", &host_local)];
    if !json {
        println!("{:<12} {:>12} {:>12} {:>7}", "plugin", "p50", "p99", "ratio");
    }
    for (plugin, times) in points {
        report(&point(plugin, times, base), json)?;
    }
    agent.stop()
}

fn point(plugin: &'static str, sorted: &[Duration], base: f64) -> Point {
    let p50_us = percentile(sorted, 0.5);
    let ratio = (p50_us / base * 100.0).round() / 100.0;
    Point { bench: "cni", plugin, p50_us, p99_us: percentile(sorted, 0.99), ratio }
}

fn report(point: &Point, json: bool) -> Result<()> {
    if json {
        return line(point);
    }
    let Point { bench: _, plugin, p50_us, p99_us, ratio } = point;
    println!("{plugin:<12} {p50_us:>9.0} µs {p99_us:>9.0} µs {ratio:>7.2}");
    Ok(())
}
