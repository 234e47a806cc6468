//! More frames than anybody sends.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::run;
use crate::lab::Lab;
use crate::netns::Netns;
use crate::sandbox::Sandbox;
use crate::wait::eventually;

/// Nobody's address, for frames that ask for one. More than 1,024 that ask for the host's own
/// would fill the kernel's neighbour table, which all namespaces of a machine share.
pub const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 9);

/// Frames that a sandbox sends over and over, as fast as the machine can, until this is dropped.
#[derive(Debug)]
pub struct Flood {
    tcpreplay: Child,
    host: Netns,
    port: String,
    began: (Instant, u64),
}

impl Lab {
    /// Floods a port, and waits until it does.
    ///
    /// # Errors
    /// `tcpreplay` is not installed, or sends nothing.
    pub fn flood(&self, from: &Sandbox, frames: &[Vec<u8>]) -> Result<Flood> {
        let file = self.dir().join(format!("flood-{}.pcap", from.name()));
        write_pcap(&file, frames)?;
        let mut command = from.netns().command("tcpreplay");
        command.args(["--topspeed", "--preload-pcap", "--loop=0", "--quiet", "--intf1=eth0"]);
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let tcpreplay = command.spawn().context("cannot start tcpreplay")?;
        self.reaper().pid(tcpreplay.id())?;
        let (host, port) = (self.host().clone(), from.port().to_owned());
        let mut flood = Flood { tcpreplay, host, port, began: (Instant::now(), 0) };
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
        let _ = self.tcpreplay.kill();
        let _ = self.tcpreplay.wait();
    }
}

/// Writes frames as a capture: the classic format of libpcap, pcap-savefile(5).
fn write_pcap(path: &Path, frames: &[Vec<u8>]) -> Result<()> {
    const ETHERNET: u32 = 1;
    const SNAPLEN: u32 = 65_535;
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, SNAPLEN, ETHERNET] {
        bytes.extend(word.to_le_bytes());
    }
    for frame in frames {
        let len = u32::try_from(frame.len()).context("a frame's length")?;
        for word in [0, 0, len, len] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    std::fs::write(path, bytes).with_context(|| path.display().to_string())
}
