//! What cannot be: one clear message each, and exit code 1, or 78 for the configuration.

use std::os::unix::net::UnixListener;

use anyhow::{Context, Result};
use guard_tests::{Lab, Launch};

/// The agent gives up, and its last line has all of `parts` in it.
fn gives_up(lab: &Lab, launch: Launch, parts: &[&str]) -> Result<()> {
    ends_with(1, lab, launch, parts)
}

/// It gives up since it cannot use its configuration.
fn refuses(lab: &Lab, launch: Launch, parts: &[&str]) -> Result<()> {
    ends_with(78, lab, launch, parts)
}

fn ends_with(code: i32, lab: &Lab, launch: Launch, parts: &[&str]) -> Result<()> {
    let exit = lab.agent_that_fails(launch)?;
    assert_eq!(exit.code, Some(code), "{}", exit.log);
    let log = exit.log.to_lowercase();
    for part in parts {
        assert!(log.contains(&part.to_lowercase()), "{part:?} is not in: {}", exit.log);
    }
    assert!(!log.contains("panicked"), "{}", exit.log);
    let errors = exit.log.lines().filter(|line| !line.contains(" INFO ")).count();
    // A message may point to the place in the file on lines of its own.
    assert!((1..=8).contains(&errors), "not one clear message: {}", exit.log);
    Ok(())
}

#[test]
fn an_unknown_key_is_named_with_its_line() -> Result<()> {
    let lab = Lab::new()?;
    let text = lab.config()?.text()?;
    let line = text.lines().position(|line| line.starts_with("socket")).context("no socket")? + 1;
    let misspelt = text.replacen("socket = ", "sokcet = ", 1);
    refuses(&lab, Launch::text(&misspelt), &["sokcet", &format!("line {line}")])?;
    let text = format!("{text}\n[conflict]\nquite = \"1s\"\n");
    let line = text.lines().count();
    refuses(&lab, Launch::text(&text), &["quite", &format!("line {line}")])
}

#[test]
fn what_is_not_toml_is_named_with_its_line() -> Result<()> {
    let lab = Lab::new()?;
    refuses(&lab, Launch::text("state_dir = \n"), &["agent.toml", "line 1"])
}

#[test]
fn a_missing_file_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let launch =
        Launch::config(&lab.config()?)?.under(&["sh", "-c", "rm \"$4\" && exec \"$@\"", "sh"]);
    // After `sh` come the agent, `run`, `--config` and the file.
    refuses(&lab, launch, &["agent.toml"])
}

#[test]
fn overlapping_pools_are_refused() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config()?.with(
        "[[pool]]\nname = \"sandboxes\"\nbridge = \"rt0\"\nprefix = \"10.8.64.0/24\"\n\
         [[pool]]\nname = \"inner\"\nbridge = \"rt0\"\nprefix = \"10.8.64.128/25\"\n",
    )?;
    refuses(&lab, Launch::config(&config)?, &["sandboxes", "inner", "overlap"])
}

#[test]
fn a_gateway_outside_its_prefix_is_refused() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config()?.with_pool("gateway", "\"10.8.65.1\"")?;
    refuses(&lab, Launch::config(&config)?, &["gateway", "10.8.65.1", "10.8.64.0/24"])
}

#[test]
fn a_rule_that_opens_an_address_to_all_is_refused_in_enforce() -> Result<()> {
    let lab = Lab::new()?;
    let rule = "[[bridge.allow]]\nkind = \"shared\"\naddresses = [\"10.8.64.9\"]";
    let config =
        lab.config()?.with(&format!("[[bridge]]\nname = \"rt9\"\nmode = \"enforce\"\n{rule}"))?;
    refuses(&lab, Launch::config(&config)?, &["rt9", "shared", "name its ports"])
}

#[test]
fn a_socket_that_somebody_serves_is_left_to_them() -> Result<()> {
    let lab = Lab::new()?;
    let socket = lab.dir().join("guard.sock");
    let _somebody = UnixListener::bind(&socket)?;
    gives_up(&lab, Launch::config(&lab.config()?)?, &["guard.sock", "in use"])?;
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok(), "it is not served any more");
    Ok(())
}

#[test]
fn a_socket_that_nobody_serves_is_replaced() -> Result<()> {
    let lab = Lab::new()?;
    drop(UnixListener::bind(lab.dir().join("guard.sock"))?);
    lab.agent()?.allocate("s")?;
    Ok(())
}

#[test]
fn a_second_agent_on_the_same_state_gives_up_and_the_first_goes_on() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let config = lab.config()?;
    gives_up(&lab, Launch::config(&config)?, &["in use"])?;
    agent.allocate("s")?;
    Ok(())
}

#[test]
fn a_database_that_is_none_is_not_started_empty() -> Result<()> {
    let lab = Lab::new()?;
    let state = lab.dir().join("state");
    std::fs::create_dir(&state)?;
    let nonsense = b"this is not a database, and it is longer than the header of one".repeat(4);
    std::fs::write(state.join("leases.db"), &nonsense)?;
    gives_up(&lab, Launch::config(&lab.config()?)?, &["leases.db", "not a database"])?;
    assert_eq!(std::fs::read(state.join("leases.db"))?, nonsense, "it was written to");
    Ok(())
}

#[test]
fn a_kernel_without_btf_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let empty = lab.dir().join("empty");
    std::fs::create_dir(&empty)?;
    let script = format!("mount --bind {} /sys/kernel/btf && exec \"$@\"", empty.display());
    let launch =
        Launch::config(&lab.config()?)?.under(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    gives_up(&lab, launch, &["/sys/kernel/btf/vmlinux"])
}

#[test]
fn a_bpffs_that_is_not_mounted_is_named() -> Result<()> {
    let lab = Lab::new()?;
    // On sysfs, where a bpffs is usually mounted, not even a directory can be made.
    for nowhere in [lab.dir().join("nowhere/guard"), "/sys/fs/nowhere/guard".into()] {
        let config = lab.config()?.with(&format!("bpffs = {:?}", nowhere.to_string_lossy()))?;
        gives_up(
            &lab,
            Launch::config(&config)?,
            &["nowhere/guard: ", "mount -t bpf -o mode=0700 bpf"],
        )?;
    }
    anyhow::ensure!(!lab.dir().join("nowhere").exists(), "left behind");
    Ok(())
}

#[test]
fn a_missing_capability_is_named() -> Result<()> {
    let lab = Lab::new()?;
    for (kept, missing) in [
        ("+net_admin,+perfmon,+net_raw", "CAP_BPF"),
        ("+bpf,+perfmon,+net_raw", "CAP_NET_ADMIN"),
        ("+bpf,+net_admin,+net_raw", "CAP_PERFMON"),
    ] {
        let bounding = format!("--bounding-set=-all,{kept}");
        let launch = Launch::config(&lab.config()?)?.under(&["setpriv", &bounding, "--"]);
        gives_up(&lab, launch, &[missing]).with_context(|| kept.to_owned())?;
    }
    Ok(())
}

#[test]
fn four_capabilities_are_enough() -> Result<()> {
    let lab = Lab::new()?;
    let bounding = "--bounding-set=-all,+bpf,+net_admin,+perfmon,+net_raw";
    let launch = Launch::config(&lab.config()?)?.under(&["setpriv", bounding, "--"]);
    let agent = lab.agent_with(launch)?;
    let sandbox = lab.sandbox("a")?;
    agent.admit(&sandbox)?;
    assert_eq!(lab.programs_on(sandbox.port())?.len(), 1);
    agent.stop()
}
