//! More frames than anybody sends.

use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{command::run, lab::Lab, netns::Netns, sandbox::Sandbox, wait::eventually};

/// Nobody's address, for frames that ask for one. More than 1,024 that ask for the host's own
/// would fill the kernel's neighbour table, which all namespaces of a machine share.
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 9);

/// Frames that a sandbox sends over and over, as fast as the machine can, until this is dropped.
#[derive(Debug)]
pub struct Flood {
    trafgen: Child,
    host: Netns,
    port: String,
    began: (Instant, u64),
}

impl Lab {
    /// Floods a port by so many senders, and waits until they do. Each has a processor of its own.
    ///
    /// # Errors
    /// `trafgen` is not installed, or sends nothing.
    pub fn flood(&self, from: &Sandbox, frames: &[Vec<u8>], senders: usize) -> Result<Flood> {
        let file = self.dir().join(format!("flood-{}.cfg", from.name()));
        std::fs::write(&file, packets(frames)).with_context(|| file.display().to_string())?;
        // It sends from children. In a PID namespace of theirs they end with whoever began it.
        let mut command = from.netns().command("unshare");
        command.args(["--pid", "--fork", "--kill-child", "trafgen", "--dev=eth0"]);
        command.args(["--no-sock-mem", "--notouch-irq", "--no-cpu-stats"]);
        command.args([&format!("--cpus={senders}"), "--conf"]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let trafgen = command.spawn().context("cannot start trafgen")?;
        self.reaper().pid(trafgen.id())?;
        let (host, port) = (self.host().clone(), from.port().to_owned());
        let mut flood = Flood { trafgen, host, port, began: (Instant::now(), 0) };
        let before = flood.received()?;
        eventually("a flood", || Ok((flood.received()? > before + 10_000).then_some(())))?;
        flood.began = (Instant::now(), flood.received()?);
        Ok(flood)
    }
}

impl Flood {
    /// How many frames the port has received, by the kernel's count.
    ///
    /// # Errors
    /// The port is gone.
    pub fn received(&self) -> Result<u64> {
        let shown = run("ip", &["-n", self.host.name(), "-s", "-j", "link", "show", &self.port])?;
        let links: Value = serde_json::from_str(&shown).context("ip's JSON")?;
        let count = links.pointer("/0/stats64/rx/packets").and_then(Value::as_u64);
        count.with_context(|| format!("no count in {shown}"))
    }

    /// Frames a second, since it began.
    ///
    /// # Errors
    /// The port is gone.
    pub fn rate(&self) -> Result<f64> {
        let (since, before) = self.began;
        #[expect(clippy::cast_precision_loss, reason = "frames of a test")]
        let frames = (self.received()? - before) as f64;
        Ok(frames / since.elapsed().as_secs_f64())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.trafgen.kill();
        let _ = self.trafgen.wait();
    }
}

/// Frames in trafgen's language, trafgen(8).
fn packets(frames: &[Vec<u8>]) -> String {
    frames.iter().map(|frame| format!("{frame:?}\n").replace('[', "{").replace(']', "}")).collect()
}
