//! Called directly: wishes, dual stack, an agent that restarts or is not there, and garbage.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, Attachment, Lab, Launch, POOL, Plugin, eventually};
use serde_json::{Value, json};

use crate::{ipam, network, of};

const NOBODY: &str = "/proc/self/ns/net";

fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| ip["address"].as_str()).map(str::to_owned).collect()
}

#[test]
fn an_address_may_be_asked_for_in_three_ways() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let plugin = ipam(&agent, "1.1.0")?;
    let netns = Path::new(NOBODY);
    let with_args =
        Attachment { args: "IP=10.8.64.20;K8S_POD_NAME=web-0", ..Attachment::new("a", netns) };
    assert_eq!(addresses(&plugin.done("ADD", with_args)?), ["10.8.64.20/24"]);
    assert_eq!(of(&agent, "a")?.len(), 1);
    let wish = json!({ "cni": { "ips": ["10.8.64.21/24"] } });
    let added = plugin.with("args", wish).done("ADD", Attachment::new("b", netns))?;
    assert_eq!(addresses(&added), ["10.8.64.21/24"]);
    let wish = json!({ "ips": ["10.8.64.22"] });
    let added = plugin.with("runtimeConfig", wish).done("ADD", Attachment::new("c", netns))?;
    assert_eq!(addresses(&added), ["10.8.64.22/24"]);

    for (args, code, word) in [
        ("IP=10.8.64.20", 100, "ADDRESS_HELD"),
        ("IP=10.99.0.1", 7, "no pool has it"),
        ("IP=here", 7, "is none"),
        ("IP=10.8.64.30,10.8.64.31", 7, "gives one"),
        ("IP=10.8.64.1", 100, "ADDRESS_RESERVED"),
    ] {
        let refused = plugin.call("ADD", Attachment { args, ..Attachment::new("d", netns) })?;
        let refused = refused.err().with_context(|| format!("{args} passed"))?;
        assert!(refused.code == code && refused.text.contains(word), "{args}: {refused:?}");
    }
    assert_eq!(of(&agent, "d")?.len(), 0);
    // Asked again: the same address, also without the wish.
    assert_eq!(addresses(&plugin.done("ADD", Attachment::new("a", netns))?), ["10.8.64.20/24"]);
    agent.check()
}

#[test]
fn dual_stack_from_several_ranges_is_all_or_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let second = "[[pool]]\nname = \"six\"\nbridge = \"rt0\"\nprefix = \"fd00:8::/64\"";
    let config = lab.config()?.text()? + second;
    let agent = lab.agent_with(Launch::text(&config))?;
    let mut conf = network(&agent, "0.4.0", "bridge");
    let ipam = conf["ipam"].as_object_mut().context("ipam")?;
    ipam.remove("pool");
    ipam.insert(
        "ranges".into(),
        // Of the first set, this agent has a pool for the second range.
        json!([
            [{ "subnet": "10.9.0.0/24" }, { "subnet": "10.8.64.0/24" }],
            [{ "subnet": "fd00:8::/64" }],
        ]),
    );
    let plugin = Plugin::guard_ipam(None, conf)?;
    let netns = Path::new(NOBODY);
    let added = plugin.done("ADD", Attachment::new("a", netns))?;
    assert_eq!(added["ips"][0]["version"], "4");
    assert_eq!(added["ips"][1]["version"], "6");
    assert_eq!(of(&agent, "a")?.len(), 2);
    plugin.with("prevResult", added).done("CHECK", Attachment::new("a", netns))?;

    let wishes = json!({ "ips": ["10.8.64.9", "fd00:8::1"] });
    let refused = plugin.with("runtimeConfig", wishes).call("ADD", Attachment::new("b", netns))?;
    let refused = refused.err().context("the gateway was given")?;
    assert!(refused.text.contains("ADDRESS_RESERVED"), "{refused:?}");
    let left = of(&agent, "b")?;
    assert!(left.iter().all(|(state, _)| state == "cooling"), "{left:?}");
    let wishes = json!({ "ips": ["10.8.64.10", "fd00:8::10"] });
    let added = plugin.with("runtimeConfig", wishes).done("ADD", Attachment::new("b", netns))?;
    assert_eq!(addresses(&added), ["10.8.64.10/24", "fd00:8::10/64"]);
    plugin.done("DEL", Attachment::new("b", netns))?;
    let left = of(&agent, "b")?;
    assert!(left.iter().all(|(state, _)| state == "cooling"), "{left:?}");
    Ok(())
}

/// A dual stack, whose IPv4 network is two pieces of its pool.
fn pieces(lab: &Lab) -> Result<(Agent, Plugin)> {
    let second = "[[pool]]\nname = \"six\"\nbridge = \"rt0\"\nprefix = \"fd00:8::/64\"";
    let config = lab.config()?.text()? + second;
    let agent = lab.agent_with(Launch::text(&config))?;
    let mut conf = network(&agent, "1.0.0", "bridge");
    let piece = |from, to| json!({ "subnet": "10.8.64.0/24", "rangeStart": from, "rangeEnd": to });
    conf["ipam"]["ranges"] = json!([
        [piece("10.8.64.20", "10.8.64.60"), piece("10.8.64.100", "10.8.64.120")],
        [{ "subnet": "fd00:8::/64" }],
    ]);
    conf["ipam"]["pool"] = Value::Null;
    let plugin = Plugin::guard_ipam(None, conf)?;
    Ok((agent, plugin))
}

#[test]
fn a_wish_that_cannot_be_had_is_refused_and_changes_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let (agent, plugin) = pieces(&lab)?;
    let call = |container, args, key: &str, value: Value| {
        let netns = Path::new(NOBODY);
        plugin
            .with(key, value)
            .call("ADD", Attachment { args, ..Attachment::new(container, netns) })
    };
    let (args, runtime) = ("args", "runtimeConfig");
    let cni = |ips: Value| json!({ "cni": { "ips": ips } });
    // The same address from everywhere is one wish, and a list that is none is no wish.
    let taken = ["10.8.64.100", "fd00:8::10"];
    let ips = json!({ "ips": taken });
    let added = call("a", "IP=10.8.64.100/24;IP6=x", runtime, ips)?;
    let added = added.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    assert_eq!(addresses(&added), ["10.8.64.100/24", "fd00:8::10/64"]);
    let before = agent.list(&["leases"], "leases")?;
    for (variable, key, value, code, word) in [
        ("IP=10.8.64.100", args, json!({}), 100, "ADDRESS_HELD"),
        ("IP=fd00:8::10", args, json!({}), 7, "rangeStart"),
        ("IP=fd00:8::", args, json!({}), 7, "rangeStart"),
        ("IP=10.8.64.100,fd00:8::11", args, json!({}), 100, "ADDRESS_HELD"),
        ("IP=10.8.64.99", args, json!({}), 7, "rangeStart"),
        ("IP=10.8.64.0/24", args, json!({}), 7, "rangeStart"),
        ("IP=10.8.65.30", args, json!({}), 7, "no pool has it"),
        ("IP=fd00:9::1", args, json!({}), 7, "no pool has it"),
        ("IP=::ffff:10.8.64.30", args, json!({}), 7, "no pool has it"),
        ("IP=10.8.64.30/33", args, json!({}), 7, "is none"),
        ("IP=10.8.64.30/", args, json!({}), 7, "is none"),
        ("IP=010.8.64.30", args, json!({}), 7, "is none"),
        ("IP=fd00:8::11,fd00:8::12", args, json!({}), 7, "gives one"),
        ("IP=10.8.64.30", runtime, json!({ "ips": ["10.8.64.31"] }), 7, "gives one"),
        ("IP=10.8.64.30", args, cni(json!(["10.8.64.100"])), 7, "gives one"),
        ("IP", args, json!({}), 4, "KEY=value"),
        ("", args, cni(json!("10.8.64.30")), 6, "sequence"),
        ("", args, cni(json!([7])), 6, "string"),
        ("", args, json!("x"), 6, "string"),
        ("", runtime, json!({ "ips": [""] }), 7, "is none"),
        ("", runtime, json!({ "ips": { "10.8.64.30": 1 } }), 6, "sequence"),
        ("", runtime, json!({ "ips": ["10.8.64.30", "10.8.64.101"] }), 7, "gives one"),
    ] {
        let case = format!("{variable:?} {key} {value}");
        let refused = call("b", variable, key, value)?.err();
        let refused = refused.with_context(|| format!("it passed: {case}"))?;
        assert!(refused.code == code && refused.text.contains(word), "{case}: {refused:?}");
        assert_eq!(agent.list(&["leases"], "leases")?, before, "{case}");
    }
    agent.check()
}

#[test]
fn null_is_as_good_as_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    // As a Go program writes a list without anything in it.
    let mut conf = network(&agent, "1.0.0", "bridge");
    for key in ["pools", "ranges", "routes", "resolvConf", "subnet"] {
        conf["ipam"][key] = Value::Null;
    }
    conf["args"] = json!({ "cni": { "ips": null } });
    conf["runtimeConfig"] = Value::Null;
    let plugin = Plugin::guard_ipam(None, conf)?;
    let nobody = Attachment { args: "IP=", ..Attachment::new("a", Path::new(NOBODY)) };
    assert_eq!(addresses(&plugin.done("ADD", nobody)?).len(), 1);
    let args = plugin.with("args", Value::Null);
    assert_eq!(addresses(&args.done("ADD", nobody)?).len(), 1);
    Ok(())
}

#[test]
fn del_of_what_is_still_in_use_may_be_repeated_and_leaves_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let plugin = ipam(&agent, "1.0.0")?;
    let sandbox = lab.sandbox("c")?;
    agent.await_port(&sandbox)?;
    let netns = sandbox.netns().path();
    let c = Attachment::new("c", &netns);
    let address = |added: &Value| -> Result<std::net::Ipv4Addr> {
        let address = addresses(added).pop().context("no address")?;
        Ok(address.trim_end_matches("/24").parse()?)
    };
    let first = address(&plugin.done("ADD", c)?)?;
    sandbox.announce(first)?;
    eventually("evidence", || {
        let (_, lease) = of(&agent, "c")?.pop().context("no lease")?;
        Ok((!lease["evidence"].as_array().is_none_or(Vec::is_empty)).then_some(()))
    })?;
    let state = || -> Result<Vec<String>> {
        Ok(of(&agent, "c")?.into_iter().map(|(state, _)| state).collect())
    };
    plugin.done("DEL", c)?;
    let releasing = of(&agent, "c")?.pop().context("no lease")?;
    assert_eq!(releasing.0, "releasing");
    plugin.done("DEL", c)?;
    let again = of(&agent, "c")?.pop().context("no lease")?;
    assert_eq!(again.1["updated_at"], releasing.1["updated_at"], "a DEL that had nothing to do");
    // The same container comes again before its first address is free, and goes, and goes.
    let second = address(&plugin.done("ADD", c)?)?;
    assert_ne!(second, first);
    plugin.done("DEL", c)?;
    plugin.done("DEL", c)?;
    let mut left = state()?;
    left.sort();
    assert_eq!(left, ["cooling", "releasing"]);
    sandbox.delete()?;
    eventually("the end of both", || Ok((state()? == ["cooling", "cooling"]).then_some(())))?;
    agent.check()
}

#[test]
fn garbage_is_refused_clearly_and_changes_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let plugin = ipam(&agent, "1.0.0")?;
    let a = Attachment::new("a", Path::new(NOBODY));
    let socket = agent.socket();
    let with_ipam = |ipam: Value| {
        let mut conf = network(&agent, "1.0.0", "bridge");
        conf["ipam"] = ipam;
        conf["ipam"]["socket"] = json!(socket);
        conf.to_string()
    };
    let deep = "[".repeat(100_000);
    for (conf, code, word) in [
        (String::new(), 6, "EOF"),
        ("{".to_owned(), 6, "EOF"),
        (deep, 6, "recursion"),
        ("[]".to_owned(), 6, "length"),
        (r#"{"cniVersion":"9.9.9"}"#.to_owned(), 1, "9.9.9"),
        (r#"{"cniVersion":"1.0.0"}"#.to_owned(), 6, "name"),
        (r#"{"cniVersion":"1.0.0","name":"a b","type":"guard-ipam"}"#.to_owned(), 7, "network"),
        (r#"{"cniVersion":"1.0.0","name":"n","type":"bridge"}"#.to_owned(), 7, "guard-ipam"),
        (r#"{"cniVersion":"1.0.0","name":"n","type":"guard-ipam"}"#.to_owned(), 102, "prevResult"),
        (with_ipam(json!({ "type": "guard-ipam" })), 7, "no \"pool\""),
        (with_ipam(json!({ "type": "guard-ipam", "pool": 7 })), 6, "string"),
        (with_ipam(json!({ "type": "guard-ipam", "pool": "nowhere" })), 100, "POOL_UNKNOWN"),
        (with_ipam(json!({ "type": "guard-ipam", "subnet": "10.1.0.0/16" })), 7, "10.1.0.0/16"),
        (with_ipam(json!({ "type": "guard-ipam", "subnet": "ten" })), 6, "invalid"),
        (
            with_ipam(
                json!({ "type": "guard-ipam", "subnet": "10.8.64.0/24", "rangeStart": "10.8.64.100" }),
            ),
            7,
            "rangeStart",
        ),
        (
            with_ipam(
                json!({ "type": "guard-ipam", "subnet": "10.8.64.0/24", "gateway": "10.8.64.9" }),
            ),
            7,
            "gateway",
        ),
        (
            with_ipam(json!({ "type": "guard-ipam", "pool": POOL, "resolvConf": "/nowhere" })),
            7,
            "/nowhere",
        ),
    ] {
        let refused = plugin.call_with(&conf, "ADD", a)?.err();
        let refused = refused.with_context(|| format!("it passed: {conf:.80}"))?;
        assert!(refused.code == code && refused.text.contains(word), "{conf:.80}: {refused:?}");
    }
    for (command, code) in [("", 4), ("add", 4), ("PRUNE", 4)] {
        let refused = plugin.call(command, a)?.err().with_context(|| command.to_owned())?;
        assert_eq!(refused.code, code, "{refused:?}");
    }
    let refused = plugin.call("ADD", Attachment::new("../a", Path::new(NOBODY)))?;
    assert_eq!(refused.err().context("a path for an id")?.code, 4);
    let refused = plugin.call("CHECK", a)?.err().context("CHECK without a result")?;
    assert_eq!(refused.code, 7);
    let held = agent.list(&["leases"], "leases")?;
    assert!(held.iter().all(|lease| lease["state"] == "cooling"), "{held:?}");
    agent.check()
}

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[test]
fn a_version_that_is_not_spoken_is_refused_with_those_that_are() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let c = Attachment::new("c", Path::new(NOBODY));
    let plugin = ipam(&agent, "0.4.0")?.with("cniVersion", json!("2.0.0"));
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        let refused = plugin.call(command, c)?.err().with_context(|| command.to_owned())?;
        assert_eq!(refused.code, 1, "{refused:?}");
        for word in ["2.0.0", &VERSIONS.join(", "), "configuration"] {
            assert!(refused.text.contains(word), "{word}: {refused:?}");
        }
    }
    Ok(())
}

#[test]
fn a_network_of_old_is_taken_over_from_host_local_as_it_is() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let netns = lab.container("c")?.path();
    let c = Attachment::new("c", &netns);
    let routes = json!([{ "dst": "0.0.0.0/0" }]);
    for version in ["0.1.0", "0.2.0"] {
        let mut conf = network(&agent, version, "bridge");
        conf["ipam"]["routes"] = routes.clone();
        let added = Plugin::guard_ipam(None, conf)?.done("ADD", c)?;
        let ip4 = &added["ip4"];
        let address = ip4["ip"].as_str().context("no address")?;
        ensure!(address.starts_with("10.8.64.") && address.ends_with("/24"), "{added}");
        assert_eq!((&ip4["gateway"], &ip4["routes"]), (&json!("10.8.64.1"), &routes), "{added}");
        ensure!(added["cniVersion"] == version && added["ips"].is_null(), "{added}");
        let conf = network(&agent, version, "bridge");
        Plugin::guard_ipam(None, conf)?.done("DEL", c)?;
    }
    // A configuration without a version is one of 0.1.0; the plugin that it is of asks for as much.
    let without = ipam(&agent, "0.4.0")?.with("cniVersion", Value::Null).done("ADD", c)?;
    assert_eq!(without["cniVersion"], "0.1.0");
    ipam(&agent, "0.4.0")?.with("cniVersion", Value::Null).done("DEL", c)?;
    for version in ["0.2.0", "0.3.0", "0.3.1", "0.4.0"] {
        let conf = network(&agent, version, "bridge");
        let ours = Plugin::debian("bridge", Some(lab.host()), conf)?.beside_ours()?;
        let host_local = json!({ "type": "host-local", "dataDir": lab.dir().join("h"), "subnet": "10.8.64.0/24" });
        let before = ours.with("ipam", host_local).with("bridge", "rt0".into());
        let made = before.done("ADD", c)?;
        ours.with("prevResult", made).done("DEL", c)?;
        before.done("DEL", c)?;
        ours.done("ADD", c)?;
        ours.done("DEL", c)?;
    }
    agent.check()
}

#[test]
fn a_call_by_hand_says_what_this_is() -> Result<()> {
    let plugin = guard_tests::binary("guard-ipam")?;
    for (arguments, wanted) in
        [(&["--version"][..], "guard-ipam 0.1.0\n"), (&[], "CNI plugin"), (&["--help"], "1.1.0")]
    {
        let mut command = std::process::Command::new(&plugin);
        let output = command.args(arguments).env_remove("CNI_COMMAND").output()?;
        let said = String::from_utf8(output.stdout)?;
        ensure!(output.status.success() && said.contains(wanted), "{arguments:?}: {said}");
    }
    Ok(())
}

#[test]
fn ranges_that_a_pool_does_not_keep_to_are_refused_before_an_address_is_taken() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let mut conf = network(&agent, "1.0.0", "bridge");
    conf["ipam"]["pool"] = Value::Null;
    conf["ipam"]["ranges"] = json!([[{ "subnet": "10.8.64.0/24", "rangeStart": "10.8.64.2", "rangeEnd": "10.8.64.60" }]]);
    let plugin = Plugin::guard_ipam(None, conf.clone())?;
    let a = Attachment::new("a", Path::new(NOBODY));
    let refused = plugin.call("ADD", a)?.err().context("it passed")?;
    assert!(refused.code == 7 && refused.text.contains("allow 59"), "{refused:?}");
    conf["ipam"]["resolvConf"] = "/nowhere".into();
    conf["ipam"]["ranges"][0][0]["rangeEnd"] = Value::Null;
    let refused = Plugin::guard_ipam(None, conf)?.call("ADD", a)?.err().context("it passed")?;
    assert!(refused.text.contains("/nowhere"), "{refused:?}");
    assert!(agent.list(&["leases"], "leases")?.is_empty(), "an address was taken");
    Ok(())
}

#[test]
fn version_lists_what_is_spoken() -> Result<()> {
    let plugin = Plugin::guard_ipam(None, json!({ "cniVersion": "1.0.0" }))?;
    let told = plugin.done("VERSION", Attachment::new("", Path::new("")))?;
    assert_eq!(told["cniVersion"], "1.0.0");
    assert_eq!(told["supportedVersions"], json!(VERSIONS));
    Ok(())
}
