//! The agent needs four capabilities and no root; and where it is root, that is worth no more to it.

use std::fs;
use std::os::unix::fs::chown;

use anyhow::{Context, Result};
use guard_tests::{Agent, Lab, Launch};

const NOBODY: u32 = 65534;
/// `CAP_NET_ADMIN`, `CAP_NET_RAW`, `CAP_PERFMON` and `CAP_BPF`, by their bits.
const FOUR: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;

fn setpriv() -> Vec<String> {
    let four = "+net_admin,+net_raw,+perfmon,+bpf";
    ["--inh-caps", "--ambient-caps", "--bounding-set"]
        .map(|set| format!("{set}=-all,{four}"))
        .into_iter()
        .chain(["--securebits=+noroot,+noroot_locked".to_owned()])
        .chain(["--clear-groups".to_owned(), format!("--regid={NOBODY}")])
        .chain([format!("--reuid={NOBODY}")])
        .collect()
}

fn status(agent: &Agent) -> Result<String> {
    let path = format!("/proc/{}/status", agent.pid());
    fs::read_to_string(&path).with_context(|| path)
}

fn has_no_more(status: &str) {
    for line in [
        "NoNewPrivs:\t1".to_owned(),
        format!("CapPrm:\t{FOUR:016x}"),
        format!("CapEff:\t{FOUR:016x}"),
        format!("CapBnd:\t{FOUR:016x}"),
        format!("CapInh:\t{:016x}", 0),
        format!("CapAmb:\t{:016x}", 0),
    ] {
        assert!(status.contains(&line), "{line} in {status}");
    }
}

/// Addresses are handed out, bound and kept over a restart, and a theft is told.
fn does_its_work(lab: &Lab, agent: &mut Agent) -> Result<()> {
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    agent.kill()?;
    agent.start_again()?;
    let conflicts = agent.follow(&["conflicts"])?;
    thief.announce(lease.address)?;
    let address = lease.address.to_string();
    let (_, found) = conflicts.next(|found| found["address"] == address.as_str())?;
    assert_eq!(found["claimants"].as_array().map(Vec::len), Some(2), "{found}");
    agent.check()
}

#[test]
fn a_user_with_four_capabilities_does_the_whole_work() -> Result<()> {
    let lab = Lab::new()?;
    chown(lab.dir(), Some(NOBODY), Some(NOBODY))?;
    let words = setpriv();
    let words: Vec<_> = ["setpriv"].into_iter().chain(words.iter().map(String::as_str)).collect();
    let mut agent = lab.agent_with(Launch::config(&lab.config()?)?.under(&words))?;
    let status = status(&agent)?;
    assert!(status.contains(&format!("Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}")), "{status}");
    has_no_more(&status);
    does_its_work(&lab, &mut agent)
}

#[test]
fn as_root_it_gives_up_what_root_has() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    has_no_more(&status(&agent)?);
    does_its_work(&lab, &mut agent)
}
