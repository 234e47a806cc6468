//! As the `ipam` of Debian's `bridge`, on a real bridge.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use guard_tests::{Attachment, GATEWAY, Lab, Plugin, eventually};
use serde_json::{Value, json};

use crate::{VERSIONS, bridge, of};

/// How many containers come and go at once.
const CONTAINERS: usize = 25;

fn address(result: &Value) -> Result<String> {
    let address = result.pointer("/ips/0/address").and_then(Value::as_str);
    Ok(address.with_context(|| format!("no address in {result}"))?.to_owned())
}

#[test]
fn containers_come_and_go_in_parallel_twice_and_nothing_leaks() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let names: Vec<_> = (0..CONTAINERS).map(|number| format!("c{number}")).collect();
    for version in VERSIONS {
        let bridge = bridge(&lab, &agent, version)?;
        let live = |name: &String| -> Result<String> {
            let netns = lab.container(name)?;
            let path = netns.path();
            let attachment = Attachment::new(name, &path);
            let added = bridge.done("ADD", attachment)?;
            let address = address(&added)?;
            bridge.with("prevResult", added).done("CHECK", attachment)?;
            Ok(address)
        };
        let addresses = in_parallel(&names, live)?;
        assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), CONTAINERS, "{addresses:?}");
        for name in &names {
            let leases = of(&agent, name)?;
            let held: Vec<_> = leases.iter().filter(|(state, _)| state == "active").collect();
            assert_eq!(held.len(), 1, "{leases:?}");
            assert_eq!(
                (&held[0].1["key"], &held[0].1["lifecycle"]),
                (&json!("net/eth0"), &Value::Null)
            );
        }

        in_parallel(&names, |name| {
            let netns = Path::new("/run/netns").join(lab.container_name(name));
            let attachment = Attachment::new(name, &netns);
            bridge.done("DEL", attachment)?;
            bridge.done("DEL", attachment)
        })?;
        for name in &names {
            lab.remove_container(name)?;
            eventually(&format!("{name} has nothing"), || {
                let held = |state: &String| matches!(state.as_str(), "held" | "active");
                Ok((!of(&agent, name)?.iter().any(|(state, _)| held(state))).then_some(()))
            })?;
        }
    }
    agent.check()
}

#[test]
fn a_configuration_for_host_local_works_with_another_type() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let resolv_conf = lab.dir().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 10.8.64.1\nsearch a.test b.test\noptions ndots:2\n")?;
    let mut conf = json!({
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "bridge",
        "bridge": "rt0",
        "ipam": {
            "type": "host-local",
            "dataDir": lab.dir().join("host-local"),
            "ranges": [[{ "subnet": lab.prefix().trunc().to_string(), "gateway": GATEWAY }]],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "10.9.0.0/16", "gw": "10.8.64.3" }],
            "resolvConf": resolv_conf,
        },
    });
    let netns = lab.container("c")?.path();
    let theirs = Plugin::debian("host-local", None, conf.clone())?;
    let theirs = theirs.done("ADD", Attachment::new("c", &netns))?;

    conf["ipam"]["type"] = "guard-ipam".into();
    conf["ipam"]["socket"] = json!(agent.socket());
    let ours = Plugin::guard_ipam(None, conf)?.done("ADD", Attachment::new("c", &netns))?;
    assert_eq!(ours, theirs);
    Ok(())
}

fn in_parallel<T: Send>(
    names: &[String],
    work: impl Fn(&String) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(|| work(name))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
            .collect()
    })
}
