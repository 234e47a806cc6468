//! Ordinary life in enforce: nothing is dropped, and in observe nothing would be (enforce.md, scenarios 33
//! to 48).

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, ensure};
use guard_tests::{Arp, BRIDGE, GATEWAY, Lab, Mac, Netns, Sandbox, eventually, run};

use crate::world::{Mode, World, arp, tool};

/// A DHCP server that gives MACs their addresses.
pub(crate) struct Dhcp {
    pid: u32,
}

impl Dhcp {
    pub(crate) fn start(
        lab: &Lab,
        netns: &Netns,
        interface: &str,
        own: Ipv4Addr,
        hosts: &[(Mac, Ipv4Addr)],
    ) -> Result<Self> {
        let [a, b, c, _] = own.octets();
        let mut server = netns.command("dnsmasq");
        let dir = lab.dir();
        server.args(["--no-daemon", "--conf-file=/dev/null", "--port=0", "--bind-interfaces"]);
        server.args([format!("--interface={interface}"), "--user=root".to_owned()]);
        server.arg(format!("--dhcp-range={a}.{b}.{c}.150,{a}.{b}.{c}.250,255.255.255.0,1h"));
        server.arg("--dhcp-authoritative").arg("--no-ping");
        server.arg(format!("--dhcp-leasefile={}", dir.join(format!("dnsmasq-{own}")).display()));
        server.arg(format!("--pid-file={}", dir.join(format!("dnsmasq-{own}.pid")).display()));
        for (mac, address) in hosts {
            server.arg(format!("--dhcp-host={mac},{address}"));
        }
        let log = fs::File::create(dir.join(format!("dnsmasq-{own}.log")))?;
        let pid = lab.start(server.stderr(log))?;
        let said = dir.join(format!("dnsmasq-{own}.log"));
        eventually("dnsmasq", || Ok(fs::read_to_string(&said)?.contains("DHCP, ").then_some(())))?;
        Ok(Self { pid })
    }
}

impl Drop for Dhcp {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid).unwrap_or(0));
        if pid.as_raw() > 0 {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
    }
}

/// A script for udhcpc that sets the address it was given.
const SET: &str = "#!/bin/sh\n[ \"$1\" = bound ] && ip address replace \"$ip/${mask:-24}\" dev \"$interface\"\nexit 0\n";

/// Writes udhcpc's script, and returns its path.
pub(crate) fn lease_file(lab: &Lab, name: &str) -> String {
    let path = lab.dir().join(format!("udhcpc-{name}"));
    let written = fs::write(&path, SET)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)));
    written.map_or_else(|error| format!("/nonexistent/{error}"), |()| path.display().to_string())
}

/// Nothing was dropped, and nothing would have been.
fn nothing_dropped(world: &World) -> Result<()> {
    for metric in ["guard_frames_dropped_total", "guard_frames_would_drop_total"] {
        let all = world.all(metric)?;
        ensure!(all.is_empty(), "{metric}: {all:?}");
    }
    Ok(())
}

fn has_address(sandbox: &Sandbox, address: Ipv4Addr) -> Result<bool> {
    let shown = run("ip", &["-n", sandbox.netns().name(), "address", "show", "dev", "eth0"])?;
    Ok(shown.contains(&format!("inet {address}/")))
}

/// A sandbox that boots by DHCP: what a client in it does is what `boot` says.
fn boots(mode: Mode, boot: impl Fn(&World, &Sandbox, &Path) -> Result<()>) -> Result<()> {
    let world = World::new()?;
    world.switch(mode)?;
    let client = world.lab.sandbox("client")?;
    let lease = world.agent.allocate("client")?;
    world.agent.bind(&lease, &client)?;
    world.agent.await_port(&client)?;
    let hosts = [(client.mac(), lease.address)];
    let _server = Dhcp::start(&world.lab, world.lab.host(), BRIDGE, GATEWAY, &hosts)?;
    boot(&world, &client, world.lab.dir())?;
    ensure!(has_address(&client, lease.address)?, "no {}", lease.address);
    tool(&client, 3, "ping", &["-q", "-c3", "-i0.2", &GATEWAY.to_string()])?;
    nothing_dropped(&world)
}

#[test]
fn s33_udhcpc_boots() -> Result<()> {
    for mode in [Mode::Observe, Mode::Enforce] {
        boots(mode, |world, client, _| {
            let script = lease_file(&world.lab, "client");
            tool(client, 15, "udhcpc", &["-i", "eth0", "-n", "-q", "-f", "-s", &script])
        })?;
    }
    Ok(())
}

#[test]
fn s33_dhclient_boots() -> Result<()> {
    for mode in [Mode::Observe, Mode::Enforce] {
        boots(mode, |_, client, dir| {
            let script = dir.join("dhclient-script");
            let set = "#!/bin/sh\n[ \"$reason\" = BOUND ] && \
                       ip address replace \"$new_ip_address/24\" dev \"$interface\"\nexit 0\n";
            fs::write(&script, set)?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
            let [leases, pid] = ["dhclient.leases", "dhclient.pid"]
                .map(|file| dir.join(file).display().to_string());
            let script = script.display().to_string();
            let args = ["-4", "-1", "-d", "-sf", &script, "-lf", &leases, "-pf", &pid, "eth0"];
            tool(client, 8, "dhclient", &args)
        })?;
    }
    Ok(())
}

/// A container that starts anew with its address, a new MAC and a new veth.
#[test]
fn s40_a_container_starts_again_with_its_address() -> Result<()> {
    const TIMES: u32 = 30;
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let mut again = world.lab.sandbox("again")?;
    let lease = world.agent.admit(&again)?;
    for number in 0..TIMES {
        again.delete()?;
        again = world.lab.sandbox_with("again", BRIDGE, Mac::numbered(0x0300 + number))?;
        world.agent.bind(&lease, &again)?;
        world.agent.await_port(&again)?;
        again.add_address(lease.address)?;
        again.announce(lease.address)?;
        let ping = again
            .netns()
            .command("ping")
            .args(["-q", "-c1", "-W2", &GATEWAY.to_string()])
            .output()?;
        ensure!(ping.status.success(), "turn {number}: {}", String::from_utf8_lossy(&ping.stdout));
    }
    nothing_dropped(&world)
}

/// A MAC that changes in the guest is dropped until the lease is bound to it.
#[test]
fn s41_a_mac_that_changes_in_the_guest() -> Result<()> {
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let new = Mac::numbered(0x0400);
    world.victim.netns().ip(&format!("link set eth0 address {new}"))?;
    let gateway = GATEWAY.to_string();
    let ping = || {
        let ping = world
            .victim
            .netns()
            .command("ping")
            .args(["-q", "-c2", "-i0.2", "-W1", &gateway])
            .output();
        ping.map(|ping| ping.status.success()).context("ping")
    };
    ensure!(!ping()?, "an address with another MAC than its binding's");
    let generation = world.leases.victim.generation.to_string();
    let mac = new.to_string();
    let bind =
        ["bind", "--generation", &generation, "--mac", &mac, "--interface", world.victim.port()];
    world.agent.json(&bind)?;
    ensure!(ping()?, "bound to the new MAC");
    Ok(())
}

/// A bridge with sandboxes that guard has no lease of: `strict = "bound"` leaves them alone.
#[test]
fn s43_ports_without_leases_live_on() -> Result<()> {
    let world = World::with("prefixes = [\"10.8.64.0/24\"]", Ok)?;
    world.switch(Mode::Enforce)?;
    let one = world.lab.sandbox("one")?;
    world.agent.await_port(&one)?;
    one.add_address([10, 8, 64, 210].into())?;
    let ping = one
        .netns()
        .command("ping")
        .args(["-q", "-c5", "-i0.2", "-W1", &GATEWAY.to_string()])
        .output()?;
    ensure!(ping.status.success(), "{}", String::from_utf8_lossy(&ping.stdout));
    nothing_dropped(&world)
}

/// Its connections drain: what is released and still there goes on.
#[test]
fn s46_a_lease_that_is_given_back_while_it_is_in_use() -> Result<()> {
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let watched = world.watch()?;
    ensure!(world.agent.release(&world.leases.victim)? == "releasing", "it is live");
    let gateway = GATEWAY.to_string();
    tool(&world.victim, 3, "ping", &["-q", "-c5", "-i0.2", &gateway])?;
    watched.held()?;
    nothing_dropped(&world)
}

/// `cut` ends them at once, also of what was given back before; the address stays nobody's.
#[test]
fn s46_a_lease_that_is_given_back_and_cut() -> Result<()> {
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let generation = world.leases.victim.generation.to_string();
    let gateway = GATEWAY.to_string();
    let ping = || -> Result<bool> {
        let mut ping = world.victim.netns().command("ping");
        let ping = ping.args(["-q", "-c2", "-i0.2", "-W1", &gateway]).output();
        Ok(ping.context("ping")?.status.success())
    };
    ensure!(ping()?, "before");
    world.agent.json(&["release", "--generation", &generation])?;
    ensure!(ping()?, "it drains");
    world.agent.json(&["release", "--generation", &generation, "--cut"])?;
    ensure!(!ping()?, "it goes on");
    ensure!(world.dropped("violation")? > 0, "each of its frames claims what is nobody's");
    let before = world.dropped("violation")?;
    arp(&world.free, &Arp::announcement(world.free.mac(), world.leases.victim.address))?;
    eventually("nobody else", || Ok((world.dropped("violation")? > before).then_some(())))?;
    // Those of the others go on.
    tool(&world.neighbour, 3, "ping", &["-q", "-c3", "-i0.2", &gateway])
}
