//! Files that an administrator names: regular ones, no links, and nothing in them is carried out.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use guard_tests::{Agent, Lab, run};

/// The reason of a refusal, which comes soon.
fn refused(agent: &Agent, args: &[&str]) -> Result<String> {
    let began = Instant::now();
    let refusal = agent.ctl(args)?.refusal()?;
    assert!(began.elapsed().as_secs() < 10, "{args:?}: {:?}", began.elapsed());
    Ok(refusal.reason)
}

/// The files below a directory, each with what is in it.
fn files(directory: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        // The agent's own store and its history go on meanwhile.
        let name = path.file_name().context("no name")?.to_string_lossy().into_owned();
        if path.is_file() && !name.starts_with("incidents.db") {
            found.insert(name, fs::read(&path)?);
        }
    }
    Ok(found)
}

#[test]
fn pipes_links_and_devices_are_refused() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    agent.allocate("a")?;
    let at = |name: &str| lab.dir().join(name).to_string_lossy().into_owned();
    agent.json(&["backup", &at("good")])?;
    run("mkfifo", &[&at("pipe")])?;
    symlink(at("good"), at("link"))?;
    symlink(at("nowhere"), at("dangling"))?;
    // A copy of it would fill any disk.
    fs::File::create(at("huge"))?.set_len(1 << 40)?;
    for other in [at("pipe"), at("link"), "/dev/zero".to_owned(), at("none"), at("huge")] {
        let reason = refused(&agent, &["recover", "--from", &other, "--dry-run"])?;
        assert_eq!(reason, "FILE_UNUSABLE", "{other}");
    }
    for other in [at("pipe"), at("link"), at("dangling")] {
        assert_eq!(refused(&agent, &["backup", &other])?, "FILE_EXISTS", "{other}");
    }
    assert!(!lab.dir().join("nowhere").exists());
    // host-local's directory, and in it something else than a file.
    fs::create_dir(lab.dir().join("net"))?;
    run("mkfifo", &[&at("net/10.8.64.9")])?;
    let net = at("net");
    assert_eq!(refused(&agent, &["adopt", "--from-host-local", &net])?, "FILE_UNUSABLE");
    fs::remove_file(at("net/10.8.64.9"))?;
    symlink("/etc/hostname", at("net/10.8.64.9"))?;
    assert_eq!(refused(&agent, &["adopt", "--from-host-local", &net])?, "FILE_UNUSABLE");
    agent.check()
}

#[test]
fn a_dry_run_changes_neither_the_store_nor_what_is_handed_in() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    agent.allocate("a")?;
    let directory = lab.dir().join("elsewhere");
    fs::create_dir(&directory)?;
    let backup = directory.join("backup").to_string_lossy().into_owned();
    agent.json(&["backup", &backup])?;
    let (before, state) = (files(&directory)?, files(&lab.dir().join("state"))?);
    agent.json(&["recover", "--from", &backup, "--dry-run"])?;
    assert_eq!(files(&directory)?, before);
    assert_eq!(files(&lab.dir().join("state"))?, state);
    // It is what it was taken for.
    agent.json(&["recover", "--from", &backup, "--yes"])?;
    assert_eq!(files(&directory)?, before);
    agent.check()
}
