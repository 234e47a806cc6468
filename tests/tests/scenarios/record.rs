//! What a guest does cannot push the record of it out: not the one of a worse thing, and not another's.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use guard_tests::{Agent, Arp, Lab, Launch, eventually};
use serde_json::Value;

const LEASES: u32 = 20_000;
/// The host's, and in no lease.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 8, 200, 1);

fn open(agent: &Agent, address: &str) -> Result<Option<Value>> {
    let conflicts = agent.list(&["conflicts"], "conflicts")?;
    Ok(conflicts.into_iter().find(|one| one["address"] == address))
}

#[test]
fn twenty_thousand_duplicates_make_few_lines_and_hide_nothing() -> Result<()> {
    let lab = Lab::with_prefix(16)?;
    lab.fill_declared(LEASES)?;
    lab.host().ip(&format!("address add {HOST}/16 dev rt0"))?;
    let mut agent = lab.agent_with(Launch::config(&lab.config()?)?)?;
    let (thief, other) = (lab.sandbox("thief")?, lab.sandbox("other")?);
    for sandbox in [&thief, &other] {
        agent.await_port(sandbox)?;
    }
    let leases = agent.list(&["leases"], "leases")?;
    let address = |lease: &Value| lease["address"].as_str()?.parse::<Ipv4Addr>().ok();
    let leased: Vec<_> = leases.iter().filter_map(address).collect();
    assert_eq!(leased.len(), LEASES as usize);
    let (of_other, of_thief) = leased.split_first().context("no lease")?;
    // What another did, and the worst that the thief does, before all that is to hide it.
    other.announce(*of_other)?;
    thief.announce(HOST)?;
    for address in [of_other, &HOST] {
        eventually("an incident", || open(&agent, &address.to_string()))?;
    }
    let before = agent.journal().text().lines().count();
    let socket = thief.raw_socket()?;
    for (number, address) in of_thief.iter().enumerate() {
        socket.send(&Arp::announcement(thief.mac(), *address).frame())?;
        if number % 100 == 99 {
            // Slow enough for a frame each to be looked at.
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    }
    agent.follow(&["conflicts"])?.next(|one| one["kind"] == "proxy" || one["kind"] == "flood")?;
    let text = agent.journal().text();
    let lines = text.lines().count() - before;
    assert!(lines <= 100, "{lines} lines:\n{text}");
    // Those are written that were told.
    agent.kill()?;
    agent.start_again()?;
    for (address, severity) in [(of_other, "warning"), (&HOST, "critical")] {
        let found = open(&agent, &address.to_string())?;
        let found = found.with_context(|| format!("{address} is forgotten"))?;
        assert_eq!(found["severity"], severity, "{found}");
    }
    Ok(())
}
