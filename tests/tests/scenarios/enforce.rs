//! Enforcement on a real bridge: what is dropped, how it is switched, and what lasts.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use guard_tests::{
    Agent, Arp, BRIDGE, Lab, Launch, Lease, RawSocket, Sandbox, TIMEOUT, eventually,
};
use serde_json::Value;

/// An address that nobody owns and anyone may use.
const FREE: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 200);

/// The configuration with a bridge in a mode.
pub(crate) fn with_mode(lab: &Lab, mode: &str) -> Result<String> {
    lab.config()?.with(&format!("[[bridge]]\nname = {BRIDGE:?}\nmode = {mode:?}"))?.text()
}

/// A victim with a lease, a thief, and somebody who hears what the bridge carries.
pub(crate) struct Theft {
    lease: Lease,
    thief: Sandbox,
    thiefs: RawSocket,
    others: RawSocket,
}

impl Theft {
    pub(crate) fn new(lab: &Lab, agent: &Agent) -> Result<Self> {
        let (victim, thief, other) =
            (lab.sandbox("victim")?, lab.sandbox("thief")?, lab.sandbox("other")?);
        let lease = agent.admit(&victim)?;
        agent.await_port(&thief)?;
        agent.await_port(&other)?;
        let (thiefs, others) = (thief.raw_socket()?, other.raw_socket()?);
        Ok(Self { lease, thief, thiefs, others })
    }

    pub(crate) fn port(&self) -> &str {
        self.thief.port()
    }

    /// Has the thief claim the victim's address, and then one that it may use. Whether the first of the
    /// two arrives.
    pub(crate) fn arrives(&self) -> Result<bool> {
        let mac = self.thief.mac();
        let stolen = self.lease.address;
        self.thiefs.send(&Arp::announcement(mac, stolen).frame())?;
        self.thiefs.send(&Arp::announcement(mac, FREE).frame())?;
        let from_thief = |frame: &[u8]| {
            let arp = Arp::parse(frame).filter(|arp| arp.sha == mac)?;
            [stolen, FREE].contains(&arp.spa).then_some(arp.spa)
        };
        let first = self.others.receive(TIMEOUT, from_thief)?;
        if first == stolen {
            self.others.receive(TIMEOUT, |frame| from_thief(frame).filter(|spa| *spa == FREE))?;
        }
        Ok(first == stolen)
    }
}

/// The row of a port and a reason.
pub(crate) fn drops(agent: &Agent, port: &str, reason: &str) -> Result<Option<Value>> {
    let args = ["drops", "--bridge", BRIDGE, "--port", port, "--reason", reason];
    Ok(agent.list(&args, "drops")?.pop())
}

fn counts(agent: &Agent, port: &str) -> Result<(u64, u64)> {
    let row = drops(agent, port, "violation")?.context("there is no row")?;
    let count = |key: &str| row[key].as_u64().with_context(|| format!("{key} in {row}"));
    Ok((count("dropped")?, count("would_drop")?))
}

fn set(agent: &Agent, args: &[&str]) -> Result<Value> {
    agent.json(args)
}

#[test]
fn the_same_theft_passes_in_observe_and_is_dropped_in_enforce() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let theft = Theft::new(&lab, &agent)?;
    ensure!(theft.arrives()?, "it was dropped where it is only observed");
    ensure!(counts(&agent, theft.port())? == (0, 1));

    let status = set(&agent, &["enforce", "on", "--bridge", BRIDGE])?;
    ensure!(status["bridge"]["mode"] == "enforce", "{status}");
    ensure!(status["bridge"]["configured_mode"] == "observe", "{status}");
    ensure!(!theft.arrives()?, "it was not dropped");
    ensure!(counts(&agent, theft.port())? == (1, 1));
    let labels = [("bridge", BRIDGE), ("reason", "violation")];
    ensure!(agent.metric("guard_frames_dropped_total", &labels)? == Some(1.0));
    ensure!(agent.metric("guard_frames_would_drop_total", &labels)? == Some(1.0));
    let of_bridge = [("bridge", BRIDGE)];
    ensure!(agent.metric("guard_ports_enforcing", &of_bridge)? == Some(3.0));
    ensure!(agent.metric("guard_ports_dropping", &of_bridge)? == Some(1.0));
    ensure!(agent.metric("guard_first_on_hook", &of_bridge)? == Some(1.0));

    set(&agent, &["enforce", "off", "--bridge", BRIDGE])?;
    ensure!(theft.arrives()?, "it was dropped after enforcement was switched off");
    Ok(())
}

#[test]
fn drops_say_what_the_first_frame_was_and_what_would_allow_it() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent_with(Launch::text(&with_mode(&lab, "enforce")?))?;
    let theft = Theft::new(&lab, &agent)?;
    ensure!(!theft.arrives()?, "it was not dropped");
    let row = drops(&agent, theft.port(), "violation")?.context("there is no row")?;
    let address = theft.lease.address.to_string();
    ensure!(row["address"] == address.as_str(), "{row}");
    ensure!(row["eth_src"] == theft.thief.mac().to_string(), "{row}");
    let says = row["says"].as_str().unwrap_or_default();
    ensure!(says.starts_with("arp from ") && says.contains(&address), "{row}");
    ensure!(row["allow"].as_str().unwrap_or_default().contains(theft.port()), "{row}");
    ensure!(row["rule"] == "claims.md A03" && row["sandbox"].is_null(), "{row}");
    let frame = row["frame"].as_str().unwrap_or_default();
    ensure!(frame.len() == 84 && frame.starts_with("ffffffffffff"), "{row}");
    // No other bridge, no other reason.
    let none = agent.ctl(&["drops", "--bridge", "nowhere"])?.refusal()?;
    ensure!(none.reason == "BRIDGE_UNKNOWN", "{none:?}");
    ensure!(drops(&agent, theft.port(), "clone")?.is_none());
    let stream = agent.follow(&["drops", "--port", theft.port()])?;
    ensure!(!theft.arrives()?);
    stream.next(|page| page["drops"][0]["dropped"] == 2)?;
    Ok(())
}

#[test]
fn an_impostor_who_is_dropped_is_less_bad_and_gone_when_he_does_not_try_any_more() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config()?.with("[conflict]\nquiet = \"2s\"")?;
    let config = config.with(&format!("[[bridge]]\nname = {BRIDGE:?}\nmode = \"enforce\""))?;
    let agent = lab.agent_with(Launch::config(&config)?)?;
    let theft = Theft::new(&lab, &agent)?;
    // It would answer if it was asked.
    theft.thief.add_address(theft.lease.address)?;
    let events = agent.follow(&["events", "--from", "0"])?;
    // A port is known to enforce a moment after it came.
    let conflict = eventually("an incident of dropped frames", || {
        ensure!(!theft.arrives()?);
        let mut conflicts = agent.list(&["conflicts"], "conflicts")?.into_iter();
        Ok(conflicts.find(|conflict| conflict["action"] == "dropped"))
    })?;
    ensure!(conflict["severity"] == "info", "{conflict}");
    let impostor = &conflict["claimants"][1];
    ensure!(impostor["role"] == "impostor", "{conflict}");
    ensure!(impostor["dropped"].as_u64() > Some(0), "{conflict}");
    let (_, closed) = events.next(|event| event["type"] == "conflict.closed")?;
    ensure!(closed["conflict"]["id"] == conflict["id"], "{closed}");
    Ok(())
}

#[test]
fn a_bridge_is_switched_by_its_file_and_a_signal() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let theft = Theft::new(&lab, &agent)?;
    for (mode, arrives) in [("enforce", false), ("observe", true), ("enforce", false)] {
        agent.reload(&with_mode(&lab, mode)?)?;
        ensure!(theft.arrives()? == arrives, "mode {mode}");
    }
    // What an operator has set holds until the file is read again.
    set(&agent, &["enforce", "off", "--bridge", BRIDGE])?;
    ensure!(theft.arrives()?);
    let bridge = agent.list(&["status", "--live"], "bridges")?.pop().context("no bridge")?;
    ensure!(
        (&bridge["mode"], &bridge["configured_mode"]) == (&"observe".into(), &"enforce".into())
    );
    agent.reload(&with_mode(&lab, "enforce")?)?;
    ensure!(!theft.arrives()?);
    // A file that is wrong changes nothing.
    agent.reload(&with_mode(&lab, "enforced")?)?;
    ensure!(!theft.arrives()?);
    Ok(())
}

#[test]
fn the_kernel_goes_on_dropping_while_the_agent_is_dead_and_after_its_return() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent_with(Launch::text(&with_mode(&lab, "enforce")?))?;
    let theft = Theft::new(&lab, &agent)?;
    ensure!(!theft.arrives()?);
    agent.kill()?;
    ensure!(!theft.arrives()?, "it arrives while the agent is dead");
    agent.start_again()?;
    ensure!(!theft.arrives()?, "it arrives after the agent's return");
    ensure!(counts(&agent, theft.port())? == (3, 0));
    agent.stop()?;
    ensure!(!theft.arrives()?, "it arrives while the agent is stopped");
    Ok(())
}

#[test]
fn detach_asks_before_it_opens_ports() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent_with(Launch::text(&with_mode(&lab, "enforce")?))?;
    let theft = Theft::new(&lab, &agent)?;
    agent.stop()?;
    let refusal = lab.detach().err().context("it did not ask")?.to_string();
    ensure!(refusal.contains("3 ports") && refusal.contains("--yes"), "{refusal}");
    ensure!(!theft.arrives()?, "it opened the port all the same");
    lab.detach_with(&["--yes"])?;
    let left = lab.pinned()?;
    ensure!(left.is_empty(), "{left:?}");
    // The kernel takes a program off a moment after its link is gone.
    eventually("a theft that arrives", || Ok(theft.arrives()?.then_some(())))?;
    Ok(())
}

#[test]
fn a_port_has_a_mode_of_its_own_over_restarts_until_its_time_is_over() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let theft = Theft::new(&lab, &agent)?;
    let port = theft.port().to_owned();
    set(&agent, &["port", "set", &port, "--mode", "enforce"])?;
    ensure!(!theft.arrives()?);
    let ports = agent.list(&["ports"], "ports")?;
    let mode = |name: &str| ports.iter().find(|port| port["interface"] == name).map(|p| &p["mode"]);
    ensure!(mode(&port).context("no port")? == "enforce", "{ports:?}");
    agent.kill()?;
    agent.start_again()?;
    ensure!(!theft.arrives()?, "the mode of the port is forgotten");
    // The other way round, and for a while.
    set(&agent, &["enforce", "on", "--bridge", BRIDGE])?;
    let status = set(&agent, &["port", "set", &port, "--mode", "observe", "--for", "3s"])?;
    ensure!(status["bridge"]["ports"][0]["mode"] == "observe", "{status}");
    ensure!(theft.arrives()?);
    eventually("the end of the port's own mode", || Ok((!theft.arrives()?).then_some(())))?;
    // The kernel is on time, the list within a second.
    eventually("its end in the list", || {
        let status = agent.list(&["enforce", "status"], "bridges")?;
        Ok((status[0]["ports"] == Value::Array(Vec::new())).then_some(()))
    })?;
    let unknown = agent.ctl(&["port", "set", "nobody", "--mode", "observe"])?.refusal()?;
    ensure!(unknown.reason == "PORT_UNKNOWN", "{unknown:?}");
    // On time, also while nobody is there to end it.
    set(&agent, &["port", "set", &port, "--mode", "observe", "--for", "4s"])?;
    agent.kill()?;
    ensure!(theft.arrives()?, "it was to be observed");
    eventually("the end of it without an agent", || Ok((!theft.arrives()?).then_some(())))?;
    // What is configured counts again, and the port has nothing of its own.
    agent.start_again()?;
    let status = agent.list(&["enforce", "status"], "bridges")?;
    ensure!(status[0]["ports"] == Value::Array(Vec::new()), "{status:?}");
    Ok(())
}

#[test]
fn a_port_that_comes_anew_under_a_name_has_not_the_mode_of_the_one_before() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    for while_dead in [false, true] {
        let sandbox = lab.sandbox("a")?;
        agent.await_port(&sandbox)?;
        let port = sandbox.port().to_owned();
        set(&agent, &["port", "set", &port, "--mode", "enforce"])?;
        let mode = |agent: &Agent| -> Result<Option<Value>> {
            let ports = agent.list(&["ports"], "ports")?;
            Ok(ports.iter().find(|known| known["interface"] == port).map(|p| p["mode"].clone()))
        };
        ensure!(mode(&agent)? == Some("enforce".into()));
        let again = if while_dead {
            agent.kill()?;
            sandbox.delete()?;
            let again = lab.sandbox("a")?;
            agent.start_again()?;
            again
        } else {
            sandbox.delete()?;
            lab.sandbox("a")?
        };
        agent.await_port(&again)?;
        // Until the agent knows, the name is the old port's.
        eventually(&format!("its bridge's mode, agent dead meanwhile: {while_dead}"), || {
            Ok((mode(&agent)? == Some("observe".into())).then_some(()))
        })?;
        eventually("the end of its mode", || {
            let status = agent.list(&["enforce", "status"], "bridges")?;
            Ok((status[0]["ports"] == Value::Array(Vec::new())).then_some(()))
        })?;
        again.delete()?;
    }
    Ok(())
}

#[test]
fn a_dry_run_names_what_would_drop() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let theft = Theft::new(&lab, &agent)?;
    let dry_run = ["enforce", "--dry-run", "--bridge", BRIDGE];
    let nothing = agent.ctl(&dry_run)?;
    ensure!(nothing.stdout == "nothing of a bound port would drop\n", "{}", nothing.stdout);
    theft.arrives()?;
    let run = agent.json(&dry_run)?;
    ensure!(run["bound"] == 0 && run["drops"][0]["interface"] == theft.port(), "{run}");
    eventually("a row that is too old", || {
        let later = agent.json(&[&dry_run[..], &["--since", "1s"]].concat())?;
        Ok((later["drops"] == Value::Array(Vec::new())).then_some(()))
    })?;
    // The thief has a lease by now. That it takes what is another's does not speak against enforcing, but
    // that it uses an address of its own that nobody has given it.
    let lease = agent.allocate("thief")?;
    agent.bind(&lease, &theft.thief)?;
    let run = agent.json(&dry_run)?;
    ensure!(run["bound"] == 1 && run["drops"][0]["sandbox"] == "thief", "{run}");
    theft.thief.announce(FREE)?;
    eventually("the address that nobody has given it", || {
        let run = agent.json(&dry_run)?;
        let rows = run["drops"].as_array().context("no rows")?;
        Ok(rows.iter().any(|row| row["reason"] == "unowned").then_some(()))
    })?;
    let refusal = agent.ctl(&["enforce", "on", "--bridge", BRIDGE])?.refusal()?;
    ensure!(refusal.reason == "PREFLIGHT" && refusal.message.contains(theft.port()), "{refusal:?}");
    set(&agent, &["enforce", "on", "--bridge", BRIDGE, "--yes"])?;
    Ok(())
}
