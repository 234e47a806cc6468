//! A workload with an address of its own that comes again: the same pod, in another sandbox.

use std::path::Path;

use anyhow::{Context, Result};
use guard_api::proto::directory::State;
use guard_tests::{Agent, Attachment, Client, Lab, Launch, Plugin, Refused, eventually};
use serde_json::{Value, json};

use crate::{bridge, chained, ipam, network, of};

const NOBODY: &str = "/proc/self/ns/net";

/// What a pod asks for, in the words of a runtime of Kubernetes.
const WEB: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;IP=10.8.64.20";

/// The same pod, where something else says which address it has.
const NAMED: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0";

fn pod<'a>(container: &'a str, netns: &'a Path, args: &'a str) -> Attachment<'a> {
    Attachment { args, ..Attachment::new(container, netns) }
}

/// Its one lease: state and generation.
fn lease(agent: &Agent, container: &str) -> Result<(String, u64)> {
    let leases = of(agent, container)?;
    let [(state, lease)] = &leases[..] else { anyhow::bail!("{container}: {leases:?}") };
    Ok((state.clone(), lease["generation"].as_u64().context("a generation")?))
}

fn refused(plugin: &Plugin, attachment: Attachment<'_>) -> Result<Refused> {
    plugin.call("ADD", attachment)?.err().context("ADD passed")
}

/// Until something says that the container is there, or until nothing does.
fn await_evidence(agent: &Agent, container: &str, live: bool) -> Result<()> {
    eventually("evidence", || {
        let (_, lease) = of(agent, container)?.pop().context("no lease")?;
        Ok((lease["evidence"].as_array().is_none_or(Vec::is_empty) != live).then_some(()))
    })
}

#[test]
fn a_workload_has_its_address_again_at_once_whether_del_came_or_not() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let plugin = ipam(&agent, "1.1.0")?;
    let netns = Path::new(NOBODY);
    let wish = json!({ "cni": { "ips": ["10.8.64.21/24"] } });
    let runtime = json!({ "ips": ["10.8.64.22"] });
    for (way, plugin, args, address) in [
        ("ip", plugin.clone(), WEB, "10.8.64.20/24"),
        ("args", plugin.with("args", wish), NAMED, "10.8.64.21/24"),
        ("runtime", plugin.with("runtimeConfig", runtime), NAMED, "10.8.64.22/24"),
    ] {
        let [first, second, third] = ["1", "2", "3"].map(|number| format!("{way}{number}"));
        let add = |container: &str| -> Result<(String, u64)> {
            let added = plugin.done("ADD", pod(container, netns, args))?;
            assert_eq!(added["ips"][0]["address"], address, "{container}");
            lease(&agent, container)
        };
        let (state, generation) = add(&first)?;
        assert_eq!(state, "active");
        // Its DEL is still to come.
        let (state, next) = add(&second)?;
        assert!(state == "active" && next > generation, "{state} {next} {generation}");
        assert_eq!(of(&agent, &first)?, [], "the first one has it no more");
        assert_eq!(add(&second)?, (state, next), "once is as good as twice");
        // It comes, and concerns nobody who is there.
        plugin.done("DEL", pod(&first, netns, args))?;
        assert_eq!(lease(&agent, &second)?, ("active".to_owned(), next));
        // As Kubernetes does it: DEL, and then the next sandbox.
        plugin.done("DEL", pod(&second, netns, args))?;
        assert_eq!(lease(&agent, &second)?.0, "cooling");
        let (state, last) = add(&third)?;
        assert!(state == "active" && last > next, "{state} {last} {next}");
    }
    agent.check()
}

#[test]
fn another_workload_waits_as_everybody_does() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let plugin = ipam(&agent, "1.1.0")?;
    let netns = Path::new(NOBODY);
    plugin.done("ADD", pod("c1", netns, WEB))?;
    let strangers = [
        ("another pod", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;IP=10.8.64.20"),
        ("of another namespace", "K8S_POD_NAMESPACE=shoq;K8S_POD_NAME=web-0;IP=10.8.64.20"),
        ("half a name", "K8S_POD_NAME=web-0;IP=10.8.64.20"),
        ("the other half", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=;IP=10.8.64.20"),
        ("not names", "K8S_POD_NAMESPACE=shop/web-0;K8S_POD_NAME=x y;IP=10.8.64.20"),
        ("no name", "IP=10.8.64.20"),
    ];
    for reason in ["ADDRESS_HELD", "ADDRESS_COOLING"] {
        for (who, args) in strangers {
            let refused = refused(&plugin, pod("c2", netns, args))?;
            assert!(refused.text.contains(reason), "{who}: {refused:?}");
        }
        let other = plugin.with("name", "other".into());
        let refused = refused(&other, pod("c2", netns, WEB))?;
        assert!(refused.text.contains(reason), "the same pod in another network: {refused:?}");
        plugin.done("DEL", pod("c1", netns, WEB))?;
    }
    assert_eq!(of(&agent, "c2")?, []);
    // A name that is none is no reason to refuse an address.
    let odd = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=wéb 0;IP=10.8.64.30";
    plugin.done("ADD", pod("c3", netns, odd))?;
    agent.check()
}

#[test]
fn what_the_wire_speaks_for_keeps_its_address_and_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let plugin = ipam(&agent, "1.1.0")?;
    let old = lab.sandbox("old")?;
    agent.await_port(&old)?;
    let (there, nowhere) = (old.netns().path(), Path::new(NOBODY));
    plugin.done("ADD", pod("c1", &there, WEB))?;
    old.announce("10.8.64.20".parse()?)?;
    await_evidence(&agent, "c1", true)?;
    let before = lease(&agent, "c1")?;
    let named = |refused: &Refused| {
        let Refused { code, text } = refused;
        let (mac, port) = (old.mac().to_string(), old.port());
        *code == 100
            && ["ADDRESS_LIVE", "c1", "shop/web-0", &mac, port]
                .iter()
                .all(|word| text.contains(word))
    };
    let first = refused(&plugin, pod("c2", nowhere, WEB))?;
    assert!(named(&first), "{first:?}");
    assert_eq!((lease(&agent, "c1")?, of(&agent, "c2")?), (before, vec![]));
    // Released, and still there.
    plugin.done("DEL", pod("c1", &there, WEB))?;
    let second = refused(&plugin, pod("c2", nowhere, WEB))?;
    assert!(named(&second), "{second:?}");
    assert_eq!(lease(&agent, "c1")?.0, "releasing");
    old.delete()?;
    eventually("the end of the old one", || {
        Ok(plugin.call("ADD", pod("c2", nowhere, WEB))?.ok().map(drop))
    })?;
    assert_eq!(lease(&agent, "c2")?.0, "active");
    agent.check()
}

#[test]
fn a_port_or_a_container_that_is_there_keeps_the_address_of_a_silent_sandbox() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let agent = lab.agent_with(Launch::config(&lab.config()?.with_containerd(&containerd)?)?)?;
    let plugin = bridge(&lab, &agent, "1.0.0")?;

    // A veth that is bound, without a frame.
    let (one, two) = (lab.container("one")?.path(), lab.container("two")?.path());
    let added = plugin.done("ADD", pod("c1", &one, WEB))?;
    chained(&agent, "1.0.0", &added)?.done("ADD", pod("c1", &one, WEB))?;
    let port = of(&agent, "c1")?[0].1["interface"].as_str().context("a port")?.to_owned();
    let live = refused(&plugin, pod("c2", &two, WEB))?;
    assert!(live.text.contains("ADDRESS_LIVE") && live.text.contains(&port), "{live:?}");
    // As a runtime does after an ADD that failed.
    plugin.done("DEL", pod("c2", &two, WEB))?;
    assert_eq!(lease(&agent, "c1")?.0, "active");
    // Its DEL never comes.
    lab.remove_container("one")?;
    await_evidence(&agent, "c1", false)?;
    plugin.done("ADD", pod("c2", &two, WEB))?;

    // A container whose interface has gone.
    containerd.run_in("c2", None, &[])?;
    lab.remove_container("two")?;
    eventually("the container alone", || {
        let (_, lease) = of(&agent, "c2")?.pop().context("no lease")?;
        let all = lease["evidence"].as_array().context("evidence")?;
        let inventory = |one: &Value| one["source"] == "inventory";
        Ok((!all.is_empty() && all.iter().all(inventory)).then_some(()))
    })?;
    let three = lab.container("three")?.path();
    let live = refused(&plugin, pod("c3", &three, WEB))?;
    assert!(live.text.contains("ADDRESS_LIVE") && live.text.contains("c2"), "{live:?}");
    plugin.done("DEL", pod("c3", &three, WEB))?;
    containerd.remove("c2")?;
    await_evidence(&agent, "c2", false)?;
    plugin.done("ADD", pod("c3", &three, WEB))?;
    agent.check()
}

#[test]
fn one_address_that_speaks_keeps_the_others_of_its_sandbox() -> Result<()> {
    let lab = Lab::new()?;
    let second = "[[pool]]\nname = \"other\"\nbridge = \"rt0\"\nprefix = \"10.9.0.0/24\"";
    let agent = lab.agent_with(Launch::text(&(lab.config()?.text()? + second)))?;
    let mut conf = network(&agent, "1.1.0", "bridge");
    conf["ipam"]["pools"] = json!(["other"]);
    let plugin = Plugin::guard_ipam(None, conf)?;
    let old = lab.sandbox("old")?;
    agent.await_port(&old)?;
    let (there, nowhere) = (old.netns().path(), Path::new(NOBODY));
    let added = plugin.done("ADD", pod("c1", &there, WEB))?;
    let other = added.pointer("/ips/1/address").and_then(Value::as_str).context("a second one")?;
    old.announce(other.trim_end_matches("/24").parse()?)?;
    eventually("evidence", || {
        let live = |(_, lease): &(String, Value)| {
            lease["evidence"].as_array().is_some_and(|all| !all.is_empty())
        };
        Ok(of(&agent, "c1")?.iter().any(live).then_some(()))
    })?;
    // The address that is asked for is silent, and its sandbox is not.
    for _ in ["active", "released"] {
        let live = refused(&plugin, pod("c2", nowhere, WEB))?;
        assert!(live.text.contains("ADDRESS_LIVE") && live.text.contains(old.port()), "{live:?}");
        plugin.done("DEL", pod("c1", &there, WEB))?;
    }
    Ok(())
}

#[test]
fn rule_9_a_hold_on_the_old_address_is_waited_for() -> Result<()> {
    let lab = Lab::new()?;
    let subscriber = "[[subscriber]]\nname = \"firewall\"\nhold_deadline = \"1h\"\n";
    let agent = lab.agent_with(Launch::config(&lab.config()?.with(subscriber)?)?)?;
    let plugin = ipam(&agent, "1.1.0")?;
    let netns = Path::new(NOBODY);
    plugin.done("ADD", pod("c1", netns, WEB))?;
    let (_, generation) = lease(&agent, "c1")?;
    for _ in ["its DEL never came", "once more"] {
        let held = refused(&plugin, pod("c2", netns, WEB))?;
        assert!(held.code == 11 && held.text.contains("ADDRESS_HELD"), "{held:?}");
        assert!(held.text.contains("firewall"), "{held:?}");
        assert_eq!(lease(&agent, "c1")?, ("releasing".to_owned(), generation));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        anyhow::Ok(client.acknowledge(generation, "firewall").await?)
    })?;
    plugin.done("ADD", pod("c2", netns, WEB))?;
    assert_eq!(lease(&agent, "c2")?.0, "active");
    agent.check()
}

#[test]
fn rule_8_a_runtime_that_has_not_listed_its_containers_is_waited_for() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let allow = "[allocate]\nboot_timeout = \"1s\"\nwhen_degraded = \"allow\"\n";
    let config = lab.config()?.with_containerd(&containerd)?.with(allow)?;
    let mut agent = lab.agent_with(Launch::config(&config)?)?;
    let plugin = ipam(&agent, "1.1.0")?;
    let netns = Path::new(NOBODY);
    plugin.done("ADD", pod("c1", netns, WEB))?;
    containerd.run_in("c1", None, &[])?;
    let before = lease(&agent, "c1")?;
    agent.kill()?;
    containerd.freeze()?;
    agent.start_again_degraded()?;
    // Others are given addresses, and nobody's lease ends.
    plugin.done("ADD", Attachment::new("other", netns))?;
    let refused_blind = refused(&plugin, pod("c2", netns, WEB))?;
    assert!(refused_blind.code == 11 && refused_blind.text.contains("c1"), "{refused_blind:?}");
    assert_eq!(lease(&agent, "c1")?, before);
    containerd.thaw()?;
    await_evidence(&agent, "c1", true)?;
    let live = refused(&plugin, pod("c2", netns, WEB))?;
    assert!(live.code == 100 && live.text.contains("ADDRESS_LIVE"), "{live:?}");
    assert_eq!(lease(&agent, "c1")?, before);
    containerd.remove("c1")?;
    eventually("its end", || Ok(plugin.call("ADD", pod("c2", netns, WEB))?.ok()))?;
    assert_eq!(lease(&agent, "c2")?.0, "active");
    agent.check()
}

#[test]
fn a_directory_is_asked_before_its_last_answer_counts() -> Result<()> {
    let lab = Lab::new()?;
    let directory = lab.directory()?;
    let agent = lab.agent_with(Launch::config(&lab.config()?.with(&directory.section())?)?)?;
    let plugin = ipam(&agent, "1.1.0")?;
    let netns = Path::new(NOBODY);
    plugin.done("ADD", pod("c1", netns, WEB))?;
    // Since its last answer, and nobody has asked again.
    directory.say(|said| said.listed = [("c1".to_owned(), State::Alive)].into());
    let live = refused(&plugin, pod("c2", netns, WEB))?;
    for word in ["ADDRESS_LIVE", "c1"] {
        assert!(live.text.contains(word), "{word}: {live:?}");
    }
    // GC has a list of its own, which says something else.
    let nobody = Attachment::new("", Path::new(""));
    let gc = plugin.with("cni.dev/valid-attachments", json!([]));
    let kept = gc.call("GC", nobody)?.err().context("GC passed")?;
    assert!(kept.code == 103 && kept.text.contains("c1 keeps"), "{kept:?}");
    assert_eq!(lease(&agent, "c1")?.0, "active");
    directory.say(|said| said.listed.clear());
    eventually("its next answer", || Ok(plugin.call("ADD", pod("c2", netns, WEB))?.ok()))?;
    assert_eq!(lease(&agent, "c2")?.0, "active");
    agent.check()
}
