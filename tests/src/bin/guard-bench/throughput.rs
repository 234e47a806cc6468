//! `throughput`: iperf3 over a bridge that is watched, and over one beside it that is not.

use std::net::Ipv4Addr;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use guard_tests::{BRIDGE, Lab, Mac, Sandbox, eventually};
use serde::Serialize;
use serde_json::Value;

use crate::report::{line, round};

/// Single runs vary by 15 %, and take half a second.
const PAIRS: usize = 31;

const UNWATCHED: &str = "rt1";

#[derive(Serialize)]
struct Point {
    bench: &'static str,
    /// The median over the pairs.
    ratio: f64,
    /// The best run with the program, to the best without.
    best_ratio: f64,
    pairs: usize,
    with_gbit: f64,
    without_gbit: f64,
}

/// Runs the benchmark.
pub(crate) fn run(json: bool) -> Result<()> {
    let lab = Lab::new()?;
    lab.add_bridge(UNWATCHED)?;
    let agent = lab.agent()?;
    let watched = Wire::new(&lab, BRIDGE, 0x20)?;
    let unwatched = Wire::new(&lab, UNWATCHED, 0x30)?;
    for end in [&watched.client, &watched.server] {
        agent.await_port(end)?;
        ensure!(lab.programs_on(end.port())?.len() == 1, "no program on {}", end.port());
    }
    for end in [&unwatched.client, &unwatched.server] {
        ensure!(lab.programs_on(end.port())?.is_empty(), "a program on {}", end.port());
    }
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        // Neither is always the first.
        let (a, b) = if pair % 2 == 0 {
            let with = watched.gbit()?;
            (with, unwatched.gbit()?)
        } else {
            let without = unwatched.gbit()?;
            (watched.gbit()?, without)
        };
        eprintln!("pair {pair}: {a:.1} Gbit/s with, {b:.1} without");
        with.push(a);
        without.push(b);
        ratios.push(a / b);
    }
    for figures in [&mut with, &mut without, &mut ratios] {
        figures.sort_by(f64::total_cmp);
    }
    let middle = |figures: &[f64]| figures.get(figures.len() / 2).copied().unwrap_or_default();
    let best = |figures: &[f64]| figures.last().copied().unwrap_or_default();
    let point = Point {
        bench: "throughput",
        ratio: (middle(&ratios) * 1e3).round() / 1e3,
        best_ratio: (best(&with) / best(&without) * 1e3).round() / 1e3,
        pairs: PAIRS,
        with_gbit: round(middle(&with)),
        without_gbit: round(middle(&without)),
    };
    if json {
        line(&point)?;
    } else {
        println!(
            "throughput with the program: {:.3} of that without (best runs: {:.3}); {:.1} and {:.1} \
             Gbit/s",
            point.ratio, point.best_ratio, point.with_gbit, point.without_gbit
        );
    }
    agent.stop()
}

/// Two sandboxes on a bridge, one of which serves.
struct Wire {
    client: Sandbox,
    server: Sandbox,
    address: Ipv4Addr,
    iperf3: Child,
}

impl Wire {
    fn new(lab: &Lab, bridge: &str, number: u8) -> Result<Self> {
        let end = |role: &str, number: u8| -> Result<(Sandbox, Ipv4Addr)> {
            let name = format!("{role}{number}");
            let sandbox = lab.sandbox_with(&name, bridge, Mac::numbered(u32::from(number)))?;
            let address = Ipv4Addr::new(10, 8, 64, number);
            sandbox.add_address(address)?;
            Ok((sandbox, address))
        };
        let (client, _) = end("client", number)?;
        let (server, address) = end("server", number + 1)?;
        let mut command = server.netns().command("iperf3");
        command.arg("--server").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let iperf3 = command.spawn().context("cannot start iperf3")?;
        let wire = Self { client, server, address, iperf3 };
        eventually("iperf3's port", || {
            let listens = wire.server.netns().run(|| {
                let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
                // Port 5201.
                tables
                    .iter()
                    .filter_map(|path| std::fs::read_to_string(path).ok())
                    .any(|table| table.contains(":1451 "))
            })?;
            Ok(listens.then_some(()))
        })?;
        Ok(wire)
    }

    fn gbit(&self) -> Result<f64> {
        let mut command = self.client.netns().command("iperf3");
        command.args(["--json", "--bytes", "512M", "--client", &self.address.to_string()]);
        let output = command.output().context("cannot start iperf3")?;
        let said: Value = serde_json::from_slice(&output.stdout).context("iperf3's JSON")?;
        let bits = said.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
        Ok(bits.with_context(|| format!("iperf3: {said}"))? / 1e9)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.iperf3.kill();
        let _ = self.iperf3.wait();
    }
}
