//! Child subnets and interface names, in both formats and over restarts.

use anyhow::{Context, Result};
use guard_tests::{Agent, Lab, POOL, eventually};
use serde_json::{Value, json};

fn table(agent: &Agent, args: &[&str]) -> Result<String> {
    let output = agent.ctl(args)?;
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{args:?}: {}", output.stdout);
    assert!(output.stdout.lines().all(|line| line.chars().count() <= 80), "{}", output.stdout);
    Ok(output.stdout)
}

fn pool(agent: &Agent) -> Result<(u64, u64)> {
    let pool = agent.list(&["pools"], "pools")?.pop().context("no pool")?;
    let number = |key: &str| pool[key].as_u64().context("no number");
    Ok((number("capacity")?, number("free")?))
}

fn reason(agent: &Agent, args: &[&str]) -> Result<String> {
    let refusal = agent.ctl(args)?.refusal()?;
    Ok(format!("{}/{}", refusal.status, refusal.reason))
}

#[test]
fn a_child_subnet_is_carved_kept_over_a_kill_and_given_back() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    let (capacity, free) = pool(&agent)?;
    let reserve = ["subnets", "reserve", "--pool", POOL, "--id", "node-a", "--length", "28"];
    let dry = agent.json(&[&reserve[..], &["--dry-run"]].concat())?;
    assert_eq!((&dry["prefix"], &dry["dry_run"]), (&json!("10.8.64.16/28"), &json!(true)));
    assert_eq!(agent.json(&["subnets", "list"])?, json!({ "subnets": [] }));
    assert!(table(&agent, &["subnets", "list"])?.contains("no child subnets"));

    let subnet = agent.json(&reserve)?;
    assert_eq!(subnet["prefix"], "10.8.64.16/28");
    assert_eq!(agent.json(&reserve)?, subnet, "asked again");
    assert_eq!(pool(&agent)?, (capacity - 16, free - 16));
    agent.kill()?;
    agent.start_again()?;
    assert_eq!(pool(&agent)?, (capacity - 16, free - 16));
    assert_eq!(agent.json(&reserve)?, subnet, "asked again after a kill");
    let shown = table(&agent, &["subnets", "list", "--pool", POOL])?;
    assert!(shown.contains("10.8.64.16/28") && shown.contains("node-a"), "{shown}");

    for n in 0..15 {
        let address = agent.allocate(&format!("s{n}"))?.address.octets();
        assert!(!(16..32).contains(&address[3]), "{address:?} is in the subnet");
    }
    let allocate = ["allocate", "--pool", POOL, "--sandbox", "x", "--address", "10.8.64.20"];
    assert_eq!(reason(&agent, &allocate)?, "FAILED_PRECONDITION/ADDRESS_HELD");
    let with = |id: &'static str, prefix: &'static str| {
        ["subnets", "reserve", "--pool", POOL, "--id", id, "--prefix", prefix]
    };
    for (args, want) in [
        (with("node-a", "10.8.64.48/28"), "FAILED_PRECONDITION/SUBNET_HELD"),
        (with("node-b", "10.8.64.24/29"), "FAILED_PRECONDITION/SUBNET_OVERLAPS"),
        (with("node-b", "10.8.64.8/29"), "FAILED_PRECONDITION/SUBNET_LEASED"),
        (with("node-b", "10.8.64.0/29"), "INVALID_ARGUMENT/SUBNET_RESERVED"),
        (with("node-b", "10.9.0.0/29"), "INVALID_ARGUMENT/SUBNET_OUTSIDE_POOL"),
        (with("node-b", "10.8.64.0/24"), "INVALID_ARGUMENT/SUBNET_MALFORMED"),
    ] {
        assert_eq!(reason(&agent, &args)?, want, "{args:?}");
    }
    let large = ["subnets", "reserve", "--pool", POOL, "--id", "node-b", "--length", "25"];
    assert_eq!(reason(&agent, &large)?, "RESOURCE_EXHAUSTED/SUBNET_EXHAUSTED");
    agent.check()?;

    let release = ["subnets", "release", "--prefix", "10.8.64.16/28"];
    let dry = agent.json(&[&release[..], &["--dry-run"]].concat())?;
    assert_eq!(dry["outcome"], "done");
    assert_eq!(agent.list(&["subnets", "list"], "subnets")?.len(), 1);
    assert_eq!(agent.json(&release)?["subnet"]["id"], "node-a");
    assert_eq!(agent.json(&release)?["outcome"], "not_found", "once is as good as twice");
    assert!(table(&agent, &release)?.contains("not reserved"));
    assert_eq!(pool(&agent)?.0, capacity);
    assert_eq!(agent.lease(&allocate)?.address.to_string(), "10.8.64.20");
    agent.check()
}

#[test]
fn what_is_in_use_in_a_child_subnet_is_its_holders_affair_until_it_is_released() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let (inside, outside) = (lab.sandbox("inside")?, lab.sandbox("outside")?);
    agent.await_port(&inside)?;
    agent.await_port(&outside)?;
    outside.announce([10, 8, 64, 20].into())?;
    eventually("10.8.64.20 is quarantined", || agent.entry([10, 8, 64, 20].into()))?;
    // The live one is passed over.
    let reserve = ["subnets", "reserve", "--pool", POOL, "--id", "a", "--length", "28"];
    assert_eq!(agent.json(&reserve)?["prefix"], "10.8.64.32/28");
    inside.announce([10, 8, 64, 40].into())?;
    eventually("10.8.64.40 is live", || {
        let live = agent.list(&["live"], "live")?;
        Ok(live.into_iter().find(|live| live["address"] == "10.8.64.40"))
    })?;
    assert_eq!(agent.entry([10, 8, 64, 40].into())?, None);
    agent.check()?;
    agent.json(&["subnets", "release", "--id", "a"])?;
    let entry = agent.entry([10, 8, 64, 40].into())?.context("it is free and live")?;
    assert_eq!(entry["state"], "quarantined");
    agent.check()
}

#[test]
fn interface_names_pass_over_what_the_kernel_has() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = lab.agent()?;
    lab.host().ip("link add app0 type bridge\nlink add other type bridge")?;
    lab.host().ip("link property add dev other altname app2")?;
    let ask = |agent: &Agent, id: &str| {
        agent.json(&["interfaces", "reserve", "--prefix", "app", "--id", id])
    };
    let first = ask(&agent, "a")?;
    assert_eq!((&first["name"], &first["exists"]), (&json!("app1"), &json!(false)));
    assert_eq!(ask(&agent, "b")?["name"], "app3", "app2 is an alternative name");
    lab.host().ip("link add app1 type bridge")?;
    agent.stop()?;
    agent.start_again()?;
    let again = ask(&agent, "a")?;
    assert_eq!((&again["name"], &again["exists"]), (&json!("app1"), &json!(true)));
    let names = agent.list(&["interfaces", "list"], "interfaces")?;
    let names: Vec<_> = names.iter().map(|name| name["name"].as_str()).collect();
    assert_eq!(names, [Some("app1"), Some("app3")]);
    let shown = table(&agent, &["interfaces", "list"])?;
    assert!(shown.contains("app1       yes"), "{shown}");

    let release = ["interfaces", "release", "app1"];
    assert_eq!(agent.json(&[&release[..], &["--dry-run"]].concat())?["outcome"], "done");
    assert_eq!(agent.json(&release)?["interface"]["id"], "a");
    assert_eq!(agent.json(&release)?["outcome"], "not_found");
    assert_eq!(ask(&agent, "c")?["name"], "app4", "the kernel has app1 still");
    let long = ["interfaces", "reserve", "--prefix", "a-prefix-of-15-b", "--id", "a"];
    assert_eq!(reason(&agent, &long)?, "INVALID_ARGUMENT/NAME_MALFORMED");
    let unnamed = ["interfaces", "reserve", "--prefix", "app", "--id", "two words"];
    assert_eq!(reason(&agent, &unnamed)?, "INVALID_ARGUMENT/ID_MALFORMED");
    assert_eq!(agent.json(&["check"])?, json!({ "disagreements": Vec::<Value>::new() }));
    Ok(())
}
