//! The configuration that a network had with `host-local`, and what becomes of its containers.

use std::path::Path;

use anyhow::Result;
use guard_tests::{Agent, Attachment, BRIDGE, GATEWAY, Lab, Launch, Plugin, eventually};
use serde_json::{Value, json};

use crate::{VERSIONS, of};

/// The whole configuration of a network with this `ipam`, for `host-local`.
fn network(lab: &Lab, version: &str, mut ipam: Value) -> Value {
    ipam["type"] = "host-local".into();
    ipam["dataDir"] = json!(lab.dir().join(format!("host-local-{version}")));
    json!({
        "cniVersion": version,
        "name": "net",
        "type": "bridge",
        "bridge": BRIDGE,
        "ipam": ipam,
    })
}

/// The same with another `type`, and the socket of the lab.
fn ours(agent: &Agent, mut conf: Value) -> Value {
    conf["ipam"]["type"] = "guard-ipam".into();
    conf["ipam"]["socket"] = json!(agent.socket());
    conf
}

#[test]
fn a_configuration_for_host_local_works_with_another_type() -> Result<()> {
    let lab = Lab::new()?;
    let resolv_conf = lab.dir().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 10.8.64.1\nsearch a.test b.test\noptions ndots:2\n")?;
    let four = lab.prefix().trunc().to_string();
    let six = "fd00:8::/64";
    let pieces = "exclude = [\"10.9.0.2-10.9.0.49\", \"10.9.0.61-10.9.0.254\"]";
    let agent = lab.agent_with(Launch::text(&format!(
        "{}\n[[pool]]\nname = \"six\"\nbridge = \"rt0\"\nprefix = \"{six}\"\n\
         [[pool]]\nname = \"piece\"\nbridge = \"rt0\"\nprefix = \"10.9.0.0/24\"\n{pieces}\n",
        lab.config()?.text()?
    )))?;
    let routes = json!([{ "dst": "0.0.0.0/0" }, { "dst": "10.9.0.0/16", "gw": "10.8.64.3" }]);
    let of_six = json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]);
    let range =
        json!({ "subnet": "10.9.0.0/24", "rangeStart": "10.9.0.50", "rangeEnd": "10.9.0.60" });
    let ways = [
        (
            "all of it",
            json!({
                "ranges": [[{ "subnet": four, "gateway": GATEWAY }]], "routes": routes,
                "resolvConf": resolv_conf,
            }),
        ),
        (
            "one range, as of old",
            json!({
                "subnet": "10.9.0.0/24", "rangeStart": "10.9.0.50", "rangeEnd": "10.9.0.60",
                "gateway": "10.9.0.1",
            }),
        ),
        ("no gateway", json!({ "ranges": [[{ "subnet": four }]] })),
        (
            "two families",
            json!({ "ranges": [[{ "subnet": four }], [{ "subnet": six }]], "routes": of_six }),
        ),
        ("a piece", json!({ "ranges": [[range]] })),
    ];
    let netns = lab.container("c")?.path();
    let (mut number, mut given) = (0, 0);
    for version in VERSIONS {
        for (way, ipam) in &ways {
            number += 1;
            let conf = network(&lab, version, ipam.clone());
            let theirs = Plugin::debian("host-local", None, conf.clone())?;
            let plugin = Plugin::guard_ipam(None, ours(&agent, conf))?;
            let certain = [
                String::new(),
                format!("IP=10.8.64.{}", 100 + number),
                format!("IP=10.9.0.{}", 50 + number),
                "IP=10.7.0.1".to_owned(),
            ];
            for args in &certain {
                let id = format!("c{number}{}", args.replace('=', "-"));
                let attachment = Attachment { args, ..Attachment::new(&id, &netns) };
                let case = format!("{version}, {way}, {args:?}");
                let theirs_added = theirs.call("ADD", attachment)?;
                let added = plugin.call("ADD", attachment)?;
                // What the one refuses, the other refuses too.
                assert_eq!(
                    added.is_ok(),
                    theirs_added.is_ok(),
                    "{case}: {theirs_added:?} {added:?}"
                );
                if let (Ok(added), Ok(theirs_added)) = (added, theirs_added) {
                    given += 1;
                    assert_eq!(shape(&added), shape(&theirs_added), "{case}");
                    let address = args.trim_start_matches("IP=");
                    assert!(added["ips"].to_string().contains(address), "{case}: {added}");
                    plugin.with("prevResult", added).done("CHECK", attachment)?;
                }
                plugin.done("DEL", attachment)?;
                theirs.done("DEL", attachment)?;
            }
        }
    }
    // Any address, and the one that the way has.
    assert_eq!(given, 2 * number);
    let left = agent.list(&["leases"], "leases")?;
    assert!(left.iter().all(|lease| lease["state"] == "cooling"), "{left:?}");
    agent.check()
}

/// A result without the addresses: those that were used rest here, and there they do not.
fn shape(result: &Value) -> Value {
    let mut result = result.clone();
    for ip in result["ips"].as_array_mut().into_iter().flatten() {
        let length = ip["address"].as_str().and_then(|address| address.split('/').nth(1));
        ip["address"] = json!(length);
    }
    result
}

#[test]
fn containers_of_host_local_become_leases_that_del_and_gc_find() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let conf = network(&lab, "1.0.0", json!({ "ranges": [[{ "subnet": lab.prefix().trunc() }]] }));
    let theirs = Plugin::debian("bridge", Some(lab.host()), conf.clone())?;
    let netns = |id: &str| Path::new("/run/netns").join(lab.container_name(id));
    let ids = ["stays", "goes", "gone"];
    let mut results = Vec::new();
    for id in ids {
        let path = lab.container(id)?.path();
        results.push(theirs.done("ADD", Attachment::new(id, &path))?);
    }
    let dir = lab.dir().join("host-local-1.0.0/net");
    let adopted = agent.json(&["adopt", "--from-host-local", &dir.to_string_lossy()])?;
    assert_eq!(adopted["refused"], json!([]));
    let active = |id: &str| -> Result<bool> {
        let leases = of(&agent, id)?;
        assert_eq!(leases.len(), 1, "{leases:?}");
        Ok(leases[0].0 == "active")
    };

    let plugin =
        Plugin::debian("bridge", Some(lab.host()), ours(&agent, conf.clone()))?.beside_ours()?;
    for (id, result) in ids.iter().zip(&results) {
        let path = netns(id);
        plugin.with("prevResult", result.clone()).done("CHECK", Attachment::new(id, &path))?;
    }
    plugin.done("DEL", Attachment::new("goes", &netns("goes")))?;
    eventually("its end", || Ok((!active("goes")?).then_some(())))?;
    lab.remove_container("gone")?;
    let nobody = Attachment::new("", Path::new(""));
    let valid = json!([{ "containerID": "stays", "ifname": "eth0" }]);
    let mut gc = ours(&agent, conf);
    gc["cniVersion"] = "1.1.0".into();
    let gc = Plugin::guard_ipam(None, gc)?.with("cni.dev/valid-attachments", valid);
    eventually("GC", || Ok(gc.call("GC", nobody)?.ok()))?;
    assert!(active("stays")? && !active("gone")?);
    agent.check()
}
