//! HTTP: metrics, health and readiness.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, BRIDGE, GATEWAY, Lab, Launch, POOL, Sandbox, eventually};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

const PORT: u16 = 9477;

fn status(agent: &Agent) -> Result<Value> {
    let said = agent.ctl(&["status", "-o", "json"])?;
    serde_json::from_str(&said.stdout).context(said.stderr)
}

#[test]
fn health_and_readiness_are_200_when_all_is_well() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    assert_eq!(agent.http("/healthz")?.status, 200);
    assert_eq!(agent.http("/readyz")?.status, 200);
    assert_eq!(agent.http("/nothing")?.status, 404);
    Ok(())
}

#[test]
fn metrics_count_what_was_done() -> Result<()> {
    let lab = Lab::with_prefix(29)?;
    let agent = lab.agent()?;
    let sandbox = lab.sandbox("a")?;
    let lease = agent.admit(&sandbox)?;
    let held = agent.allocate("b")?;
    agent.release(&held)?;
    sandbox.announce(lease.address)?;
    let pool = ("pool", POOL);
    for (state, count) in [("active", 1.0), ("held", 0.0), ("cooling", 1.0)] {
        assert_eq!(
            agent.metric("guard_leases", &[pool, ("state", state)])?,
            Some(count),
            "{state}"
        );
    }
    assert_eq!(agent.metric("guard_pool_capacity_addresses", &[pool])?, Some(5.0));
    assert_eq!(agent.metric("guard_allocations_total", &[pool])?, Some(2.0));
    assert_eq!(agent.metric("guard_releases_total", &[pool])?, Some(1.0));
    assert_eq!(agent.metric("guard_ports", &[("bridge", BRIDGE), ("covered", "true")])?, Some(1.0));
    assert_eq!(agent.metric("guard_build_info", &[])?, Some(1.0));
    eventually("the frame in the metrics", || {
        let frames = agent.metric("guard_frames_total", &[("bridge", BRIDGE)])?;
        Ok(frames.filter(|&frames| frames >= 1.0))
    })?;
    Ok(())
}

#[test]
fn a_port_that_a_stranger_holds_is_degraded_and_taken_once_it_is_free() -> Result<()> {
    let lab = Lab::new()?;
    let stranger = lab.host().run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)))??;
    let agent = lab.agent_with(Launch::config(&lab.config()?)?.degraded())?;
    eventually("the boot pass", || Ok((status(&agent)?["boot_pass"] == "done").then_some(())))?;
    let now = status(&agent)?;
    let degraded = now["degraded"].as_array().context("no list")?;
    ensure!(degraded.len() == 1 && degraded[0]["what"] == "http", "{now}");
    let why = degraded[0]["why"].as_str().context("no reason")?;
    ensure!(why.contains("127.0.0.1:9477") && why.contains("in use"), "{why}");
    ensure!(agent.ctl(&["status"])?.code == 1);
    // Nothing that an address rests on is missing.
    agent.admit(&lab.sandbox("a")?)?;
    drop(stranger);
    eventually("a ready agent", || Ok((agent.ctl(&["status"])?.code == 0).then_some(())))?;
    ensure!(agent.http("/readyz")?.status == 200);
    agent.journal().await_line(&["recovered", "http"])?;
    Ok(())
}

#[test]
fn http_is_served_on_a_unix_socket_over_restarts_and_not_on_a_port() -> Result<()> {
    let lab = Lab::new()?;
    let socket = lab.dir().join("http.sock");
    let http = format!("http = {:?}", format!("unix:{}", socket.display()));
    // Nobody waits for `/readyz` on the port.
    let launch = Launch::config(&lab.config()?.with(&http)?)?.degraded();
    let mut agent = lab.agent_with(launch)?;
    let ready = |agent: &Agent| {
        eventually("200 from /readyz", || {
            Ok((agent.http_over(&socket, "/readyz")?.status == 200).then_some(()))
        })
    };
    ready(&agent)?;
    ensure!(std::fs::metadata(&socket)?.mode() & 0o777 == 0o666);
    ensure!(agent.http("/readyz").is_err(), "it listens on the port, too");
    // What it leaves behind is in nobody's way.
    agent.kill()?;
    agent.start_again_degraded()?;
    ready(&agent)?;
    ensure!(agent.http_over(&socket, "/metrics")?.body.contains("guard_build_info"));
    agent.stop()?;
    ensure!(!socket.exists(), "an agent that ends in good order takes its socket away");
    Ok(())
}

#[test]
fn a_guest_does_not_reach_a_loopback_address() -> Result<()> {
    let lab = Lab::new()?;
    let guest = lab.sandbox("guest")?;
    // A host that lets loopback addresses come in from the bridge, as some of Kubernetes' do.
    let route = |device: &str| {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{device}/route_localnet"), "1")
    };
    lab.host().run(|| route(BRIDGE))??;
    guest.netns().run(|| route("eth0"))??;
    guest.netns().ip(&format!(
        "address add 10.8.64.9/24 dev eth0\n\
         route flush table local root 127.0.0.0/8\n\
         route add 127.0.0.1/32 via {GATEWAY} src 10.8.64.9"
    ))?;
    let other = lab.host().run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))??;
    ensure!(answers(&guest, other.local_addr()?.port())?, "the test's own listener is silent");
    let agent = lab.agent()?;
    ensure!(!answers(&guest, PORT)?, "the agent's HTTP answers a guest");
    ensure!(agent.http("/healthz")?.status == 200, "and not the host");
    Ok(())
}

/// Whether a guest that asks 127.0.0.1 for a connection is answered that it can have one.
fn answers(guest: &Sandbox, port: u16) -> Result<bool> {
    let socket = guest.raw_socket()?;
    let host = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // Its own kernel does not take the answer.
    let _ = guest.netns().run(|| TcpStream::connect_timeout(&host, Duration::from_secs(1)))?;
    let answer = socket.receive(Duration::from_millis(100), |frame| {
        let of_host = frame.get(26..30)? == Ipv4Addr::LOCALHOST.octets();
        let of_port = frame.get(34..36)? == port.to_be_bytes();
        let (tcp, syn_ack) = (*frame.get(23)? == 6, *frame.get(47)? & 0x12 == 0x12);
        (of_host && of_port && tcp && syn_ack).then_some(())
    });
    Ok(answer.is_ok())
}

/// So many connections that say nothing, or much and never all.
fn half_open(agent: &Agent, count: usize) -> Result<Vec<TcpStream>> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(8192.min(hard)), hard)?;
    let long = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nA: {}", "a".repeat(300_000));
    agent.host().run(|| {
        let connect = |number: usize| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
            stream.set_nonblocking(true)?;
            if number.is_multiple_of(2) {
                // As much as the kernel takes; one that is closed already takes nothing.
                let _ = stream.write(long.as_bytes());
            }
            Ok(stream)
        };
        (0..count).map(connect).collect::<Result<Vec<_>>>()
    })?
}

#[test]
fn two_thousand_half_open_connections_cost_neither_calls_nor_memory() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    agent.allocate("before")?;
    let before = agent.resident_kib()?;
    let open = half_open(&agent, 2000)?;
    let began = Instant::now();
    agent.allocate("during")?;
    ensure!(began.elapsed() < Duration::from_secs(1), "an ADD took {:?}", began.elapsed());
    let grown = agent.resident_kib()?.saturating_sub(before);
    ensure!(grown < 64 << 10, "{grown} KiB more");
    // Those that are slow are closed, and others have their places.
    eventually("an answer", || {
        Ok(agent.http("/healthz").ok().filter(|answer| answer.status == 200).map(drop))
    })?;
    ensure!(agent.metric("guard_refusals_total", &[("reason", "http")])? > Some(1000.0));
    drop(open);
    Ok(())
}

#[test]
fn a_request_without_an_end_is_closed_and_one_that_is_too_long_refused() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let connect = || -> Result<TcpStream> {
        let stream = agent.host().run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)))??;
        stream.set_read_timeout(Some(guard_tests::TIMEOUT))?;
        Ok(stream)
    };
    let mut slow = connect()?;
    slow.write_all(b"GET /healthz HTTP/1.1\r\n")?;
    slow.read_to_end(&mut Vec::new()).context("it is still open")?;
    let mut long = connect()?;
    let _ = write!(long, "GET /healthz HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(60_000));
    let mut answer = String::new();
    match long.read_to_string(&mut answer) {
        Ok(_) => ensure!(answer.starts_with("HTTP/1.1 431 "), "{answer}"),
        // It was closed before all had been sent.
        Err(error) => ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}"),
    }
    ensure!(agent.http("/healthz")?.status == 200);
    Ok(())
}

#[test]
fn a_page_whose_name_stands_for_loopback_is_told_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    for path in ["/metrics", "/readyz", "/nothing"] {
        ensure!(agent.http_named("evil.example:9477", path)?.status == 421, "{path}");
    }
    for name in ["localhost:9477", "127.0.0.1:9477", "[::1]:9477"] {
        ensure!(agent.http_named(name, "/metrics")?.status == 200, "{name}");
    }
    Ok(())
}
