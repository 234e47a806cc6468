//! Real incidents under a flood, each flagged once.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, Arp, BRIDGE, Crowd, Lab, Launch, NOBODY, Sandbox, TIMEOUT, Watch, run};

use crate::{ONE_AT_A_TIME, asked};

/// How many incidents, instead of one round of them. A flood must then be a real one.
const VARIABLE: &str = "GUARD_SOAK_INCIDENTS";

const PORTS: usize = 100;
/// Leased addresses, each of which is claimed by somebody else in each round.
const LEASES: usize = 1_000;

/// Frames a second that make a flood.
const FLOOD: f64 = 300_000.0;

#[test]
fn each_is_flagged_once_under_a_flood_of_known_frames() -> Result<()> {
    each_is_flagged_once(|_, flooder, lease, sink| {
        let mut frame = Arp::request(flooder.mac(), lease, NOBODY);
        frame.eth_dst = sink.mac();
        Ok(vec![frame.frame()])
    })
}

#[test]
fn each_is_flagged_once_under_a_flood_of_spoofs_over_quota() -> Result<()> {
    each_is_flagged_once(|lab, flooder, _, sink| {
        // The far half of the prefix, of which nothing is leased.
        let hosts: Vec<Ipv4Addr> = lab.prefix().hosts().collect();
        let (_, strangers) = hosts.split_at(hosts.len() / 2);
        let frames = strangers.iter().take(8_192).map(|&stranger| {
            let mut frame = Arp::request(flooder.mac(), stranger, NOBODY);
            frame.eth_dst = sink.mac();
            frame.frame()
        });
        Ok(frames.collect())
    })
}

type Frames = fn(&Lab, &Sandbox, Ipv4Addr, &Sandbox) -> Result<Vec<Vec<u8>>>;

fn each_is_flagged_once(frames: Frames) -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    let asked = asked(VARIABLE)?;
    let rounds = asked.unwrap_or(LEASES).div_ceil(LEASES);
    let lab = Lab::with_prefix(16)?;
    // So that a round's incidents are over before the next.
    let config = lab.config()?.with("[conflict]\nquiet = \"1s\"")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let crowd = lab.crowd(PORTS)?;
    let leased = crowd.lease(&agent, LEASES)?;
    let (flooder, sink) = (lab.sandbox("flooder")?, lab.sandbox("sink")?);
    let known = agent.admit(&flooder)?;
    // The flood is for one station, since a bridge would send any other to all ports; and that
    // station does not read it.
    let (host, mac) = (lab.host().name(), sink.mac().to_string());
    run("bridge", &["-n", host, "fdb", "replace", &mac, "dev", sink.port(), "master", "static"])?;
    sink.netns().ip("link set eth0 arp off")?;
    agent.await_port(&sink)?;

    let watch = agent.incidents()?;
    let frames = frames(&lab, &flooder, known.address, &sink)?;
    let senders = if asked.is_some() { std::thread::available_parallelism()?.get() } else { 1 };
    let flood = lab.flood(&flooder, &frames, senders)?;
    let mut flagged = Flagged::default();
    for round in 0..rounds {
        // Each port steals from some others, as many as have an incident each (claims.md A19b).
        for thief in 0..PORTS {
            let socket = crowd.raw_socket(thief + round + 1)?;
            let mac = Crowd::mac(LEASES + round * PORTS + thief)?;
            for &address in leased.iter().skip(thief).step_by(PORTS) {
                socket.send(&Arp::announcement(mac, address).frame())?;
            }
        }
        flagged
            .await_round(&watch, &leased, round + 1)
            .with_context(|| format!("round {round}"))?;
    }
    let rate = flood.rate()?;
    eprintln!("{} incidents under {rate:.0} frames a second", rounds * LEASES);
    drop(flood);
    // What was told twice would be told by now.
    flagged.await_marker(&watch, &agent, &flooder, *leased.first().context("no lease")?)?;
    for address in leased.iter().skip(1) {
        let ids = flagged.ids.get(address).map_or(0, HashSet::len);
        ensure!(ids == rounds, "{address} was flagged {ids} times in {rounds} rounds");
    }
    let labels = [("bridge", BRIDGE), ("kind", "duplicate")];
    let alerts = agent.metric("guard_conflicts_total", &labels)?.context("no count")?;
    let expected = u32::try_from(rounds * LEASES + 1)?;
    ensure!(alerts == f64::from(expected), "{alerts} alerts for {expected} incidents");
    ensure!(asked.is_none() || rate >= FLOOD, "{rate:.0} frames a second are no flood");
    Ok(())
}

/// The incidents of each address, by their ids, and those that are over.
#[derive(Default)]
struct Flagged {
    ids: HashMap<Ipv4Addr, HashSet<String>>,
    closed: HashSet<String>,
}

impl Flagged {
    fn hear(&mut self, watch: &Watch) -> Result<Option<Ipv4Addr>> {
        let heard = watch.next(TIMEOUT)?.context("no more incidents come")?;
        let (_, conflict) = heard;
        // Of the flood, or about a MAC.
        let Ok(address) = conflict.address.parse() else { return Ok(None) };
        if !conflict.open {
            self.closed.insert(conflict.id.clone());
        }
        self.ids.entry(address).or_default().insert(conflict.id);
        Ok(Some(address))
    }

    /// Until each address has had so many, and all of them are over.
    fn await_round(&mut self, watch: &Watch, leased: &[Ipv4Addr], rounds: usize) -> Result<()> {
        let mut missing: HashSet<Ipv4Addr> = leased.iter().copied().collect();
        while !missing.is_empty() {
            let heard = self.hear(watch);
            let about = heard.with_context(|| format!("{} are missing", missing.len()))?;
            let Some(address) = about.filter(|address| missing.contains(address)) else { continue };
            let ids = self.ids.get(&address).context("just heard of")?;
            if ids.len() >= rounds && ids.iter().all(|id| self.closed.contains(id)) {
                missing.remove(&address);
            }
        }
        Ok(())
    }

    /// One incident more, of which there is news after all others.
    fn await_marker(
        &mut self,
        watch: &Watch,
        agent: &Agent,
        sender: &Sandbox,
        marker: Ipv4Addr,
    ) -> Result<()> {
        let before = self.ids.get(&marker).map_or(0, HashSet::len);
        agent.await_port(sender)?;
        sender.announce(marker)?;
        while self.ids.get(&marker).map_or(0, HashSet::len) == before {
            self.hear(watch)?;
        }
        Ok(())
    }
}
