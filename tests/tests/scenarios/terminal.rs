//! What people see: `guardctl` and the demo in a terminal of eighty columns and twenty-four lines.

use std::process::Command;

use anyhow::{Context, Result};
use guard_tests::{BRIDGE, Lab, POOL, Terminal, eventually};

/// Nothing is cut off by the terminal, and it is drawn without being cleared each time.
fn fits(terminal: &Terminal) -> Result<()> {
    let screen = terminal.screen()?;
    assert!(screen.lines().count() <= 24 && screen.lines().all(|l| l.chars().count() <= 80));
    let sent = terminal.sent()?;
    assert!(sent.matches("\x1b[2J").count() <= 1, "cleared more than once: {sent:?}");
    Ok(())
}

#[test]
fn top_shows_pools_ports_conflicts_and_rates_as_they_change() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let top = agent.ctl_in_terminal(&lab, &["top"])?;
    top.await_screen(&["ready", "2 of 2 ports covered", POOL, "10.8.64.0/24", "active 1"])?;

    top.press(&["Tab"])?;
    top.await_screen(&["COVERED", owner.port(), thief.port()])?;
    let socket = thief.raw_socket()?;
    let frame = guard_tests::Arp::announcement(thief.mac(), lease.address).frame();
    let row = |screen: &str| {
        let row = screen.lines().find(|line| line.starts_with(thief.port()))?.to_owned();
        row.split_whitespace().nth(4)?.parse::<f64>().ok()
    };
    eventually("frames a second", || {
        for _ in 0..20 {
            socket.send(&frame)?;
        }
        Ok(row(&top.screen()?).filter(|rate| *rate > 0.0).map(drop))
    })?;

    top.press(&["Right"])?;
    let address = lease.address.to_string();
    top.await_screen(&["Conflicts 1", &address, "duplicate", "impostor", thief.port(), "owner"])?;
    agent.allocate("another")?;
    top.press(&["Tab"])?;
    top.await_screen(&["held 1, active 1"])?;
    fits(&top)?;

    top.press(&["q"])?;
    assert_eq!(top.await_exit()?, 0);
    assert!(!top.screen()?.contains("q: quit"), "the screen is not given back");
    Ok(())
}

#[test]
fn top_moves_in_long_lists_and_sends_only_what_changes() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let names: Vec<_> = (10..40).map(|number| format!("s{number}")).collect();
    for name in &names {
        lab.sandbox(name)?;
    }
    let top = agent.ctl_in_terminal(&lab, &["top"])?;
    top.await_screen(&["30 of 30 ports covered"])?;
    top.press(&["Tab"])?;
    top.await_screen(&["veth-s10"])?;
    assert!(!top.screen()?.contains("veth-s39"));
    top.press(&["End"])?;
    top.await_screen(&["veth-s39"])?;
    assert!(!top.screen()?.contains("veth-s10"));
    top.press(&["Home"])?;
    top.await_screen(&["veth-s10"])?;

    // Two seconds in which nothing happens but time: less than one screen is sent.
    let clock = |screen: &str| screen.lines().next().map(str::to_owned).context("an empty screen");
    let (before, begun) = (top.sent()?.len(), clock(&top.screen()?)?);
    let mut seen = vec![begun];
    eventually("three samples", || {
        let now = clock(&top.screen()?)?;
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        Ok((seen.len() > 3).then_some(()))
    })?;
    let sent = top.sent()?.len() - before;
    assert!(sent < 80 * 24, "{sent} bytes for three samples of nothing");
    fits(&top)
}

#[test]
fn top_shows_what_is_degraded_and_waits_for_an_agent_that_restarts() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let top = agent.ctl_in_terminal(&lab, &["top"])?;
    top.await_screen(&["guard ", "ready", POOL])?;
    agent.freeze()?;
    top.await_screen(&["no answer from the agent", "trying again", POOL])?;
    agent.thaw()?;
    eventually("answers", || Ok((!top.screen()?.contains("trying again")).then_some(())))?;
    agent.kill()?;
    top.await_screen(&["trying again", POOL])?;
    agent.start_again()?;
    eventually("answers", || Ok((!top.screen()?.contains("trying again")).then_some(())))?;
    lab.remove_bridge(BRIDGE)?;
    top.await_screen(&["not ready", &format!("bridge {BRIDGE}:")])?;
    top.press(&["C-c"])?;
    assert_eq!(top.await_exit()?, 0);
    Ok(())
}

#[test]
fn top_wants_a_terminal() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    for args in [&["top"][..], &["top", "-o", "json"]] {
        let refused = agent.ctl(args)?;
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{args:?}");
        assert!(refused.stderr.contains("guardctl status"), "{}", refused.stderr);
    }
    Ok(())
}

#[test]
fn what_takes_long_says_so_on_a_terminal_and_only_there() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    agent.freeze()?;
    let check = agent.ctl_in_terminal(&lab, &["check"])?;
    check.await_screen(&["comparing store, index, kernel and wire", "2s"])?;
    agent.thaw()?;
    assert_eq!(check.await_exit()?, 0);
    assert!(!check.screen()?.contains("comparing"), "it stays on the screen");
    agent.freeze()?;
    std::thread::scope(|scope| -> Result<()> {
        let piped = scope.spawn(|| agent.ctl(&["check"]));
        let another = agent.ctl_in_terminal(&lab, &["check"])?;
        another.await_screen(&["comparing", "2s"])?;
        agent.thaw()?;
        let piped = piped.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        assert_eq!((piped.code, piped.stderr.as_str()), (0, ""));
        Ok(())
    })
}

#[test]
fn tables_are_coloured_on_a_terminal() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let status = agent.ctl_in_terminal(&lab, &["status"])?;
    assert_eq!(status.await_exit()?, 0);
    status.await_screen(&["boot pass", BRIDGE])?;
    assert!(status.sent()?.contains("\x1b["), "{:?}", status.sent()?);
    Ok(())
}

#[test]
fn the_demo_is_told_on_a_terminal() -> Result<()> {
    let lab = Lab::new()?;
    let demo = lab.terminal(&Command::new(env!("CARGO_BIN_EXE_guard-demo")))?;
    assert_eq!(demo.await_exit()?, 0);
    let told = demo.sent()?;
    for part in ["Without guard", "With guard", "squatter", "guardctl conflicts"] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
    fits(&demo)
}
