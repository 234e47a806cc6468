//! arpwatch and arpalert, as Debian has them, on the bridge's own device, where every broadcast
//! comes by.

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

use anyhow::{Context, Result};
use guard_tests::{BRIDGE, Lab, eventually};
use parking_lot::Mutex;

use super::{
    News,
    cost::{Cost, packet_statistics},
};

pub(super) const ARPWATCH: &str = "arpwatch";
pub(super) const ARPALERT: &str = "arpalert";

/// What one of its lines says.
enum Word {
    /// An address that it did not know.
    Known,
    /// An address that another MAC has now.
    Changed(Ipv4Addr),
}

/// A running peer.
pub(super) struct Peer {
    name: &'static str,
    process: Child,
    known: Arc<AtomicUsize>,
    /// Frames received and dropped so far: the kernel counts anew whenever it is asked.
    frames: Mutex<(u64, u64)>,
}

impl Peer {
    /// Starts arpwatch; it knows nobody.
    ///
    /// # Errors
    /// It is not installed.
    pub(super) fn arpwatch(lab: &Lab, news: Sender<News>) -> Result<Self> {
        let file = lab.dir().join("arp.dat");
        std::fs::write(&file, "").with_context(|| file.display().to_string())?;
        let mut command = lab.host().command(ARPWATCH);
        // In the foreground, with its reports on the terminal.
        command.args(["-d", "-N", "-p", "-i", BRIDGE, "-f"]).arg(file);
        Self::start(ARPWATCH, command, news, |line| {
            let subject = line.strip_prefix("Subject: ")?;
            let (what, rest) = subject.split_once(" (")?;
            match what {
                "new station" => Some(Word::Known),
                "changed ethernet address" | "flip flop" | "reused old ethernet address" => {
                    Some(Word::Changed(rest.split(')').next()?.parse().ok()?))
                }
                _ => None,
            }
        })
    }

    /// Starts arpalert; it knows nobody.
    ///
    /// # Errors
    /// It is not installed.
    pub(super) fn arpalert(lab: &Lab, news: Sender<News>) -> Result<Self> {
        let (file, dir) = (lab.dir().join("arpalert.conf"), lab.dir().display());
        // Told of everything at once, and of each thing: without its limits against floods.
        let settings = format!(
            "user = root\nuse syslog = false\nlog file = \"/dev/stderr\"\nlog level = 6\n\
             lock file = \"{dir}/arpalert.pid\"\nmaclist file = \"/dev/null\"\n\
             maclist alert file = \"/dev/null\"\nmaclist leases file = \"{dir}/arpalert.leases\"\n\
             daemon = false\ncatch only arp = true\nmax entry = 1000000\ndump inter = 86400\n\
             anti flood interval = 0\nanti flood global = 1000000\nmax request = 1000000\n\
             log mac vendor = false\nlog new address = true\nlog mac change = true\n"
        );
        std::fs::write(&file, settings).with_context(|| file.display().to_string())?;
        let mut command = lab.host().command(ARPALERT);
        command.arg("-i").arg(BRIDGE).arg("-f").arg(file);
        Self::start(ARPALERT, command, news, |line| {
            let field =
                |name: &str| line.split([',', ' ']).find_map(|part| part.strip_prefix(name));
            match field("type=")? {
                "new" | "new_mac" => Some(Word::Known),
                "mac_change" => Some(Word::Changed(field("ip=")?.parse().ok()?)),
                _ => None,
            }
        })
    }

    fn start(
        name: &'static str,
        mut command: Command,
        news: Sender<News>,
        read: fn(&str) -> Option<Word>,
    ) -> Result<Self> {
        // What they say on which of the two is theirs.
        let (said, writer) = std::io::pipe().context("a pipe")?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let started = command.spawn();
        // It holds the writing ends, and reading would never end.
        drop(command);
        let process = started.with_context(|| format!("cannot start {name}"))?;
        let known = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&known);
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                let at = Instant::now();
                match read(&line) {
                    Some(Word::Known) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    // Nobody listens any more when the benchmark is over.
                    Some(Word::Changed(address)) => drop(news.send((name, address, at))),
                    None => {}
                }
            }
        });
        let peer = Self { name, process, known, frames: Mutex::default() };
        eventually(&format!("{name} listening"), || Ok(peer.cost().ok()))?;
        Ok(peer)
    }

    /// What it has taken so far.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn cost(&self) -> Result<Cost> {
        // `nsenter` has become the peer.
        let pid = self.process.id();
        let (received, dropped) = packet_statistics(pid)?;
        let mut frames = self.frames.lock();
        frames.0 += received;
        frames.1 += dropped;
        Cost::of_peer(pid, *frames)
    }

    /// Waits until it has met so many.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn await_known(&self, count: usize) -> Result<()> {
        eventually(&format!("{} knowing {count}", self.name), || {
            Ok((self.known.load(Ordering::Relaxed) >= count).then_some(()))
        })
        .with_context(|| format!("it knows {}", self.known.load(Ordering::Relaxed)))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
