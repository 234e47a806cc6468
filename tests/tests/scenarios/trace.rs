//! `guardctl trace`: how each frame of one port is decoded.

use anyhow::{Result, ensure};
use guard_tests::{Arp, Lab, Mac, NOBODY, eventually, neighbour_advertisement};

#[test]
fn each_frame_of_a_traced_port_is_shown_and_nothing_is_left_of_it() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let own = lab.programs_on(thief.port())?;
    ensure!(own.len() == 1, "it costs nothing while nobody watches: {own:?}");

    let trace = agent.watch(&["trace", thief.port()])?;
    let programs = eventually("the second program", || {
        let programs = lab.programs_on(thief.port())?;
        Ok((programs.len() == 2).then_some(programs))
    })?;
    ensure!(programs.contains(&own[0]), "the first is the one that was there: {programs:?}");
    thief.announce(lease.address)?;
    let (address, mac) = (lease.address.to_string(), thief.mac().to_string());
    let (_, frame) = trace.next(|frame| frame["address"] == address.as_str())?;
    for (field, value) in [
        ("interface", thief.port()),
        ("kind", "arp"),
        ("says", "claim"),
        ("strength", "assert"),
        ("mac", &mac),
        ("eth_src", &mac),
        ("outcome", "report"),
        ("event", "violation"),
        ("drop", "violation"),
    ] {
        ensure!(frame[field] == value, "{field}: {frame}");
    }
    thief.raw_socket()?.send(&[&[0xff; 6][..], &thief.mac().octets(), &[8, 6, 0, 1]].concat())?;
    let (_, frame) = trace.next(|frame| frame["says"] == "malformed")?;
    ensure!(frame["reason"] == "arp_truncated" && frame["address"].is_null(), "{frame}");
    // Another port's are not shown, and the program that watches goes on watching.
    owner.announce(lease.address)?;
    eventually("the conflict", || Ok(agent.list(&["conflicts"], "conflicts")?.first().map(drop)))?;

    drop(trace);
    eventually("one program", || Ok((lab.programs_on(thief.port())? == own).then_some(())))?;
    let refusal = agent.ctl(&["trace", "veth-nobody"])?.refusal()?;
    ensure!((&*refusal.status, &*refusal.reason) == ("NOT_FOUND", "PORT_UNKNOWN"));
    Ok(())
}

#[test]
fn a_trace_ends_with_its_port_and_with_a_killed_agent() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let (gone, stays) = (lab.sandbox("gone")?, lab.sandbox("stays")?);
    agent.await_port(&gone)?;
    agent.await_port(&stays)?;
    let trace = agent.watch(&["trace", gone.port()])?;
    let frame = "10.8.64.7".parse()?;
    eventually("the second program", || {
        Ok((lab.programs_on(gone.port())?.len() == 2).then_some(()))
    })?;
    gone.delete()?;
    ensure!(trace.next(|_| false).is_err(), "the stream ends");

    let trace = agent.watch(&["trace", stays.port()])?;
    eventually("the second program", || {
        Ok((lab.programs_on(stays.port())?.len() == 2).then_some(()))
    })?;
    stays.announce(frame)?;
    trace.next(|frame| frame["outcome"] == "live")?;
    agent.kill()?;
    if lab.attach()? == "tcx" {
        ensure!(lab.programs_on(stays.port())?.len() == 1, "the trace outlives the agent");
    }
    agent.start_again()?;
    ensure!(lab.programs_on(stays.port())?.len() == 1, "the trace outlives the next agent's start");
    Ok(())
}

#[test]
fn all_claims_of_a_frame_are_shown() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let sandbox = lab.sandbox("one")?;
    agent.await_port(&sandbox)?;
    let trace = agent.watch(&["trace", sandbox.port()])?;
    eventually("the second program", || {
        Ok((lab.programs_on(sandbox.port())?.len() == 2).then_some(()))
    })?;
    // Two MACs for the target, and the sender's own address besides (claims.md N12).
    let (source, target) = ("fe80::b".parse()?, "fe80::a".parse()?);
    let other = Mac::numbered(0xbb);
    let macs = [sandbox.mac(), other];
    sandbox.raw_socket()?.send(&neighbour_advertisement(sandbox.mac(), source, target, &macs)?)?;
    let (own, other) = (sandbox.mac().to_string(), other.to_string());
    for (number, address, mac, strength) in [
        (1, "fe80::a", &own, "assert"),
        (2, "fe80::a", &other, "assert"),
        (3, "fe80::b", &own, "use"),
    ] {
        let (_, claim) = trace.next(|claim| claim["claim"] == number)?;
        ensure!(claim["address"] == address && claim["mac"] == mac.as_str(), "{claim}");
        ensure!(claim["strength"] == strength && claim["outcome"] == "live", "{claim}");
    }
    Ok(())
}

/// A frame is shown or counted as lost, however fast they come.
#[test]
fn frames_that_a_trace_loses_are_counted() -> Result<()> {
    const FRAMES: u64 = 20_000;
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let sandbox = lab.sandbox("loud")?;
    agent.await_port(&sandbox)?;
    let trace = agent.watch(&["trace", sandbox.port()])?;
    eventually("the second program", || {
        Ok((lab.programs_on(sandbox.port())?.len() == 2).then_some(()))
    })?;
    let probe = Arp::probe(sandbox.mac(), NOBODY).frame();
    let socket = sandbox.raw_socket()?;
    for _ in 0..FRAMES {
        socket.send(&probe)?;
    }
    let (mut shown, mut lost) = (0, 0);
    while shown + lost < FRAMES {
        let (_, line) = trace.next(|line| line["kind"] == "arp" || line["lost"].is_u64())?;
        match line["lost"].as_u64() {
            Some(more) => lost += more,
            None => shown += 1,
        }
    }
    ensure!(shown + lost == FRAMES, "{shown} were shown and {lost} were lost");
    ensure!(lost > 0, "nothing was lost: send more");
    Ok(())
}
