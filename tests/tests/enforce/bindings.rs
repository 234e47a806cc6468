//! Bindings over time: what becomes of an address and a MAC when their port ends, leaves its bridge, or has
//! a successor.

use anyhow::{Context, Result, ensure};
use guard_tests::{Arp, BRIDGE, Client, GATEWAY, Mac, POOL, RawSocket, Sandbox, eventually};

use crate::{
    under_fire::while_sending,
    world::{Mode, World, arp, learned_on, of_ethertype, send, tool},
};

const BOTH: [&str; 2] = ["guard_frames_dropped_total", "guard_frames_would_drop_total"];

/// Waits until the agent knows of no port of that name.
fn await_no_port(world: &World, port: &str) -> Result<()> {
    eventually("a port that is gone", || {
        let ports = world.agent.list(&["ports"], "ports")?;
        Ok((!ports.iter().any(|known| known["interface"] == port)).then_some(()))
    })
}

/// What was dropped, or would have been.
fn judged(world: &World, mode: Mode, reason: &str) -> Result<u64> {
    if mode == Mode::Enforce { world.dropped(reason) } else { world.would_drop(reason) }
}

fn bind(world: &World, sandbox: &Sandbox) -> Result<()> {
    let generation = world.leases.victim.generation.to_string();
    let mac = sandbox.mac().to_string();
    let port = sandbox.port();
    world.agent.json(&["bind", "--generation", &generation, "--mac", &mac, "--interface", port])?;
    Ok(())
}

/// Between the end of the victim's port and the next `Bind` another port uses what was the victim's: that
/// is learned, and holds nobody off. From the `Bind` on its frames are those of a thief.
#[test]
fn what_was_learned_after_a_port_ended_holds_nobody_off() -> Result<()> {
    for mode in [Mode::Observe, Mode::Enforce] {
        let world = World::new()?;
        world.switch(mode)?;
        let (mac, address) = (world.victim.mac(), world.leases.victim.address);
        world.victim.clone().delete()?;
        await_no_port(&world, world.victim.port())?;
        // It answers for them, too.
        world.free.netns().ip(&format!("link set eth0 address {mac}"))?;
        world.free.add_address(address)?;
        arp(&world.free, &Arp::announcement(mac, address))?;
        eventually("the lease on the free port", || {
            let entry = world.agent.entry(address)?.context("no lease")?;
            Ok((entry["interface"] == world.free.port()).then_some(()))
        })?;
        let again = world.comes_anew(mac, address)?;
        eventually("the two told of", || {
            let open = world.agent.list(&["conflicts"], "conflicts")?;
            Ok(open.iter().any(|conflict| conflict["kind"] == "clone").then_some(()))
        })?;
        for metric in BOTH {
            let all = world.all(metric)?;
            ensure!(all.is_empty(), "{mode:?}: {metric}: {all:?}");
        }
        // The MAC is declared still: with another the address is nobody's.
        arp(&world.free, &Arp::announcement(Mac::numbered(0xbad), address))?;
        eventually("another MAC", || Ok((judged(&world, mode, "violation")? > 0).then_some(())))?;
        bind(&world, &again)?;
        arp(&world.free, &Arp::announcement(mac, address))?;
        eventually("the thief", || Ok((judged(&world, mode, "clone")? > 0).then_some(())))?;
    }
    Ok(())
}

/// A bound port that leaves its bridge, or has no carrier, keeps its address and its MAC: it may be back.
#[test]
fn a_bound_port_that_leaves_its_bridge_keeps_what_is_its() -> Result<()> {
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let (mac, address, port) =
        (world.victim.mac(), world.leases.victim.address, world.victim.port().to_owned());
    let steal = || -> Result<()> {
        let before = [world.dropped("clone")?, world.dropped("violation")?];
        send(&world.free, &of_ethertype(mac, Mac::BROADCAST, 0x88b5))?;
        arp(&world.free, &Arp::announcement(world.free.mac(), address))?;
        eventually("both dropped", || {
            let now = [world.dropped("clone")?, world.dropped("violation")?];
            Ok((now[0] > before[0] && now[1] > before[1]).then_some(()))
        })?;
        ensure!(learned_on(&world.lab, &world.free)? <= 1, "the FDB has the MAC");
        Ok(())
    };
    world.lab.host().ip(&format!("link set {port} nomaster"))?;
    await_no_port(&world, &port)?;
    steal()?;
    world.lab.host().ip(&format!("link set {port} master {BRIDGE}"))?;
    world.agent.await_port(&world.victim)?;
    world.victim.netns().ip("link set eth0 down")?;
    steal()?;
    world.victim.netns().ip("link set eth0 up")?;
    tool(&world.victim, 5, "ping", &["-q", "-c3", "-i0.2", &GATEWAY.to_string()])?;
    ensure!(world.dropped("mac")? == 0, "none of its own is dropped");
    Ok(())
}

/// The last holder's frames after a hand-over, over and over: from the answer to `Bind` on none passes (scenario 29).
#[test]
fn s29_the_last_holder_after_a_hand_over() -> Result<()> {
    const TIMES: u8 = 200;
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let address = world.leases.victim.address;
    let host = RawSocket::open(world.lab.host(), BRIDGE)?;
    let one = world.lab.sandbox("one")?;
    let other = world.lab.sandbox("other")?;
    world.agent.await_port(&one)?;
    world.agent.await_port(&other)?;
    let sockets = [one.raw_socket()?, other.raw_socket()?];
    let claim = |sandbox: &Sandbox, mark: u8| {
        let mut frame = Arp::announcement(sandbox.mac(), address).frame();
        // What follows the packet is nobody's concern (claims.md A25).
        frame.resize(61, mark);
        frame
    };
    for turn in 0..TIMES {
        let is_even = turn % 2 == 0;
        let (new, old) = if is_even { (&one, &other) } else { (&other, &one) };
        let (new_socket, old_socket) =
            if is_even { (&sockets[0], &sockets[1]) } else { (&sockets[1], &sockets[0]) };
        // As fast as its frames go: it is known.
        (0..5).try_for_each(|_| old_socket.send(&claim(old, u8::MAX)))?;
        bind(&world, new)?;
        (0..5).try_for_each(|_| old_socket.send(&claim(old, turn)))?;
        new_socket.send(&claim(new, turn))?;
        let first = host.receive(guard_tests::TIMEOUT, |frame| {
            let claims = frame.len() == 61 && frame[60] == turn;
            claims.then(|| Arp::parse(frame)).flatten().map(|arp| arp.eth_src)
        })?;
        ensure!(first == new.mac(), "turn {turn}: a frame of the last holder came through");
    }
    Ok(())
}

/// Leases that come and go beside good frames: none of these is lost (scenario 47).
#[test]
fn s47_bindings_that_come_and_go_lose_no_good_frame() -> Result<()> {
    const TIMES: usize = 1_000;
    let world = World::new()?;
    world.switch(Mode::Enforce)?;
    let one = world.lab.sandbox("one")?;
    world.agent.await_port(&one)?;
    let good = Arp::announcement(world.victim.mac(), world.leases.victim.address).frame();
    let socket = world.victim.raw_socket()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sent, ()) = while_sending(&socket, &good, || {
        runtime.block_on(async {
            let mut client = Client::connect(&world.agent.socket()).await?;
            for number in 0..TIMES {
                let sandbox = format!("s{number}");
                let who = (&*sandbox, "");
                let leases = client.allocate_bound(&[POOL], who, one.mac(), one.port()).await?;
                for lease in leases {
                    client.release(lease.generation).await?;
                }
            }
            Ok(())
        })
    })?;
    ensure!(sent > 0, "nothing was sent");
    for metric in BOTH {
        let all = world.all(metric)?;
        ensure!(all.is_empty(), "{metric}: {all:?}");
    }
    Ok(())
}
