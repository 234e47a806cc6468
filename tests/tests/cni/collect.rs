//! GC: what containers had whose DEL never came.

use anyhow::{Context, Result};
use guard_tests::{Arp, Attachment, Lab, Plugin};
use serde_json::{Value, json};

use crate::{ipam, network, of};

fn gc(plugin: &Plugin, valid: &[&str]) -> Result<Result<Value, guard_tests::Refused>> {
    let valid: Vec<_> =
        valid.iter().map(|id| json!({ "containerID": id, "ifname": "eth0" })).collect();
    let nobody = Attachment::new("", std::path::Path::new(""));
    plugin.with("cni.dev/valid-attachments", valid.into()).call("GC", nobody)
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
    guard_tests::eventually("evidence", || {
        let (_, lease) = of(&agent, "live")?.pop().context("no lease")?;
        Ok((!lease["evidence"].as_array().is_none_or(Vec::is_empty)).then_some(()))
    })?;
    let active =
        |id: &str| -> Result<bool> { Ok(of(&agent, id)?.iter().any(|(s, _)| s == "active")) };

    // Another network's GC, and one without a list.
    let other = ipam.with("name", "other".into());
    assert_eq!(gc(&other, &[])?, Ok(Value::Null));
    let without = ipam.call("GC", Attachment::new("", std::path::Path::new("")))?;
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
    let mut conf = network(&agent, "1.1.0", "guard-ipam");
    conf["socket"] = json!(agent.socket());
    conf.as_object_mut().context("an object")?.remove("ipam");
    let chained = Plugin::guard_ipam(None, conf)?;
    chained.done("STATUS", Attachment::new("", std::path::Path::new("")))?;
    assert_eq!(gc(&chained, &[])?, Ok(Value::Null));
    assert!(!of(&agent, "c")?.iter().any(|(state, _)| state == "active"));
    Ok(())
}
