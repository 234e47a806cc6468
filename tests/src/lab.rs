//! One host with its bridge.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use aya::programs::{
    ProgramError, ProgramInfo,
    tc::{SchedClassifier, TcAttachType},
};
use ipnet::Ipv4Net;

use crate::{
    bpf::{self, FullMap, detach_link},
    command::{binary, output, require_root, run},
    frame::Mac,
    launch::PANIC,
    netns::Netns,
    reaper::Reaper,
    sandbox::{Port, Sandbox},
    wait::eventually,
};

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
        self.sandbox_behind(name, bridge, mac, &Port { name: format!("veth-{name}"), number: None })
    }

    /// As [`Lab::sandbox_with`], choosing its port too.
    ///
    /// # Errors
    /// As [`Lab::sandbox`], or the number is taken.
    pub fn sandbox_behind(
        &self,
        name: &str,
        bridge: &str,
        mac: Mac,
        port: &Port,
    ) -> Result<Sandbox> {
        let (netns, host) = (self.container(name)?, self.host.clone());
        Sandbox::create(netns, host, name, bridge, mac, self.prefix.prefix_len(), port)
    }

    /// A namespace with nothing in it, as a runtime makes one before it calls a CNI plugin.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn container(&self, name: &str) -> Result<Netns> {
        Netns::create(self.container_name(name), &self.reaper)
    }

    /// Removes what [`Lab::container`] made, and with it every interface in it.
    ///
    /// # Errors
    /// There is none.
    pub fn remove_container(&self, name: &str) -> Result<()> {
        run("ip", &["netns", "del", &self.container_name(name)]).map(drop)
    }

    /// How `ip netns` names a container.
    #[must_use]
    pub fn container_name(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
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

    /// How this kernel attaches programs to an interface: `tcx`, and before Linux 6.6 `clsact`.
    ///
    /// # Errors
    /// The lab is gone.
    pub fn attach(&self) -> Result<&'static str> {
        let tcx = self.host.run(|| SchedClassifier::query_tcx("lo", TcAttachType::Ingress))?;
        Ok(if tcx.is_ok() { "tcx" } else { "clsact" })
    }

    /// The ids of the programs on the ingress of an interface of the host, as the kernel has them:
    /// a second opinion on what the agent says of its ports.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn programs_on(&self, interface: &str) -> Result<Vec<u32>> {
        if self.attach()? == "clsact" {
            return self.filters_on(interface);
        }
        let query = || SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
        eventually("TCX programs", || match self.host.run(query)? {
            Ok((_, programs)) => Ok(Some(programs.iter().map(ProgramInfo::id).collect())),
            // One was taken off between the list and the question what it is.
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("TCX programs of {interface}")),
        })
    }

    /// Puts a file system of its own beneath the state directory, of this many KiB.
    ///
    /// # Errors
    /// What `mount` says.
    pub fn small_state(&self, kib: u32) -> Result<PathBuf> {
        let state = self.dir.join("state");
        std::fs::create_dir(&state).with_context(|| format!("creating {}", state.display()))?;
        self.reaper.mount(&state)?;
        let size = format!("size={kib}k,mode=0700");
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

    fn filters_on(&self, interface: &str) -> Result<Vec<u32>> {
        let show = ["-n", self.host.name(), "-json", "filter", "show", "dev", interface, "ingress"];
        let shown = run("tc", &show)?;
        let filters: Vec<serde_json::Value> =
            serde_json::from_str(&shown).with_context(|| format!("filters: {shown:?}"))?;
        let ids = filters.iter().filter_map(|filter| filter["options"]["prog"]["id"].as_u64());
        ids.map(|id| u32::try_from(id).context("a program's id")).collect()
    }

    /// Takes the program off a port behind the agent's back.
    ///
    /// # Errors
    /// There is none.
    pub fn take_program_off(&self, interface: &str) -> Result<()> {
        if self.attach()? == "clsact" {
            let del = ["-n", self.host.name(), "filter", "del", "dev", interface, "ingress"];
            return run("tc", &del).map(drop);
        }
        let ifindex = self.host.run(|| nix::net::if_::if_nametoindex(interface))??;
        let link = format!("link-{ifindex}");
        let pins = self.pinned()?;
        let pin = pins.iter().find(|pin| pin.ends_with(&link)).with_context(|| link.clone())?;
        std::fs::remove_file(pin).with_context(|| pin.display().to_string())
    }

    /// Detaches the link of a port and leaves its pin, as `bpftool link detach` does.
    ///
    /// # Errors
    /// There is none.
    pub fn detach_link(&self, interface: &str) -> Result<()> {
        let ifindex = self.host.run(|| nix::net::if_::if_nametoindex(interface))??;
        let link = format!("link-{ifindex}");
        let pins = self.pinned()?;
        let pin = pins.iter().find(|pin| pin.ends_with(&link)).with_context(|| link.clone())?;
        detach_link(pin).with_context(|| pin.display().to_string())
    }

    /// Runs `guard-agent detach`, with the configuration of the last agent.
    ///
    /// # Errors
    /// What it says.
    pub fn detach(&self) -> Result<()> {
        self.detach_with(&[])
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// What it says.
    pub fn detach_with(&self, arguments: &[&str]) -> Result<()> {
        let mut detach = self.host.command(binary("guard-agent")?);
        let detach = detach.arg("detach").arg("--config").arg(self.dir.join("agent.toml"));
        output(detach.args(arguments)).map(drop)
    }

    /// Everything that the agent has pinned in the lab's bpffs.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn pinned(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        // What lies above it is the kernel's own.
        let mut dirs = vec![self.dir.join("bpf/guard")];
        dirs.retain(|dir| dir.exists());
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
                let path = entry?.path();
                if path.is_dir() { dirs.push(path) } else { found.push(path) }
            }
        }
        Ok(found)
    }

    /// Takes the events that nobody has read yet, and returns how many there were. Only while no
    /// agent runs: one that does knows where it was.
    ///
    /// # Errors
    /// There is no ring.
    pub fn lose_events(&self) -> Result<usize> {
        let ring = self.pinned()?.into_iter().find(|pin| pin.ends_with("EVENTS"));
        bpf::drain(&ring.context("no ring is pinned")?)
    }

    /// Writes the highest generation that the kernel remembers.
    ///
    /// # Errors
    /// It is not pinned.
    pub fn set_generation(&self, generation: u64) -> Result<()> {
        bpf::set_number(&self.pin("GENERATION")?, generation)
    }

    /// How many leases the kernel has a holder for.
    ///
    /// # Errors
    /// No such map is pinned.
    pub fn holders(&self) -> Result<usize> {
        bpf::count_leased(&self.pin("OWNED")?)
    }

    /// Takes all entries out of a map of the agent's, as `bpftool map delete` does, and returns how many
    /// there were.
    ///
    /// # Errors
    /// No such map is pinned, or the agent is not the only one to write it.
    pub fn clear_map(&self, name: &str) -> Result<usize> {
        bpf::clear(&self.pin(name)?, name)
    }

    /// Says in the kernel, as someone else, that a port is in no VLAN.
    ///
    /// # Errors
    /// As [`Lab::clear_map`].
    pub fn set_no_vlans(&self, ifindex: u32) -> Result<()> {
        bpf::set_no_vlans(&self.pin("VLANS")?, ifindex)
    }

    /// Writes so many bindings into the kernel's map of owners, of addresses that no pool has. Only while
    /// the agent stands still: it takes out what it has not written.
    ///
    /// # Errors
    /// No such map is pinned, or it has no room.
    pub fn fill_owners(&self, bridge: &str, count: u32) -> Result<()> {
        let bridge = self.host.run(|| nix::net::if_::if_nametoindex(bridge))??;
        bpf::bind_many(&self.pin("OWNED")?, bridge, count)
    }

    fn pin(&self, name: &str) -> Result<PathBuf> {
        let pin = self.pinned()?.into_iter().find(|pin| pin.ends_with(name));
        pin.with_context(|| format!("{name} is not pinned"))
    }

    /// Leaves no room in the program's map of live addresses.
    ///
    /// # Errors
    /// No such map is pinned.
    pub fn fill_live_map(&self) -> Result<FullMap> {
        let map = self.pinned()?.into_iter().find(|pin| pin.ends_with("LIVE"));
        FullMap::fill(&map.context("no map is pinned")?)
    }

    /// Starts a process that does nothing, and returns its id: something for the lab to take away.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn sleeper(&self) -> Result<u32> {
        self.start(self.host.command("sleep").arg("1h"))
    }

    /// Starts a process and returns its id. It goes with the lab, and nobody waits for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, command: &mut Command) -> Result<u32> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let pid = child.with_context(|| format!("cannot start {command:?}"))?.id();
        self.reaper.pid(pid)?;
        Ok(pid)
    }

    /// Takes back what [`Agent::panic`] asked for.
    ///
    /// # Errors
    /// Nothing was asked for.
    ///
    /// [`Agent::panic`]: crate::Agent::panic
    pub fn forget_panic(&self) -> Result<()> {
        std::fs::remove_file(self.dir.join(PANIC)).context("nothing was asked to panic")
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn reaper(&self) -> Arc<Reaper> {
        Arc::clone(&self.reaper)
    }
}

fn bridge_mac(bridge: &str) -> Mac {
    let sum = bridge.bytes().fold(0_u8, u8::wrapping_add);
    Mac::new([0x02, 0xb0, 0, 0, 0, sum])
}
