//! GC: what containers had whose DEL never came.

use std::path::Path;

use anyhow::{Context, Result};
use guard_tests::{Agent, Arp, Attachment, Lab, Launch, Plugin, eventually};
use serde_json::{Value, json};

use crate::{chained, ipam, network, of};

/// Nobody in particular: GC and STATUS concern no container.
fn nobody<'a>() -> Attachment<'a> {
    Attachment::new("", Path::new(""))
}

fn gc(plugin: &Plugin, valid: &[&str]) -> Result<Result<Value, guard_tests::Refused>> {
    let valid: Vec<_> =
        valid.iter().map(|id| json!({ "containerID": id, "ifname": "eth0" })).collect();
    plugin.with("cni.dev/valid-attachments", valid.into()).call("GC", nobody())
}

#[test]
fn gc_frees_what_is_gone_and_says_what_is_in_use_against_its_list() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let ipam = ipam(&agent, "1.1.0")?;
    let sandbox = lab.sandbox("live")?;
    agent.await_port(&sandbox)?;
    let add = |id: &str| -> Result<std::net::Ipv4Addr> {
        let netns = sandbox.netns().path();
        let added = ipam.done("ADD", Attachment::new(id, &netns))?;
        let address = added.pointer("/ips/0/address").and_then(Value::as_str);
        let address = address.and_then(|a| a.split('/').next()).context("no address")?;
        Ok(address.parse()?)
    };
    let live = add("live")?;
    for id in ["kept", "gone", "other"] {
        add(id)?;
    }
    sandbox.raw_socket()?.send(&Arp::announcement(sandbox.mac(), live).frame())?;
    eventually("evidence", || {
        let (_, lease) = of(&agent, "live")?.pop().context("no lease")?;
        Ok((!lease["evidence"].as_array().is_none_or(Vec::is_empty)).then_some(()))
    })?;
    let active =
        |id: &str| -> Result<bool> { Ok(of(&agent, id)?.iter().any(|(s, _)| s == "active")) };

    // Another network's GC, and one without a list.
    let other = ipam.with("name", "other".into());
    assert_eq!(gc(&other, &[])?, Ok(Value::Null));
    let without = ipam.call("GC", nobody())?;
    assert_eq!(without.err().context("GC passed")?.code, 7);
    assert!(active("gone")? && active("other")?);

    // What it can, and then it says what it could not.
    let refused = gc(&ipam, &["kept"])?.err().context("GC passed")?;
    assert_eq!(refused.code, 103, "{refused:?}");
    for word in ["live", &live.to_string(), &sandbox.mac().to_string(), sandbox.port()] {
        assert!(refused.text.contains(word), "{word}: {refused:?}");
    }
    assert!(active("live")?, "it was released by a list that is wrong");
    assert!(active("kept")?);
    assert!(!active("gone")? && !active("other")?);

    assert_eq!(gc(&ipam, &["kept", "live"])?, Ok(Value::Null));
    assert!(active("live")? && active("kept")?);
    assert_eq!(gc(&ipam, &["kept", "live"])?, Ok(Value::Null), "again");
    agent.check()
}

#[test]
fn gc_and_status_work_for_a_chained_plugin_too() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let netns = lab.container("c")?.path();
    ipam(&agent, "1.1.0")?.done("ADD", Attachment::new("c", &netns))?;
    let chained = chained(&agent, "1.1.0", &Value::Null)?;
    chained.done("STATUS", nobody())?;
    assert_eq!(gc(&chained, &[])?, Ok(Value::Null));
    assert!(!of(&agent, "c")?.iter().any(|(state, _)| state == "active"));
    Ok(())
}

fn state(agent: &Agent, container: &str) -> Result<Vec<String>> {
    Ok(of(agent, container)?.into_iter().map(|(state, _)| state).collect())
}

#[test]
fn gc_keeps_what_a_port_or_a_container_speaks_for() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let second = "[[pool]]\nname = \"other\"\nbridge = \"rt0\"\nprefix = \"10.9.0.0/24\"";
    let config = lab.config()?.with_containerd(&containerd)?.text()? + second;
    let agent = lab.agent_with(Launch::text(&config))?;
    let ipam = ipam(&agent, "1.1.0")?;
    let netns = Path::new("/proc/self/ns/net");
    let add = |id: &str| ipam.done("ADD", Attachment::new(id, netns));
    for id in ["port", "container", "gone", "gone-too"] {
        add(id)?;
    }
    // Bound, without a frame.
    let bound = lab.sandbox("bound")?;
    let generation = of(&agent, "port")?[0].1["generation"].to_string();
    agent.json(&["bind", "--generation", &generation, "--interface", bound.port()])?;
    // Listed, without an interface.
    containerd.run_in("container", None, &[])?;
    // Two addresses, of which one is silent.
    let speaks = lab.sandbox("speaks")?;
    agent.await_port(&speaks)?;
    let mut conf = network(&agent, "1.1.0", "bridge");
    conf["ipam"]["pools"] = json!(["other"]);
    let both = Plugin::guard_ipam(None, conf)?.done("ADD", Attachment::new("both", netns))?;
    let address =
        both.pointer("/ips/1/address").and_then(Value::as_str).context("two addresses")?;
    let address = address.trim_end_matches("/24");
    speaks.announce(address.parse()?)?;
    eventually("what speaks for each", || {
        let live = |id| -> Result<bool> {
            let has = |(_, lease): &(String, Value)| lease["evidence"] != json!([]);
            Ok(of(&agent, id)?.iter().any(has))
        };
        Ok((live("port")? && live("container")? && live("both")?).then_some(()))
    })?;

    let refused = gc(&ipam, &[])?.err().context("GC passed")?;
    assert_eq!(refused.code, 103, "{refused:?}");
    for word in ["4 not done", "port keeps", bound.port(), "container keeps", "both keeps", address]
    {
        assert!(refused.text.contains(word), "{word}: {refused:?}");
    }
    for id in ["port", "container"] {
        assert_eq!(state(&agent, id)?, ["active"], "{id}");
    }
    assert_eq!(state(&agent, "both")?, ["active", "active"]);
    for id in ["gone", "gone-too"] {
        assert_eq!(state(&agent, id)?, ["cooling"], "{id}");
    }

    // An empty list as Go writes it, under the name that the specification's text has.
    add("late")?;
    let null = ipam.with("cni.dev/attachments", Value::Null).call("GC", nobody())?;
    assert_eq!(null.err().context("GC passed")?.code, 103);
    assert_eq!(state(&agent, "late")?, ["cooling"]);
    agent.check()
}

#[test]
fn gc_releases_nothing_while_not_all_is_known() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let config = Launch::config(&lab.config()?.with_containerd(&containerd)?)?;
    let mut agent = lab.agent_with(config)?;
    let ipam = ipam(&agent, "1.1.0")?;
    for id in ["silent", "gone"] {
        ipam.done("ADD", Attachment::new(id, Path::new("/proc/self/ns/net")))?;
    }
    containerd.run_in("silent", None, &[])?;
    agent.kill()?;
    containerd.freeze()?;
    agent.start_again_degraded()?;
    // What lists the one container has not said anything yet.
    let refused = gc(&ipam, &[])?.err().context("GC passed")?;
    assert_eq!(refused.code, 11, "{refused:?}");
    for id in ["silent", "gone"] {
        assert_eq!(state(&agent, id)?, ["active"], "{id}");
    }
    containerd.thaw()?;
    let refused = gc(&ipam, &[])?.err().context("GC passed")?;
    assert!(refused.code == 103 && refused.text.contains("silent keeps"), "{refused:?}");
    assert_eq!(state(&agent, "silent")?, ["active"]);
    assert_eq!(state(&agent, "gone")?, ["cooling"]);
    agent.check()
}
