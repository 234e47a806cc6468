//! The state directory on a machine with other users.

use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use guard_tests::{Lab, Launch};

/// A user without any rights (`nobody`).
const STRANGER: u32 = 65534;

fn can_read(path: &Path) -> Result<bool> {
    Ok(Command::new("head")
        .args(["-c1"])
        .arg(path)
        .uid(STRANGER)
        .gid(STRANGER)
        .output()?
        .status
        .success())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}

#[test]
fn a_stranger_opens_nothing_of_it_also_where_an_earlier_version_left_it_open() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    agent.allocate("a")?;
    let (store, exit) = (agent.store(), agent.stop());
    exit?;
    drop(agent);
    let state = lab.dir().join("state");
    for directory in [lab.dir(), &state] {
        set_mode(directory, 0o755)?;
    }
    let files = || -> Result<Vec<_>> {
        std::fs::read_dir(&state)?.map(|entry| Ok(entry?.path())).collect()
    };
    for file in files()? {
        ensure!(!can_read(&file)?, "{} was open from the start", file.display());
        set_mode(&file, 0o644)?;
        ensure!(can_read(&file)?, "{}: the test cannot tell", file.display());
    }
    let agent = lab.agent()?;
    agent.allocate("b")?;
    ensure!(files()?.contains(&store));
    for file in files()? {
        ensure!(!can_read(&file)?, "{} is open", file.display());
    }
    Ok(())
}

#[test]
fn one_that_others_write_is_refused_and_who_has_the_store_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let state = lab.dir().join("state");
    std::fs::create_dir_all(&state)?;
    set_mode(&state, 0o777)?;
    let exit = lab.agent_that_fails(Launch::config(&lab.config()?)?)?;
    ensure!(exit.code == Some(1) && exit.log.contains("can be written by others"), "{exit:?}");
    set_mode(&state, 0o755)?;
    let agent = lab.agent()?;
    let others = [("guard.sock", "second.sock"), (":9477", ":9478"), ("/bpf/guard", "/bpf/second")];
    let text = lab.config()?.text()?;
    let text = others.iter().fold(text, |text, (own, other)| text.replace(own, other));
    let exit = lab.agent_that_fails(Launch::text(&text))?;
    let holder = format!("is in use by process {} (guard-agent)", agent.pid());
    ensure!(exit.code == Some(1) && exit.log.contains(&holder), "{exit:?}");
    Ok(())
}
