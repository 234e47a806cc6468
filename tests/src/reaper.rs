//! The process that takes away what a lab has made.
//!
//! Only this process holds the writing end of the reaper's standard input (it is closed on exec),
//! so the kernel closes it however the process ends, and that end is the signal. The reaper is a
//! shell script because a test executable cannot be started a second time as something else.

use std::fmt::Display;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use parking_lot::Mutex;

#[derive(Debug)]
pub(crate) struct Reaper {
    process: Child,
    stdin: Mutex<Option<ChildStdin>>,
}

impl Reaper {
    pub(crate) fn start() -> Result<Self> {
        let mut process = Command::new("sh")
            .args(["-c", include_str!("reaper.sh"), "guard-lab-reaper"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C goes to the terminal's foreground group, and the reaper must outlive it.
            .process_group(0)
            .spawn()
            .context("cannot start the lab's reaper")?;
        let stdin = process.stdin.take();
        Ok(Self { process, stdin: Mutex::new(stdin) })
    }

    pub(crate) fn netns(&self, name: &str) -> Result<()> {
        self.tell(format_args!("netns {name}"))
    }

    pub(crate) fn mount(&self, path: &Path) -> Result<()> {
        self.tell(format_args!("mount {}", path.display()))
    }

    pub(crate) fn dir(&self, path: &Path) -> Result<()> {
        self.tell(format_args!("dir {}", path.display()))
    }

    pub(crate) fn pid(&self, pid: u32) -> Result<()> {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            return Ok(()); // It has ended and been waited for.
        };
        let started = stat
            .rsplit_once(") ")
            .and_then(|(_, fields)| fields.split(' ').nth(19))
            .with_context(|| format!("no start time in {stat:?}"))?;
        self.tell(format_args!("pid {pid} {started}"))
    }

    fn tell(&self, line: impl Display) -> Result<()> {
        let mut stdin = self.stdin.lock();
        let pipe = stdin.as_mut().context("the lab is over")?;
        writeln!(pipe, "{line}").context("telling the lab's reaper")
    }
}

/// A test that leaves something behind has failed.
impl Drop for Reaper {
    #[expect(clippy::panic, reason = "a test must not pass over it")]
    fn drop(&mut self) {
        self.stdin.lock().take();
        let mut said = String::new();
        if let Some(stderr) = &mut self.process.stderr {
            // What it says is read before it is waited for, since a full pipe would hold it.
            let _ = stderr.read_to_string(&mut said);
        }
        let outcome = self.process.wait();
        if !outcome.as_ref().is_ok_and(ExitStatus::success) {
            let why = format!("the lab's reaper left something behind: {outcome:?}\n{said}");
            if std::thread::panicking() {
                eprintln!("{why}");
            } else {
                panic!("{why}");
            }
        }
    }
}
