//! Rules 6 to 8: what a source's answers are worth, entry by entry, and what becomes of a node
//! whose source does not answer.

use anyhow::{Context, Result};
use guard_tests::{Agent, Containerd, Lab, Launch, POOL, eventually, listed_container};
use serde_json::Value;

use super::inventory::{QUICK, await_passes, inventory, misses};

const IP: &str = "runtime.computer/ip";
const SANDBOX: &str = "runtime.computer/sandbox";

fn start(lab: &Lab, containerd: &Containerd, more: &str) -> Result<Agent> {
    let config = lab.config()?.with_containerd(containerd)?.with(more)?;
    lab.agent_with(Launch::config(&config)?)
}

fn open_conflicts(agent: &Agent, kind: &str) -> Result<Vec<Value>> {
    let mut all = agent.list(&["conflicts"], "conflicts")?;
    all.retain(|conflict| conflict["kind"] == kind);
    Ok(all)
}

#[test]
fn rule_8_a_label_that_cannot_be_read_concerns_its_container_alone() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let mut agent = start(&lab, &containerd, QUICK)?;
    let events = agent.follow(&["events"])?;
    let (kept, goes) = (agent.confirmed("kept")?, agent.confirmed("goes")?);
    containerd.run("goes", None, &goes.address.to_string())?;
    containerd.run_labelled("bad", None, &[(SANDBOX, "kept"), (IP, "none")])?;
    containerd.run("prefixed", None, "10.8.64.77/24")?;

    // It is named, in status and as an incident.
    let (_, event) = events.next(|event| event["type"] == "conflict.opened")?;
    let told = &event["conflict"];
    assert_eq!((&told["kind"], &told["severity"]), (&"inventory".into(), &"warning".into()));
    assert_eq!((&told["source"], &told["entry"]), (&"inventory".into(), &"bad".into()));
    assert_eq!((&told["bridge"], &told["address"]), (&Value::Null, &Value::Null), "{told}");
    let detail = told["detail"].as_str().context("no detail")?;
    assert!(detail.contains("container bad") && detail.contains("\"none\""), "{detail}");
    let source = inventory(&agent)?;
    assert_eq!((&source["healthy"], &source["unreadable"][0]), (&true.into(), &detail.into()));
    let labels = [("bridge", ""), ("kind", "inventory")];
    assert_eq!(agent.metric("guard_conflicts_open", &labels)?, Some(1.0));
    assert_eq!(agent.journal().count(&["inventory: an entry cannot be read", "container bad"]), 1);

    // Nobody else is concerned: an address with its prefix has one reading, who is gone is gone,
    // and the node hands out.
    let prefixed = eventually("10.8.64.77", || agent.entry([10, 8, 64, 77].into()))?;
    assert_eq!((&prefixed["state"], &prefixed["sandbox"]), (&"active".into(), &"prefixed".into()));
    agent.await_readyz(200)?;
    agent.allocate("new")?;
    containerd.remove("goes")?;
    agent.await_state(&goes, "cooling")?;

    // It keeps its sandbox's lease, over a restart too, and has one incident.
    for _ in 0..2 {
        await_passes(&agent, "done", 4.0)?;
        assert_eq!((agent.state(&kept)?.as_str(), misses(&agent, &kept)?), ("active", 0));
        assert_eq!(open_conflicts(&agent, "inventory")?[0]["id"], told["id"]);
        agent.stop()?;
        agent.start_again()?;
    }
    containerd.label("bad", IP, &kept.address.to_string())?;
    let closed = || Ok(open_conflicts(&agent, "inventory")?.is_empty().then_some(()));
    eventually("the end of the incident", closed)?;
    assert_eq!(inventory(&agent)?["unreadable"], Value::Array(Vec::new()));
    agent.check()
}

#[test]
fn rule_8_entries_without_a_name_refuse_nobody_and_keep_everybody() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.fake_containerd()?;
    let good = listed_container("c1", "listed", &[(IP, "10.8.64.9")]);
    let nameless = listed_container("", "", &[]);
    containerd.say(|listed| listed.containers = vec![good.clone(), nameless]);
    let config = lab.config()?.with_fake_containerd(&containerd)?.with(QUICK)?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let silent = agent.confirmed("silent")?;
    await_passes(&agent, "done", 4.0)?;
    assert_eq!((agent.state(&silent)?.as_str(), misses(&agent, &silent)?), ("active", 0));
    assert_eq!(open_conflicts(&agent, "inventory")?[0]["entry"], Value::Null);
    containerd.say(|listed| listed.containers = vec![good]);
    agent.await_state(&silent, "cooling")
}

#[test]
fn rule_8_an_event_stream_that_ends_at_once_is_no_loop_and_degraded_until_one_lasts() -> Result<()>
{
    let lab = Lab::new()?;
    let containerd = lab.fake_containerd()?;
    containerd.say(|listed| {
        listed.containers = vec![listed_container("c1", "runs", &[(IP, "10.8.64.9")])];
        listed.events_end = true;
    });
    let config = lab.config()?.with_fake_containerd(&containerd)?;
    let agent = lab.agent_with(Launch::config(&config)?.degraded())?;
    let line = agent.journal().await_line(&["source containerd", "degraded", "event stream"])?;
    let before = containerd.lists();
    // The list counts all the same.
    let runs = eventually("10.8.64.9", || agent.entry([10, 8, 64, 9].into()))?;
    assert_eq!((&runs["state"], &runs["sandbox"]), (&"active".into(), &"runs".into()), "{line:?}");
    eventually("the boot pass", || Ok(agent.allocate("new").ok()))?;
    let source = inventory(&agent)?;
    assert_eq!(source["healthy"], false, "{source}");
    assert!(agent.await_readyz(503)?.contains("source containerd"));
    // By and by: one by one there would be thousands in the time that the others take.
    eventually("two more lists", || Ok((containerd.lists() >= before + 2).then_some(())))?;
    assert!(containerd.lists() < before + 20, "{} lists", containerd.lists());
    Ok(())
}

#[test]
fn rule_8_what_a_source_listed_last_is_good_for_source_stale() -> Result<()> {
    for (stale, works) in [("1h", true), ("0s", false)] {
        let lab = Lab::new()?;
        let containerd = lab.fake_containerd()?;
        let listed = listed_container("c1", "runs", &[(IP, "10.8.64.2")]);
        containerd.say(|said| said.containers = vec![listed]);
        let config = lab.config()?.with_fake_containerd(&containerd)?.with(QUICK)?;
        let config = config.with(&format!("[allocate]\nsource_stale = {stale:?}"))?;
        let agent = lab.agent_with(Launch::config(&config)?)?;
        containerd.say(|said| said.list_fails = true);
        await_passes(&agent, "ended", 4.0)?;
        if works {
            assert_ne!(agent.allocate("a")?.address, std::net::Ipv4Addr::from([10, 8, 64, 2]));
        } else {
            let refusal = agent.ctl(&["allocate", "--pool", POOL, "--sandbox", "a"])?.refusal()?;
            assert_eq!(refusal.reason, "INVENTORY_DEGRADED");
            assert!(refusal.message.contains("source containerd"), "{refusal:?}");
        }
    }
    Ok(())
}

#[test]
fn an_operator_can_do_without_a_source_until_it_answers() -> Result<()> {
    let lab = Lab::new()?;
    let directory = lab.directory()?;
    directory.say(|said| said.list_fails = true);
    let config = lab.config()?.with(&directory.section())?.with(QUICK)?;
    let agent = lab.agent_with(Launch::config(&config)?.degraded())?;
    let allocate = ["allocate", "--pool", POOL, "--sandbox", "a"];
    assert_eq!(agent.ctl(&allocate)?.refusal()?.reason, "STARTING");
    let events = agent.follow(&["events"])?;
    let source = |of: &Value| (of["source"]["name"].clone(), of["source"]["until"].clone());

    let ignore = ["source", "ignore", "directory", "--for", "1h"];
    assert_eq!(agent.ctl(&ignore)?.code, 2, "there is nobody to ask");
    let dry = agent.json(&[&ignore[..], &["--dry-run"]].concat())?;
    assert!(dry["source"]["ignored_until"].is_string(), "{dry}");
    assert_eq!(agent.ctl(&allocate)?.refusal()?.reason, "STARTING", "a dry run does nothing");
    let unknown = agent.ctl(&["source", "ignore", "docker", "--for", "1h", "--yes"])?.refusal()?;
    assert_eq!((&*unknown.status, &*unknown.reason), ("NOT_FOUND", "SOURCE_UNKNOWN"));

    agent.json(&[&ignore[..], &["--yes"]].concat())?;
    let (_, told) = events.next(|event| event["type"] == "source.ignored")?;
    let (name, until) = source(&told);
    assert!(name == "directory" && until.is_string(), "{told}");
    assert_eq!(agent.journal().count(&["an operator does without a source", "directory"]), 1);
    let lease = eventually("the boot pass", || Ok(agent.confirmed("a").ok()))?;
    let controller = |agent: &Agent| {
        let sources = agent.list(&["status", "--live"], "sources")?;
        sources.into_iter().find(|source| source["name"] == "controller").context("no directory")
    };
    let status = controller(&agent)?;
    assert!(status["healthy"] == false && status["ignored_until"].is_string(), "{status}");
    // Its word about a single sandbox is asked for all the same.
    await_passes(&agent, "done", 4.0)?;
    assert_eq!(agent.state(&lease)?, "active");

    directory.say(|said| said.list_fails = false);
    let (_, told) = events.next(|event| event["type"] == "source.heeded")?;
    assert_eq!(source(&told), ("directory".into(), Value::Null));
    assert_eq!(controller(&agent)?["ignored_until"], Value::Null);
    let healthy = agent.ctl(&[&ignore[..], &["--yes"]].concat())?.refusal()?;
    assert_eq!((&*healthy.status, &*healthy.reason), ("FAILED_PRECONDITION", "SOURCE_HEALTHY"));
    Ok(())
}

#[test]
fn two_containers_with_a_leased_address_are_an_incident_while_both_are_listed() -> Result<()> {
    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let mut agent = start(&lab, &containerd, QUICK)?;
    let lease = agent.confirmed("one")?;
    let address = lease.address.to_string();
    containerd.run("one", None, &address)?;
    await_passes(&agent, "done", 2.0)?;
    assert!(open_conflicts(&agent, "duplicate")?.is_empty(), "its own label");
    containerd.run("two", None, &address)?;
    let told = eventually("the incident", || Ok(open_conflicts(&agent, "duplicate")?.pop()))?;
    let sides = told["claimants"].as_array().into_iter().flatten();
    let sides: Vec<_> = sides.filter_map(|side| side["sandbox"].as_str()).collect();
    assert_eq!((told["address"].as_str(), sides), (Some(&*address), vec!["one", "two"]));
    assert_eq!(agent.state(&lease)?, "active", "it is the holder's all the same");
    // It is the same one after a restart, and over when one of them is not listed any more.
    agent.stop()?;
    agent.start_again()?;
    await_passes(&agent, "done", 2.0)?;
    let after = agent.list(&["conflicts", "--all"], "conflicts")?;
    assert_eq!(after.iter().map(|it| &it["id"]).collect::<Vec<_>>(), [&told["id"]], "{after:?}");
    containerd.remove("two")?;
    let over = || Ok(open_conflicts(&agent, "duplicate")?.is_empty().then_some(()));
    eventually("the end of the incident", over)?;
    assert_eq!(agent.state(&lease)?, "active");
    agent.check()
}
