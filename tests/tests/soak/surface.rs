//! HTTP/2 by chance, from somebody who may read: the agent goes on.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guard_tests::{Lab, Launch, binary};

use crate::asked;

/// For how many seconds, instead of a minute.
const VARIABLE: &str = "GUARD_SOAK_SURFACE";
const READER: &str = "61001";
const READERS: u32 = 61002;

#[test]
fn frames_by_chance_end_nothing_and_cost_no_memory() -> Result<()> {
    let seconds = asked(VARIABLE)?.unwrap_or(60).to_string();
    let lab = Lab::new()?;
    std::fs::set_permissions(lab.dir(), std::fs::Permissions::from_mode(0o711))?;
    let access = format!("[access]\nreader_gids = [{READERS}]\n");
    let agent = lab.agent_with(Launch::config(&lab.config()?.with(&access)?)?)?;
    for number in 0..50 {
        agent.allocate(&format!("before-{number}"))?;
    }
    let before = agent.resident_kib()?;
    let mut frames = Command::new(binary("read-as")?);
    frames.arg(agent.socket()).args([READER, &*READERS.to_string(), "", "frames", &seconds]);
    let sender = frames.stdout(Stdio::piped()).spawn().context("read-as")?;
    let (told, ended) = mpsc::channel();
    std::thread::spawn(move || told.send(sender.wait_with_output()));
    let mut turns = (0..100).cycle();
    let output = loop {
        match ended.recv_timeout(Duration::from_millis(500)) {
            Ok(output) => break output?,
            Err(_) => agent.allocate(&format!("during-{}", turns.next().unwrap_or_default()))?,
        };
    };
    ensure!(output.status.success(), "{output:?}");
    let sent: u64 = String::from_utf8(output.stdout)?.trim().parse()?;
    let grown = agent.resident_kib()?.saturating_sub(before);
    eprintln!("{sent} frames, {grown} KiB more");
    ensure!(sent > 10_000, "only {sent} frames");
    ensure!(grown < 64 << 10, "{grown} KiB more");
    ensure!(agent.journal().count(&["panicked"]) == 0, "{}", agent.journal().text());
    agent.check()?;
    agent.stop()
}
