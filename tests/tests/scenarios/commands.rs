//! Every command of `guardctl` in both formats, and its exit codes.

use anyhow::{Context, Result};
use guard_tests::{Agent, BRIDGE, Lab, POOL};
use serde_json::Value;

const LEASE: &str = "address prefix_len gateway pool bridge vlan state sandbox lifecycle key \
                     generation mac interface binding reason evidence holds misses created_at \
                     updated_at until cooldown_bypassed maker";
const EVIDENCE: &str = "source detail mac interface since age_ms";
const POOL_FIELDS: &str = "name bridge vlan prefix gateway capacity free held active releasing \
                           cooling quarantined utilisation";
const LIVE: &str = "address bridge vlan inner_vlan mac interface evidence lease";
const PORT: &str = "interface ifindex bridge kind covered attach program_id since frames addresses";
const CONFLICT: &str = "id bridge vlan inner_vlan address kind severity claimants flaps first_seen last_seen \
                        open silenced_until";
const CLAIMANT: &str = "role mac interface ifindex sandbox lifecycle first_seen last_seen frames";
const STATUS: &str = "version ready degraded boot_pass store sources bridges";

/// Every field is there, absent ones as null.
fn has(object: &Value, fields: &str) -> Result<()> {
    let map = object.as_object().with_context(|| format!("not an object: {object}"))?;
    for field in fields.split_whitespace() {
        assert!(map.contains_key(field), "{field} is not in {object}");
    }
    for (key, value) in map {
        if key.ends_with("_at") || key.ends_with("_seen") || ["since", "until"].contains(&&**key) {
            let time = value.as_str().is_some_and(|time| time.ends_with('Z') && time.len() >= 20);
            assert!(time || value.is_null(), "{key} is not a time in UTC: {object}");
        }
    }
    Ok(())
}

/// The first of a list in the JSON of a command, whose table names the same thing.
fn both(agent: &Agent, args: &[&str], list: &str, shown: &[&str]) -> Result<Value> {
    let first = agent.list(args, list)?.into_iter().next().with_context(|| args.join(" "))?;
    for format in [&["-o", "table"][..], &[]] {
        let table = agent.ctl(&[args, format].concat())?;
        assert_eq!((table.code, table.stderr.as_str()), (0, ""), "{args:?}");
        for part in shown {
            assert!(table.stdout.contains(part), "{part} is not in:\n{}", table.stdout);
        }
        assert!(serde_json::from_str::<Value>(&table.stdout).is_err(), "JSON as a table: {args:?}");
        assert!(!table.stdout.contains('\x1b'), "colour where there is no terminal");
    }
    Ok(first)
}

#[test]
fn lists_have_their_fields_and_their_tables() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let events = agent.follow(&["events", "--from", "0"])?;
    thief.announce(lease.address)?;
    events.next(|event| event["type"] == "conflict.opened")?;
    let (address, mac) = (lease.address.to_string(), owner.mac().to_string());

    for filter in [&[][..], &["--pool", POOL], &["--state", "active"], &["--sandbox", "owner"]] {
        let args = [&["leases"], filter].concat();
        let listed = both(&agent, &args, "leases", &[&address, "owner", "active"])?;
        has(&listed, LEASE)?;
        has(&listed["evidence"][0], EVIDENCE)?;
        assert_eq!(listed["mac"], mac);
        assert_eq!(listed["binding"], "declared");
        assert_eq!(listed["lifecycle"], Value::Null, "an absent field");
    }
    for filter in [["--state", "cooling"], ["--sandbox", "nobody"]] {
        assert!(agent.list(&[&["leases"], &filter[..]].concat(), "leases")?.is_empty());
    }

    let pool = both(&agent, &["pools"], "pools", &[POOL, "10.8.64.0/24", BRIDGE])?;
    has(&pool, POOL_FIELDS)?;
    assert_eq!((&pool["capacity"], &pool["active"]), (&253.into(), &1.into()), "{pool}");
    for args in [&["live"][..], &["live", "--bridge", BRIDGE]] {
        let live = both(&agent, args, "live", &[&address])?;
        has(&live, LIVE)?;
        has(&live["evidence"][0], EVIDENCE)?;
    }
    // A name that is mistyped is not a bridge on which nothing is in use.
    let refusal = agent.ctl(&["live", "--bridge", "rt9"])?.refusal()?;
    assert_eq!((&*refusal.status, &*refusal.reason), ("NOT_FOUND", "BRIDGE_UNKNOWN"));
    has(&both(&agent, &["ports"], "ports", &[owner.port(), thief.port()])?, PORT)?;
    let port = thief.port();
    for args in [&["conflicts"][..], &["conflicts", "--all"]] {
        let conflict = both(&agent, args, "conflicts", &[&address, "duplicate", &mac, port])?;
        has(&conflict, CONFLICT)?;
        has(&conflict["claimants"][0], CLAIMANT)?;
        has(&conflict["claimants"][1], CLAIMANT)?;
    }
    Ok(())
}

#[test]
fn status_says_how_the_agent_is() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let status = agent.json(&["status", "--live"])?;
    has(&status, STATUS)?;
    assert_eq!((&status["ready"], &status["boot_pass"]), (&true.into(), &"done".into()));
    assert_eq!((&status["store"], &status["degraded"]), (&"ok".into(), &Value::Array(vec![])));
    assert_eq!(status["bridges"][0]["name"], BRIDGE);
    let table = agent.ctl(&["status"])?;
    assert_eq!(table.code, 0);
    assert!(table.stdout.contains(BRIDGE), "{}", table.stdout);
    Ok(())
}

#[test]
fn commands_that_change_a_lease_print_it() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (one, two) = (lab.sandbox("one")?, lab.sandbox("two")?);
    for (sandbox, format) in [(&one, "json"), (&two, "table")] {
        let mac = sandbox.mac().to_string();
        let call = |args: &[&str]| -> Result<String> {
            let output = agent.ctl(&[args, &["-o", format]].concat())?;
            assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{args:?}");
            assert_eq!(serde_json::from_str::<Value>(&output.stdout).is_ok(), format == "json");
            Ok(output.stdout)
        };
        let pool = ["--pool", POOL, "--key", "eth0", "--lifecycle", "1"];
        call(&[&["allocate", "--sandbox", sandbox.name()], &pool[..]].concat())?;
        let listed = agent.list(&["leases", "--sandbox", sandbox.name()], "leases")?;
        let lease = listed.first().context("not listed")?;
        let (address, generation) = (lease["address"].clone(), lease["generation"].to_string());
        let shown = address.as_str().context("no address")?;
        let generation = ["--generation", &generation];
        let bind = ["--mac", &mac, "--interface", sandbox.port()];
        for args in [
            [&["bind"], &generation[..], &bind].concat(),
            [&["confirm"], &generation[..]].concat(),
            vec!["release", "--sandbox", sandbox.name(), "--lifecycle", "1"],
        ] {
            let printed = call(&args)?;
            assert!(printed.contains(shown), "{shown} is not in {printed}");
        }
        // For scripts: an outcome that changes nothing is none that fails.
        let again = call(&[&["release"], &generation[..]].concat())?;
        assert!(again.contains("stale"), "{again}");
    }
    Ok(())
}

#[test]
fn streams_are_a_document_a_line_and_a_line_for_people() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let lease = agent.admit(&owner)?;
    agent.await_port(&thief)?;
    let address = lease.address.to_string();
    let shows = |line: &Value| line.as_str().is_some_and(|line| line.contains(&address));
    agent.follow_table(&["events", "--from", "0"])?.next(shows)?;
    let (_, event) =
        agent.follow(&["events", "--from", "0"])?.next(|event| event["type"] == "lease.held")?;
    has(&event, "seq time type lease")?;
    has(&event["lease"], LEASE)?;
    // From the number of one, the next is the first.
    let from = event["seq"].to_string();
    let (_, next) = agent.follow(&["events", "--from", &from])?.next(|_| true)?;
    assert_eq!(next["seq"].as_u64(), event["seq"].as_u64().map(|seq| seq + 1));

    thief.announce(lease.address)?;
    // An incident that is open is the first that a new follower hears of.
    let follow = agent.follow(&["conflicts"])?;
    has(&follow.next(|_| true)?.1, CONFLICT)?;
    agent.follow_table(&["conflicts"])?.next(shows)?;
    Ok(())
}

#[test]
fn exit_codes_are_0_1_2_and_3() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    for args in [&["leases"][..], &["release", "--generation", "1"], &["--help"], &["--version"]] {
        assert_eq!(agent.ctl(args)?.code, 0, "{args:?}");
    }
    let refused = ["allocate", "--pool", "none", "--sandbox", "s", "-o", "json"];
    let output = agent.ctl(&refused)?;
    assert_eq!((output.code, output.stdout.as_str()), (1, ""));
    assert!(output.stderr.starts_with("NOT_FOUND/POOL_UNKNOWN: "), "{}", output.stderr);
    for args in [
        &["nonsense"][..],
        &["allocate"],
        &["release"],
        &["release", "--generation", "many"],
        &["leases", "-o", "yaml"],
        &["leases", "--state", "nonsense"],
    ] {
        let output = agent.ctl(args)?;
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    agent.stop()?;
    let output = agent.ctl(&["leases", "-o", "json"])?;
    assert_eq!((output.code, output.stdout.as_str()), (3, ""));
    let socket = agent.socket();
    assert!(output.stderr.contains(&*socket.to_string_lossy()), "{}", output.stderr);
    Ok(())
}
