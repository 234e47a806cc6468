//! `enforce`: what enforcement costs a frame, in one run with the same frame in observe and with an empty
//! program, and how soon a change is judged by.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_api::proto::{
    BindRequest, EnforcementMode, SetModeRequest, admin_client::AdminClient,
    leases_client::LeasesClient,
};
use guard_tests::{
    Arp, BRIDGE, Client, GATEWAY, Lab, Launch, NOBODY, POOL, Sandbox, TIMEOUT, ipv4_udp,
};
use nix::net::if_::if_nametoindex;
use serde::Serialize;
use tonic::transport::Channel;

use crate::{
    bpf::Classifier,
    datapath::{Cost, cost},
    report::line,
};

/// Bindings beside the sender's, in the end: as many as the map of owners has for a large node.
const BINDINGS: u32 = 65_536;
/// Ports that are switched at once.
const PORTS: usize = 1_000;
/// Hand-overs.
const BINDS: usize = 200;
/// What `TC_ACT_SHOT` is.
const DROPPED: u32 = 2;
/// The most that a change may take until it is judged by (enforce.md, 10).
const BIND_BAR: Duration = Duration::from_millis(10);
const SWITCH_BAR: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Point {
    bench: &'static str,
    what: &'static str,
    bindings: u32,
    /// `known`: to observe. `bound`: to two bindings. `dropped`: on two CPUs to one. `bind`, `switch`: the
    /// slowest, to the bar.
    ratio: f64,
    net_ns: u64,
}

impl Point {
    fn show(what: &'static str, bindings: u32, ratio: f64, net_ns: u64, json: bool) -> Result<()> {
        let ratio = (ratio * 1000.0).round() / 1000.0;
        let point = Self { bench: "enforce", what, bindings, ratio, net_ns };
        if json {
            return line(&point);
        }
        println!("{what:<9} {bindings:>8} {net_ns:>12} ns {ratio:>8.3}");
        Ok(())
    }
}

/// Runs the benchmark.
pub(crate) fn run(json: bool) -> Result<()> {
    if !json {
        println!("{:<9} {:>8} {:>15} {:>8}", "what", "bindings", "net", "ratio");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let lab = Lab::new()?;
    let agent = lab.agent_with(Launch::config(&lab.config()?)?)?;
    let (sender, other) = (lab.sandbox("sender")?, lab.sandbox("other")?);
    let channel = runtime.block_on(guard_api::client::connect(&agent.socket()))?;
    let mut client = runtime.block_on(Client::connect(&agent.socket()))?;
    let mut lease = |sandbox: &Sandbox| -> Result<_> {
        let (mac, port, owner) = (sandbox.mac(), sandbox.port(), (sandbox.name(), ""));
        let leases = runtime.block_on(client.allocate_bound(&[POOL], owner, mac, port))?;
        leases.into_iter().next().context("no lease")
    };
    let (own, foreign) = (lease(&sender)?, lease(&other)?);
    let (own, foreign) = (own.address.parse()?, foreign.address.parse()?);
    let program = *lab.programs_on(sender.port())?.first().context("no program on the port")?;
    let (guard, empty) = (Classifier::of_id(program)?, Classifier::empty()?);
    let known = ipv4_udp((sender.mac(), lab.bridge_mac(BRIDGE)), own, NOBODY)?;
    let forged = Arp::announcement(sender.mac(), foreign).frame();
    let port = sender.port();
    let measure = |frame: &[u8]| -> Result<Cost> {
        lab.host().run(|| cost(&guard, &empty, frame, if_nametoindex(port)?))?
    };

    eprintln!("known");
    let observed = measure(&known)?;
    let mut modes = Modes { runtime: &runtime, admin: AdminClient::new(channel.clone()) };
    modes.set(EnforcementMode::Enforce)?;
    let enforced = measure(&known)?;
    Point::show("known", 2, ratio(enforced.net_ns, observed.net_ns), enforced.net_ns.into(), json)?;

    eprintln!("dropped");
    let dropped = measure(&forged)?;
    let two = dropped.two_cpu_ratio.unwrap_or_default();
    Point::show("dropped", 2, two, dropped.net_ns.into(), json)?;

    eprintln!("bound");
    Point::show("bound", 2, 1.0, enforced.net_ns.into(), json)?;
    // It would take out what it has not written.
    agent.freeze()?;
    lab.fill_owners(BRIDGE, BINDINGS)?;
    let full = measure(&known)?;
    Point::show("bound", BINDINGS, ratio(full.net_ns, enforced.net_ns), full.net_ns.into(), json)?;
    agent.thaw()?;
    agent.await_readyz(200)?;

    eprintln!("bind");
    let mut leases = LeasesClient::new(channel);
    let moving = runtime.block_on(client.allocate(POOL, "moving"))?;
    let claims = [&sender, &other].map(|sandbox| {
        let claim =
            moving.address.parse().map(|address| Arp::request(sandbox.mac(), address, GATEWAY));
        claim.map(|claim| (sandbox, claim.frame()))
    });
    let [one, two] = claims;
    let ends = [one?, two?];
    let mut slowest = Duration::ZERO;
    for turn in 0..BINDS {
        let ((new, _), (old, claim)) = (&ends[turn % 2], &ends[(turn + 1) % 2]);
        let request = BindRequest {
            generation: moving.generation,
            mac: new.mac().to_string(),
            interface: new.port().to_owned(),
        };
        runtime.block_on(leases.bind(request))?;
        slowest = slowest.max(lab.host().run(|| until_dropped(&guard, claim, old.port()))??);
    }
    Point::show(
        "bind",
        BINDINGS,
        slowest.as_secs_f64() / BIND_BAR.as_secs_f64(),
        nanos(slowest),
        json,
    )?;

    eprintln!("switch of {PORTS} ports");
    let _crowd = lab.crowd(PORTS)?;
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        modes.set(EnforcementMode::Observe)?;
        let began = Instant::now();
        modes.set(EnforcementMode::Enforce)?;
        lab.host().run(|| until_dropped(&guard, &forged, port))??;
        slowest = slowest.max(began.elapsed());
    }
    let over = slowest.as_secs_f64() / SWITCH_BAR.as_secs_f64();
    Point::show("switch", u32::try_from(PORTS)?, over, nanos(slowest), json)?;
    agent.stop()
}

fn ratio(new: u32, old: u32) -> f64 {
    f64::from(new) / f64::from(old.max(1))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// How long it takes until the program drops the frame.
fn until_dropped(program: &Classifier, frame: &[u8], port: &str) -> Result<Duration> {
    let (began, ifindex) = (Instant::now(), if_nametoindex(port)?);
    while program.judge(frame, ifindex)? != DROPPED {
        ensure!(began.elapsed() < TIMEOUT, "a frame from {port} is never dropped");
    }
    Ok(began.elapsed())
}

/// The mode of the bridge.
struct Modes<'a> {
    runtime: &'a tokio::runtime::Runtime,
    admin: AdminClient<Channel>,
}

impl Modes<'_> {
    fn set(&mut self, mode: EnforcementMode) -> Result<()> {
        let request = SetModeRequest {
            bridge: BRIDGE.to_owned(),
            mode: mode.into(),
            yes: true,
            ..SetModeRequest::default()
        };
        self.runtime.block_on(self.admin.set_mode(request))?;
        Ok(())
    }
}
