//! Behind `bridge`: the veth that it made is bound, so that the impostor is named at once.

use anyhow::{Context, Result};
use guard_tests::{Arp, Attachment, Lab, Plugin, eventually};
use serde_json::{Value, json};

use crate::{bridge, chained, network, of};

#[test]
fn the_veth_is_bound_and_another_claimant_is_a_conflict_at_its_first_frame() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let netns = lab.container("c")?.path();
    let attachment = Attachment::new("c", &netns);
    let added = bridge(&lab, &agent, "1.0.0")?.done("ADD", attachment)?;

    let chained = chained(&agent, "1.0.0", &added)?;
    assert_eq!(chained.done("ADD", attachment)?, added, "the result is passed on");
    chained.done("CHECK", attachment)?;

    let (_, lease) = of(&agent, "c")?.pop().context("no lease")?;
    let interfaces = added["interfaces"].as_array().context("interfaces")?;
    let inside = interfaces.iter().find(|i| i["name"] == "eth0").context("eth0")?;
    assert_eq!((&lease["binding"], &lease["mac"]), (&json!("declared"), &inside["mac"]));
    assert!(interfaces.iter().any(|i| i["name"] == lease["interface"]), "{lease}");

    let impostor = lab.sandbox("impostor")?;
    agent.await_port(&impostor)?;
    let address = lease["address"].as_str().context("an address")?.parse()?;
    impostor.raw_socket()?.send(&Arp::announcement(impostor.mac(), address).frame())?;
    let conflict = eventually("a conflict", || Ok(agent.list(&["conflicts"], "conflicts")?.pop()))?;
    assert_eq!((&conflict["kind"], &conflict["address"]), (&json!("duplicate"), &lease["address"]));
    let owner = |claimant: &&Value| claimant["role"] == "owner";
    let owner = conflict["claimants"].as_array().and_then(|all| all.iter().find(owner));
    assert_eq!(owner.context("no owner")?["sandbox"], "c");

    // What it bound is the allocator's to release, and a foreign veth is noticed by CHECK.
    assert_eq!(chained.done("DEL", attachment)?, Value::Null);
    assert_eq!(of(&agent, "c")?[0].0, "active");
    let mut moved = added;
    for interface in moved["interfaces"].as_array_mut().context("interfaces")? {
        if interface["name"] == "eth0" {
            interface["mac"] = "02:00:00:00:00:77".into();
        }
    }
    let refused = chained.with("prevResult", moved).call("CHECK", attachment)?;
    assert_eq!(refused.err().context("CHECK passed")?.code, 101);
    Ok(())
}

#[test]
fn without_lease_or_result_there_is_nothing_to_bind() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let netns = lab.container("c")?.path();
    let conf = network(&agent, "1.0.0", "guard-ipam");
    let previous = json!({ "cniVersion": "1.0.0", "interfaces": [] });
    let chained = Plugin::guard_ipam(None, conf)?.with("prevResult", previous);
    let refused = chained.call("ADD", Attachment::new("c", &netns))?.err().context("it passed")?;
    assert!(refused.code == 102 && refused.text.contains("no lease"), "{refused:?}");
    Ok(())
}
