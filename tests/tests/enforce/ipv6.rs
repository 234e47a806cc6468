//! The tools of The Hacker's Choice and frames like theirs, in IPv6 (enforce.md, scenarios 3, 13 to 19, 24).

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    BRIDGE, Mac, Netns, POOL, Sandbox, eventually, neighbour_advertisement, router_advertisement,
};

use crate::{
    watch::{Belief, Watched},
    world::{Mode, World, send, tool},
};

const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 1);

/// A world whose sandboxes have a lease of each family.
struct Six {
    world: World,
    victim: Ipv6Addr,
    attacker: Ipv6Addr,
    neighbour: Ipv6Addr,
}

impl Six {
    fn new() -> Result<Self> {
        let world = World::with("", |config| {
            config.with(&format!(
                "[[pool]]\nname = {POOL:?}\nbridge = {BRIDGE:?}\nprefix = \"10.8.64.0/24\"\n\
                 [[pool]]\nname = \"six\"\nbridge = {BRIDGE:?}\nprefix = \"fd00:64::/64\"\n"
            ))
        })?;
        enable(world.lab.host(), BRIDGE)?;
        world.lab.host().ip(&format!("address add {GATEWAY6}/64 dev {BRIDGE} nodad"))?;
        enable(world.free.netns(), "eth0")?;
        let [victim, attacker, neighbour] = [&world.victim, &world.attacker, &world.neighbour]
            .map(|sandbox| lease(&world, sandbox));
        Ok(Self { victim: victim?, attacker: attacker?, neighbour: neighbour?, world })
    }

    fn belief(&self) -> Belief {
        let world = &self.world;
        let mut belief = world.belief();
        belief.addresses.extend([
            (IpAddr::from(GATEWAY6), world.lab.bridge_mac(BRIDGE)),
            (self.victim.into(), world.victim.mac()),
            (self.neighbour.into(), world.neighbour.mac()),
        ]);
        belief
    }

    fn watch(&self) -> Result<Watched> {
        let world = &self.world;
        let tables = [world.victim.netns(), world.neighbour.netns(), world.lab.host()];
        let to = [GATEWAY6.into(), self.neighbour.into()];
        let (dir, host) = (world.lab.dir(), world.lab.host());
        Watched::begin(dir, self.belief(), host, &tables, world.victim.netns(), &to)
    }

    /// As [`World::attack`], where any of the reasons will do.
    fn attack(&self, reasons: &[&str], act: impl Fn(&Self) -> Result<()>) -> Result<()> {
        let world = &self.world;
        let sum = |count: &dyn Fn(&str) -> Result<u64>| -> Result<u64> {
            reasons.iter().map(|reason| count(reason)).sum()
        };
        let would = || sum(&|reason| world.would_drop(reason));
        let dropped = || sum(&|reason| world.dropped(reason));
        let before = would()?;
        act(self).context("in observe")?;
        eventually("would-drops", || Ok((would()? > before).then_some(())))?;
        world.heal()?;
        world.switch(Mode::Enforce)?;
        let watched = self.watch()?;
        act(self).context("in enforce")?;
        eventually("drops", || Ok((dropped()? > 0).then_some(())))?;
        watched.held()
    }

    fn tool(&self, seconds: u32, name: &str, args: &[&str]) -> Result<()> {
        tool(&self.world.attacker, seconds, name, args)
    }
}

fn enable(netns: &Netns, interface: &str) -> Result<()> {
    let file = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    netns.run(|| std::fs::write(&file, "0").with_context(|| file.clone()))?
}

fn lease(world: &World, sandbox: &Sandbox) -> Result<Ipv6Addr> {
    enable(sandbox.netns(), "eth0")?;
    let lease = world.agent.json(&["allocate", "--pool", "six", "--sandbox", sandbox.name()])?;
    let address: Ipv6Addr = lease["address"].as_str().context("no address")?.parse()?;
    let generation = lease["generation"].to_string();
    let mac = sandbox.mac().to_string();
    let bind = ["bind", "--generation", &generation, "--mac", &mac, "--interface", sandbox.port()];
    world.agent.json(&bind)?;
    sandbox.netns().ip(&format!("address add {address}/64 dev eth0 nodad"))?;
    Ok(address)
}

#[test]
fn s03_ettercap_between_victim_and_gateway() -> Result<()> {
    Six::new()?.attack(&["violation"], |six| {
        let (victim, gateway) = (format!("//{}/", six.victim), format!("//{GATEWAY6}/"));
        six.tool(8, "ettercap", &["-T", "-q", "-i", "eth0", "-M", "ndp:remote", &victim, &gateway])
    })
}

#[test]
fn s13_parasite6_while_the_victim_asks_anew() -> Result<()> {
    Six::new()?.attack(&["violation"], |six| {
        std::thread::scope(|scope| {
            let parasite = scope.spawn(|| six.tool(4, "atk6-parasite6", &["-l", "eth0"]));
            // Its victim's question to a group is what it answers.
            let asks = (0..8).try_for_each(|_| {
                six.world.victim.netns().ip("neigh flush dev eth0")?;
                tool(
                    &six.world.victim,
                    1,
                    "ping",
                    &["-q", "-c1", "-W1", &six.neighbour.to_string()],
                )?;
                anyhow::Ok(())
            });
            parasite.join().map_err(|_| anyhow::anyhow!("it panicked"))?.and(asks)
        })
    })
}

#[test]
fn s14_fake_advertise6() -> Result<()> {
    Six::new()?.attack(&["violation", "opaque", "malformed"], |six| {
        let (victim, mac) = (six.victim.to_string(), six.world.attacker.mac().to_string());
        six.tool(2, "atk6-fake_advertise6", &["-r", "eth0", &victim, "ff02::1", &mac])?;
        for option in ["-H", "-F", "-D"] {
            six.tool(1, "atk6-fake_advertise6", &["-r", option, "eth0", &victim, "ff02::1", &mac])?;
        }
        Ok(())
    })
}

#[test]
fn s15_fake_solicitate6() -> Result<()> {
    Six::new()?.attack(&["violation", "mismatch"], |six| {
        let (victim, neighbour) = (six.victim.to_string(), six.neighbour.to_string());
        let mac = six.world.attacker.mac().to_string();
        six.tool(2, "atk6-fake_solicitate6", &["eth0", &neighbour, "ff02::1", &mac, &victim])
    })
}

/// Who answers or asks while the victim tries its own address (claims.md N01, enforce.md's A04).
#[test]
fn s16_dos_new_ip6_against_a_bound_address() -> Result<()> {
    let six = Six::new()?;
    six.world.switch(Mode::Enforce)?;
    let victim = six.world.victim.netns();
    for args in [&["eth0"][..], &["-S", "eth0"]] {
        std::thread::scope(|scope| -> Result<()> {
            let tool = scope.spawn(|| six.tool(5, "atk6-dos-new-ip6", args));
            victim.ip(&format!(
                "address del {0}/64 dev eth0\naddress add {0}/64 dev eth0",
                six.victim
            ))?;
            eventually("the address is not tentative", || {
                let shown = guard_tests::run(
                    "ip",
                    &["-n", victim.name(), "-6", "address", "show", "dev", "eth0"],
                )?;
                ensure!(!shown.contains("dadfailed"), "{shown}");
                Ok((!shown.contains("tentative")).then_some(()))
            })?;
            tool.join().map_err(|_| anyhow::anyhow!("it panicked"))?
        })?;
    }
    Ok(())
}

#[test]
fn s17_floods_of_neighbour_discovery() -> Result<()> {
    let six = Six::new()?;
    six.world.switch(Mode::Enforce)?;
    let watched = six.watch()?;
    for (name, args) in [
        ("atk6-flood_advertise6", &["eth0"][..]),
        ("atk6-flood_solicitate6", &["eth0"]),
        ("atk6-flood_rs6", &["-S", "eth0"]),
    ] {
        six.tool(2, name, args)?;
    }
    let learned = crate::world::learned_on(&six.world.lab, &six.world.attacker)?;
    ensure!(learned <= 1, "the FDB has {learned} MACs of the attacker");
    watched.held()
}

#[test]
fn s18_a_rogue_router() -> Result<()> {
    let six = Six::new()?;
    let accept = |value: &str| {
        six.world
            .victim
            .netns()
            .run(|| std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_ra", value))?
            .context("accept_ra")
    };
    accept("2")?;
    six.world.switch(Mode::Enforce)?;
    six.tool(2, "atk6-fake_router26", &["-A", "2001:db8:bad::/64", "eth0"])?;
    six.tool(2, "atk6-flood_router26", &["eth0"])?;
    send(&six.world.free, &router_advertisement(six.world.free.mac())?)?;
    eventually("drops", || Ok((six.world.dropped("router")? > 1).then_some(())))?;
    let shown =
        guard_tests::run("ip", &["-n", six.world.victim.netns().name(), "-6", "address", "show"])?;
    ensure!(!shown.contains("2001:db8:bad"), "{shown}");
    let routes =
        guard_tests::run("ip", &["-n", six.world.victim.netns().name(), "-6", "route", "show"])?;
    ensure!(!routes.contains("default"), "{routes}");
    Ok(())
}

/// The option last, twice, and in a fragment (claims.md N12, N13).
#[test]
fn s24_advertisements_that_are_built_oddly() -> Result<()> {
    Six::new()?.attack(&["violation", "opaque", "malformed"], |six| {
        let (mac, own) = (six.world.attacker.mac(), six.attacker);
        let twice = neighbour_advertisement(mac, own, six.victim, &[Mac::numbered(0xbad), mac])?;
        send(&six.world.attacker, &twice)?;
        send(&six.world.attacker, &behind(&twice, 3, 60))?;
        send(&six.world.attacker, &behind(&twice, 9, 60))?;
        send(&six.world.attacker, &behind(&twice, 1, 44))
    })
}

/// The same packet behind so many extension headers of a kind: 60 for options, 44 for a fragment.
fn behind(frame: &[u8], count: usize, kind: u8) -> Vec<u8> {
    let mut new = frame.to_vec();
    let headers = (0..count).flat_map(|at| {
        let next = if at + 1 == count { 58 } else { kind };
        if kind == 44 { [next, 0, 0, 0, 0, 0, 0, 7] } else { [next, 0, 1, 4, 0, 0, 0, 0] }
    });
    new.splice(54..54, headers);
    new[20] = kind;
    let length = u16::try_from(new.len() - 54).unwrap_or(u16::MAX).to_be_bytes();
    new[18..20].copy_from_slice(&length);
    new
}
