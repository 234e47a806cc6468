//! Part 3: somebody takes an address without asking.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use guard_tests::{Agent, Lab, POOL, names};

use crate::{
    Measured, note_hand_out,
    release::{Admitted, Sandboxes, admit},
    screen::Screen,
};

/// Lets a squatter in, and hands out whatever else there is. Returns the sandbox that got the
/// first of it.
pub(crate) fn take_free_address(
    screen: &mut Screen,
    measured: &mut Measured,
    lab: &Lab,
    agent: &Agent,
    sandboxes: &Sandboxes,
) -> Result<Admitted> {
    let squatter = lab.sandbox("squatter")?;
    let taken = free_address(lab, agent)?;
    let events = agent.follow(&["events", "--from", "0"])?;
    agent.await_port(&squatter)?;
    squatter.add_address(taken)?;
    squatter.announce(taken)?;
    screen.step("squatter", &format!("takes {taken}, behind {}", squatter.port()));

    let address = taken.to_string();
    events.next(|event| {
        event["type"] == "lease.quarantined" && event["lease"]["address"] == address.as_str()
    })?;
    let entry = agent.entry(taken)?.with_context(|| format!("{taken} is not listed"))?;
    let (mac, port) = (squatter.mac(), squatter.port());
    ensure!(names(&entry, mac, port), "neither {mac} nor {port} is in {entry}");
    let quarantined = agent.list(&["leases", "--state", "quarantined"], "leases")?;
    measured.quarantined = u64::try_from(quarantined.len()).context("the number of entries")?;
    let shown = agent.ctl_in_columns(screen.columns(), &["leases", "--state", "quarantined"])?;
    screen.quote("guardctl leases --state quarantined", shown.stdout.trim_end());

    let in_use = [sandboxes.alpha.lease.address, sandboxes.beta.lease.address, taken];
    let gamma = admit(screen, measured, lab, agent, "gamma", &in_use)?;
    let capacity = lab.prefix().hosts().count();
    let mut handed_out = vec![gamma.lease.address];
    for number in 0..capacity {
        let name = format!("more-{number}");
        let refused = agent.ctl(&["allocate", "--pool", POOL, "--sandbox", &name, "-o", "json"])?;
        if refused.code != 0 {
            let refusal = refused.refusal()?;
            ensure!(refusal.reason == "NO_CONFLICT_FREE_ADDRESS", "{refusal:?}");
            let list = handed_out.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ");
            screen.step("guard", &format!("hands out the rest, {list}, and then refuses:"));
            screen.quote(
                &format!("guardctl allocate --pool {POOL} --sandbox {name}"),
                refused.stderr.trim_end(),
            );
            screen.good(&format!("{taken} was never handed out: {mac} on {port} has it"));
            return Ok(gamma);
        }
        // The same asker gets the same lease: this reads what the call above handed out.
        handed_out.push(note_hand_out(measured, agent, &name, &in_use)?.address);
    }
    bail!("{capacity} addresses were handed out, of fewer")
}

/// The first address of the pool that is nobody's.
fn free_address(lab: &Lab, agent: &Agent) -> Result<Ipv4Addr> {
    for address in lab.prefix().hosts() {
        if address != guard_tests::GATEWAY && agent.entry(address)?.is_none() {
            return Ok(address);
        }
    }
    bail!("the pool has no free address")
}
