//! A port that is renamed is the same port: it is shown by the name that it has now, wherever it is shown.

use anyhow::{Context, Result, ensure};
use guard_tests::{Lab, POOL, eventually};
use serde_json::Value;

#[test]
fn two_ports_that_exchange_their_names_are_shown_each_where_it_is() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.json(&[
        "allocate",
        "--pool",
        POOL,
        "--sandbox",
        "owner",
        "--interface",
        owner.port(),
    ])?;
    let address = lease["address"].as_str().context("no address")?.to_owned();
    owner.announce(address.parse()?)?;
    thief.announce(address.parse()?)?;
    eventually("the conflict", || Ok(agent.list(&["conflicts"], "conflicts")?.first().map(drop)))?;

    let (was, other) = (owner.port(), thief.port());
    lab.host().ip(&format!(
        "link set {was} name guard-tmp0\nlink set {other} name {was}\n\
         link set guard-tmp0 name {other}"
    ))?;
    let (owners, thiefs) = (other, was);
    for restarted in [false, true] {
        if restarted {
            agent.stop()?;
            agent.start_again()?;
        }
        eventually("the lease with its port's new name", || {
            let leases = agent.list(&["leases"], "leases")?;
            Ok(leases.iter().any(|lease| lease["interface"] == owners).then_some(()))
        })?;
        let macs = [(&owner, owners), (&thief, thiefs)].map(|(of, port)| (of.mac(), port));
        for list in ["live", "leases"] {
            let rows = agent.list(&[list], list)?;
            let row = rows.iter().find(|row| row["address"] == address.as_str());
            let evidence = row.and_then(|row| row["evidence"].as_array()).context("no row")?;
            for (mac, port) in &macs {
                let of = |one: &&Value| one["mac"] == mac.to_string().as_str();
                let shown = evidence.iter().filter(of);
                for one in shown {
                    ensure!(one["interface"] == *port, "{list}, {restarted}: {one}");
                }
            }
        }
        let why = agent.json(&["why", &address])?;
        let shown = &why["explanations"][0]["lease"]["interface"];
        ensure!(shown == owners, "{restarted}: {why}");
        let conflicts = agent.list(&["conflicts"], "conflicts")?;
        for (mac, port) in &macs {
            let claimants = conflicts.iter().flat_map(|one| one["claimants"].as_array());
            let mut of = claimants.flatten().filter(|one| one["mac"] == mac.to_string().as_str());
            ensure!(of.all(|one| one["interface"] == *port), "{restarted}: {conflicts:?}");
        }
        let table = agent.ctl(&["leases"])?.stdout;
        ensure!(!table.contains(&thief.mac().to_string()), "an impostor's MAC: {table}");
        let table = agent.ctl(&["conflicts"])?.stdout;
        ensure!(table.contains(&format!("{}@{thiefs}", thief.mac())), "{restarted}: {table}");
    }
    Ok(())
}
