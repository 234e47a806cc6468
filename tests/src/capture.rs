//! Captures, by tcpdump.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{lab::Lab, wait::eventually};

/// tcpdump on an interface of a lab's host. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    process: Child,
    file: PathBuf,
}

impl Capture {
    /// Captures ARP from now on.
    ///
    /// # Errors
    /// tcpdump is not there, or says no.
    pub fn start(lab: &Lab, interface: &str) -> Result<Self> {
        let file = lab.dir().join(format!("{interface}.pcap"));
        let mut command = lab.host().command("tcpdump");
        // As root, and each frame on disk as it comes.
        command.args(["-Z", "root", "-U", "-i", interface, "-w"]).arg(&file).arg("arp");
        let mut process = command.stderr(Stdio::piped()).spawn().context("tcpdump")?;
        lab.reaper().pid(process.id())?;
        let stderr = process.stderr.take().context("tcpdump without stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        // It says so once it listens.
        let listens =
            lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening on"));
        ensure!(listens, "tcpdump does not listen on {interface}");
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { process, file })
    }

    /// Waits for so many ARP frames, and ends the capture.
    ///
    /// # Errors
    /// They do not come.
    pub fn of_frames(mut self, frames: u64) -> Result<PathBuf> {
        /// The file's header, and of a frame the record's header and an ARP packet in Ethernet.
        const LENGTHS: (u64, u64) = (24, 16 + 42);
        eventually("the frames in the capture", || {
            let len = std::fs::metadata(&self.file).map_or(0, |file| file.len());
            Ok((len >= LENGTHS.0 + frames * LENGTHS.1).then_some(()))
        })?;
        kill(Pid::from_raw(self.process.id().try_into()?), Signal::SIGTERM)?;
        self.process.wait().context("tcpdump")?;
        Ok(self.file.clone())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
