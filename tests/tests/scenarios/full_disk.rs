//! A disk without room: what cannot be written is told once and tried again once a second.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, Lab, Launch, POOL, eventually};

/// Takes the room that there is, but for so many bytes.
fn fill(state: &Path, left: u64) -> Result<std::path::PathBuf> {
    let filler = state.join("filler");
    // Until there is no room for one byte more.
    let _ = std::fs::write(&filler, vec![0; 8 << 20]);
    let file = std::fs::File::options().write(true).open(&filler)?;
    file.set_len(file.metadata()?.len().saturating_sub(left))?;
    Ok(filler)
}

/// Lines that are about the store.
fn lines(agent: &Agent) -> usize {
    agent.journal().count(&["store"])
}

#[test]
fn rule_11_a_hundred_squatters_on_a_full_disk_are_told_once() -> Result<()> {
    const SQUATTERS: u8 = 100;
    let lab = Lab::new()?;
    let state = lab.small_state(4096)?;
    let config = lab.config()?.with("[quota]\naddresses_per_port = 200")?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let squatter = lab.sandbox("squatter")?;
    agent.await_port(&squatter)?;
    agent.allocate("first")?;
    // Room for a commit or two, and not for a hundred.
    let filler = fill(&state, 16 << 10)?;
    let before = lines(&agent);
    for host in 100..100 + SQUATTERS {
        squatter.announce(Ipv4Addr::new(10, 8, 64, host))?;
    }
    agent.journal().await_line(&["degraded", "store", "full"])?;
    // Some seconds of trying again.
    let tried = std::time::Instant::now();
    eventually("five seconds", || Ok((tried.elapsed().as_secs() >= 5).then_some(())))?;
    ensure!(agent.http("/readyz")?.status == 503);
    let told = lines(&agent) - before;
    ensure!(told <= 2, "{told} lines:\n{}", agent.journal().text());
    ensure!(agent.journal().count(&["recovered", "store"]) == 0, "its health flaps");
    ensure!(agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "no"])?.code != 0);

    std::fs::remove_file(&filler)?;
    agent.await_readyz(200)?;
    ensure!(agent.journal().count(&["recovered", "store"]) == 1);
    eventually("all squatters quarantined", || {
        let quarantined = agent.list(&["quarantine", "list"], "leases")?;
        Ok((quarantined.len() == usize::from(SQUATTERS)).then_some(()))
    })?;
    ensure!(lines(&agent) - before <= 4, "{}", agent.journal().text());
    agent.check()
}

/// Runs what follows as after a reboot: with another boot id, and the deadlines of all leases to
/// carry over.
fn rebooted(lab: &Lab) -> Result<Launch> {
    let id = lab.dir().join("boot_id");
    std::fs::write(&id, "11111111-2222-3333-4444-555555555555\n")?;
    let bind = format!(
        "mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$0\" \"$@\"",
        id.display()
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &bind];
    Ok(Launch::config(&lab.config()?)?.under(&wrapper).degraded())
}

#[test]
fn rule_11_a_disk_that_is_nearly_full_at_the_first_start_after_a_reboot_is_waited_for() -> Result<()>
{
    let lab = Lab::new()?;
    let state = lab.small_state(4096)?;
    let mut agent = lab.agent()?;
    let mut given = Vec::new();
    for n in 0..200 {
        given.push(agent.allocate(&format!("s{n}"))?);
    }
    agent.stop()?;
    let filler = fill(&state, 28 << 10)?;
    agent.start_again_with(rebooted(&lab)?)?;
    let body = agent.await_readyz(503)?;
    ensure!(body.contains("store"), "{body}");
    let refused = agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "b"])?.refusal()?;
    ensure!((&*refused.status, &*refused.reason) == ("UNAVAILABLE", "STORE_UNWRITABLE"));
    let tried = std::time::Instant::now();
    eventually("three seconds", || Ok((tried.elapsed().as_secs() >= 3).then_some(())))?;
    ensure!(agent.journal().count(&["store", "degraded"]) == 1, "{}", agent.journal().text());

    std::fs::remove_file(&filler)?;
    agent.await_readyz(200)?;
    for lease in &given {
        let entry = agent.entry(lease.address)?.context("a lease is lost")?;
        ensure!(entry["generation"] == lease.generation, "{entry}");
    }
    let next = agent.allocate("next")?;
    ensure!(given.iter().all(|lease| lease.generation < next.generation), "{next:?}");
    agent.check()
}
