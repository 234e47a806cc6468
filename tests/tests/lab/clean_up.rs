//! Nothing of a lab stays, however its process ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use guard_tests::{Lab, eventually};

/// The places where something of a lab could be left.
fn traces(lab: &Lab) -> Result<Vec<String>> {
    let sandbox = lab.sandbox("a")?;
    Ok(vec![
        lab.dir().display().to_string(),
        lab.host().path().display().to_string(),
        sandbox.netns().path().display().to_string(),
    ])
}

#[test]
fn it_goes_when_it_is_dropped() -> Result<()> {
    let lab = Lab::new()?;
    let traces = traces(&lab)?;
    assert!(traces.iter().all(|trace| Path::new(trace).exists()));
    drop(lab);
    assert!(traces.iter().all(|trace| !Path::new(trace).exists()), "{traces:?}");
    Ok(())
}

/// Its first thread has ended, which the kernel shows as a zombie, and another one has a file open.
const WITHOUT_ITS_FIRST_THREAD: &str = r#"
import ctypes, sys, threading
held = open(sys.argv[1], "w")
threading.Thread(target=threading.Event().wait).start()
ctypes.CDLL(None).pthread_exit(None)
"#;

#[test]
fn a_file_system_goes_with_a_process_of_which_only_a_thread_is_left() -> Result<()> {
    let lab = Lab::new()?;
    let state = lab.small_state(512)?;
    let held = state.join("held");
    let mut python = lab.host().command("python3");
    let pid = lab.start(python.args(["-c", WITHOUT_ITS_FIRST_THREAD]).arg(&held))?;
    eventually("a process without its first thread", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Ok((held.exists() && stat.contains(") Z ")).then_some(()))
    })?;
    let dir = lab.dir().to_owned();
    drop(lab);
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    assert!(!mounts.contains(&*state.to_string_lossy()), "{mounts}");
    assert!(!dir.exists(), "{} is left", dir.display());
    Ok(())
}

/// Runs [`a_lab_that_waits`] as a process of its own, ends it, and sees what it leaves.
fn ends_without_a_trace(signal: &str) -> Result<()> {
    // A shell has what it runs in the background ignore SIGINT.
    let mut child = Command::new("env")
        .arg("--default-signal=INT")
        .arg(std::env::current_exe()?)
        .args(["--exact", "clean_up::a_lab_that_waits", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut said =
        BufReader::new(child.stdout.take().context("no output")?).lines().map_while(Result::ok);
    let mut traces: Vec<String> = said
        .by_ref()
        .take_while(|line| line != "made")
        .filter_map(|line| line.split_once("TRACE ").map(|(_, trace)| trace.to_owned()))
        .collect();
    assert_eq!(traces.len(), 4, "{traces:?}");
    assert!(traces.iter().all(|trace| Path::new(trace).exists()), "{traces:?}");
    if signal == "panic" {
        drop(child.stdin.take());
    } else {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status()?.success());
    }
    let status = child.wait()?;
    assert_eq!(status.signal().is_none(), signal == "panic", "{status}");
    eventually(&format!("after {signal}: nothing of {traces:?}"), || {
        traces.retain(|trace| Path::new(trace).exists());
        Ok(traces.is_empty().then_some(()))
    })?;
    Ok(())
}

#[test]
fn it_goes_with_a_process_that_is_killed() -> Result<()> {
    ends_without_a_trace("-KILL")
}

#[test]
fn it_goes_with_a_process_that_is_interrupted() -> Result<()> {
    ends_without_a_trace("-INT")
}

#[test]
fn it_goes_with_a_test_that_panics() -> Result<()> {
    ends_without_a_trace("panic")
}

#[test]
#[ignore = "run by the tests above, which end it"]
fn a_lab_that_waits() -> Result<()> {
    let lab = Lab::new()?;
    // A process of the lab, as the agent is one.
    let sleeper = lab.sleeper()?;
    for trace in traces(&lab)? {
        println!("TRACE {trace}");
    }
    println!("TRACE /proc/{sleeper}");
    println!("made");
    std::io::stdin().lines().for_each(drop);
    panic!("as it was told");
}
