//! Thefts by many ports while one of them spoofs addresses that others own, with MAC after MAC.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_tests::{Arp, Crowd, Lab, Mac, TIMEOUT};

use crate::{ONE_AT_A_TIME, asked};

/// How many thefts, instead of the share. A flood must then leave them time.
const VARIABLE: &str = "GUARD_SOAK_THEFTS";
const THEFTS: usize = 64;

/// Ports that steal. One that claimed more than sixteen addresses would be one incident (claims.md A19b).
const THIEVES: usize = 100;

/// How late the last but one in a hundred may be told.
const LATE: Duration = Duration::from_millis(50);

/// How much more memory the agent may take, and how many lines more than there are thefts it may log.
const MORE_KIB: u64 = 64 * 1024;
const MORE_LINES: usize = 50;

#[test]
fn rule_12_a_port_that_spoofs_all_hides_no_theft_by_another() -> Result<()> {
    no_theft_is_hidden(200, 200)
}

#[test]
fn rule_12_a_port_that_spoofs_every_lease_hides_no_theft_by_another() -> Result<()> {
    no_theft_is_hidden(4_000, 6)
}

fn no_theft_is_hidden(spoofed: usize, macs: u32) -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    let asked = asked(VARIABLE)?;
    let thefts = asked.unwrap_or(THEFTS);
    let lab = Lab::with_prefix(16)?;
    let agent = lab.agent()?;
    let crowd = lab.crowd(THIEVES)?;
    let leased = crowd.lease(&agent, spoofed + thefts)?;
    let (spoofed, stolen) = leased.split_at(spoofed);
    let flooder = lab.sandbox("flooder")?;
    agent.await_port(&flooder)?;
    let mut frames = Vec::new();
    for mac in (0..macs).map(|number| Mac::numbered(0x2_0000 + number)) {
        for &address in spoofed {
            // To a station that is not there: behind few of the ports, and read by none.
            let mut frame = Arp::announcement(mac, address);
            frame.eth_dst = flooder.mac();
            frames.push(frame.frame());
        }
    }
    let (before, lines) = (agent.resident_kib()?, agent.journal().lines().len());
    let watch = agent.incidents()?;
    let senders = if asked.is_some() { std::thread::available_parallelism()?.get() } else { 1 };
    let flood = lab.flood(&flooder, &frames, senders)?;
    let mut told = HashMap::new();
    for (number, &address) in stolen.iter().enumerate() {
        // Its owner is on the port before.
        let thief = crowd.raw_socket(spoofed.len() + number + 1)?;
        let at = Instant::now();
        thief.send(&Arp::announcement(Crowd::mac(leased.len() + number)?, address).frame())?;
        told.insert(address, (at, None));
    }
    while told.values().any(|(_, told)| told.is_none()) {
        let (at, conflict) = watch.next(TIMEOUT)?.context("thefts are missing")?;
        if let Ok(address) = conflict.address.parse::<Ipv4Addr>()
            && let Some((_, told)) = told.get_mut(&address)
        {
            told.get_or_insert((at, conflict));
        }
    }
    let rate = flood.rate()?;
    drop(flood);
    let mut latencies: Vec<_> = told
        .values()
        .filter_map(|(sent, told)| told.as_ref().map(|(at, _)| at.saturating_duration_since(*sent)))
        .collect();
    latencies.sort();
    let late = latencies.iter().rev().nth(thefts / 100).copied().context("no theft")?;
    eprintln!("{thefts} thefts under {rate:.0} frames a second, 99 in 100 told within {late:?}");
    assert_eq!(agent.metric("guard_events_lost_total", &[])?, Some(0.0));
    let conflicts = agent.list(&["conflicts", "--all"], "conflicts")?;
    let of_flooder: Vec<_> =
        conflicts.iter().filter(|conflict| conflict["address"].is_null()).collect();
    let [incident] = &of_flooder[..] else { anyhow::bail!("{of_flooder:?}") };
    assert_eq!(incident["claimants"][0]["interface"], flooder.port(), "{incident}");
    for (address, (_, told)) in &told {
        let (_, conflict) = told.as_ref().context("not told")?;
        let mut ports = conflict.claimants.iter().map(|claimant| &*claimant.interface);
        ensure!(ports.all(|port| port != flooder.port()), "{address}: {conflict:?}");
    }
    let (after, lines) = (agent.resident_kib()?, agent.journal().lines().len() - lines);
    ensure!(after <= before + MORE_KIB, "{before} KiB resident before, {after} KiB after");
    ensure!(lines <= thefts + MORE_LINES, "{lines} lines logged of {thefts} thefts");
    agent.await_readyz(200)?;
    ensure!(asked.is_none() || late <= LATE, "told within {late:?}");
    Ok(())
}
