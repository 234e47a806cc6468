//! One host with its bridge.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use aya::programs::tc::{SchedClassifier, TcAttachType};
use ipnet::Ipv4Net;

use crate::command::{require_root, run};
use crate::frame::Mac;
use crate::netns::Netns;
use crate::reaper::Reaper;
use crate::sandbox::Sandbox;

/// The bridge that a lab begins with.
pub const BRIDGE: &str = "rt0";

/// The bridge's own address, the gateway of the lab's pool.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 64, 1);

/// The pool that a lab's configuration begins with.
pub const POOL: &str = "sandboxes";

/// A host of its own: a namespace with a bridge in it, a bpffs, and a directory for everything
/// that would otherwise be in `/etc`, `/run` and `/var`. It goes when it is dropped, and when the
/// process ends in any other way.
#[derive(Debug)]
pub struct Lab {
    id: String,
    dir: PathBuf,
    host: Netns,
    prefix: Ipv4Net,
    sandboxes: AtomicU32,
    reaper: Arc<Reaper>,
}

static LABS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// A host with the bridge [`BRIDGE`] as [`GATEWAY`] of a /24.
    ///
    /// # Errors
    /// Not root, or the kernel refuses.
    pub fn new() -> Result<Self> {
        Self::with_prefix(24)
    }

    /// As [`Lab::new`], with the length of the prefix.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn with_prefix(len: u8) -> Result<Self> {
        let lab = Self::without_bridge(len)?;
        lab.add_bridge(BRIDGE)?;
        Ok(lab)
    }

    /// As [`Lab::with_prefix`], and the bridge is yet to come.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn without_bridge(len: u8) -> Result<Self> {
        require_root()?;
        let prefix = Ipv4Net::new(GATEWAY, len).context("the length of the lab's prefix")?;
        let id = format!("guard-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let reaper = Arc::new(Reaper::start()?);
        // Short, since the path of a Unix socket has room for 107 bytes.
        let dir =
            tempfile::Builder::new().prefix("guard-").tempdir().context("a directory")?.keep();
        reaper.dir(&dir)?;
        let bpffs = dir.join("bpf");
        std::fs::create_dir(&bpffs).with_context(|| format!("creating {}", bpffs.display()))?;
        reaper.mount(&bpffs)?;
        run("mount", &["-t", "bpf", "bpf", &bpffs.to_string_lossy()])?;
        let host = Netns::create(format!("{id}-host"), &reaper)?;
        Ok(Self { id, dir, host, prefix, sandboxes: AtomicU32::new(0), reaper })
    }

    /// Adds a bridge. [`BRIDGE`] gets the address [`GATEWAY`], any other none.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn add_bridge(&self, name: &str) -> Result<()> {
        // With a MAC of its own: one that is taken from the ports would change as they come and go.
        let mac = bridge_mac(name);
        self.host.ip(&format!("link add {name} address {mac} type bridge\nlink set {name} up"))?;
        if name == BRIDGE {
            self.host.ip(&format!("address add {} dev {name}", self.prefix))?;
        }
        Ok(())
    }

    /// Removes a bridge.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn remove_bridge(&self, name: &str) -> Result<()> {
        self.host.ip(&format!("link delete {name}"))
    }

    /// A namespace whose `eth0` is the port `veth-NAME` of [`BRIDGE`], without an address, and
    /// with a MAC that no other sandbox of this lab has had.
    ///
    /// # Errors
    /// What `ip` says; a name of more than ten characters is too long for the port's.
    pub fn sandbox(&self, name: &str) -> Result<Sandbox> {
        let number = self.sandboxes.fetch_add(1, Ordering::Relaxed);
        self.sandbox_with(name, BRIDGE, Mac::numbered(number + 0x0a))
    }

    /// As [`Lab::sandbox`], choosing bridge and MAC. The name may be used again once it is deleted.
    ///
    /// # Errors
    /// As [`Lab::sandbox`].
    pub fn sandbox_with(&self, name: &str, bridge: &str, mac: Mac) -> Result<Sandbox> {
        let netns = Netns::create(format!("{}-{name}", self.id), &self.reaper)?;
        Sandbox::create(netns, self.host.clone(), name, bridge, mac, self.prefix.prefix_len())
    }

    /// The namespace of the host.
    #[must_use]
    pub fn host(&self) -> &Netns {
        &self.host
    }

    /// The lab's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The prefix of the bridge, with the bridge's address in it.
    #[must_use]
    pub fn prefix(&self) -> Ipv4Net {
        self.prefix
    }

    /// The MAC of a bridge of this lab.
    #[must_use]
    pub fn bridge_mac(&self, bridge: &str) -> Mac {
        bridge_mac(bridge)
    }

    /// The ids of the TCX programs on the ingress of an interface of the host, as the kernel has
    /// them: a second opinion on what the agent says of its ports.
    ///
    /// # Errors
    /// There is no such interface, or the kernel knows no TCX.
    pub fn tcx_programs(&self, interface: &str) -> Result<Vec<u32>> {
        let (_, programs) = self
            .host
            .run(|| SchedClassifier::query_tcx(interface, TcAttachType::Ingress))?
            .with_context(|| format!("TCX programs of {interface}"))?;
        Ok(programs.iter().map(aya::programs::ProgramInfo::id).collect())
    }

    /// Puts a file system of its own beneath the state directory, of this many KiB.
    ///
    /// # Errors
    /// What `mount` says.
    pub fn small_state(&self, kib: u32) -> Result<PathBuf> {
        let state = self.dir.join("state");
        std::fs::create_dir(&state).with_context(|| format!("creating {}", state.display()))?;
        self.reaper.mount(&state)?;
        let size = format!("size={kib}k");
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &state.to_string_lossy()])?;
        Ok(state)
    }

    /// Makes the file system beneath the state directory read-only, or writable again.
    ///
    /// # Errors
    /// What `mount` says.
    pub fn remount_state(&self, writable: bool) -> Result<()> {
        let option = if writable { "remount,rw" } else { "remount,ro" };
        run("mount", &["-o", option, &self.dir.join("state").to_string_lossy()]).map(drop)
    }

    /// Everything that is pinned in the lab's bpffs.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn pinned(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut dirs = vec![self.dir.join("bpf")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
                let path = entry?.path();
                if path.is_dir() { dirs.push(path) } else { found.push(path) }
            }
        }
        Ok(found)
    }

    /// Starts a process in the host's namespace that does nothing, and returns its id: something
    /// for the lab to take away.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn sleeper(&self) -> Result<u32> {
        let child = self.host.command("sleep").arg("1h").stdout(Stdio::null()).spawn();
        let pid = child.context("cannot start a process")?.id();
        self.reaper.pid(pid)?;
        Ok(pid)
    }

    pub(crate) fn reaper(&self) -> Arc<Reaper> {
        Arc::clone(&self.reaper)
    }
}

fn bridge_mac(bridge: &str) -> Mac {
    let sum = bridge.bytes().fold(0_u8, u8::wrapping_add);
    Mac::new([0x02, 0xb0, 0, 0, 0, sum])
}
