//! What a guest finds when it starts: an archive in the kernel's format for it, cpio(5) "newc".
//! The kernel unpacks several in a row, so the part that all guests share is made once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::process;
use crate::setup::Kernel;

/// Programs of this machine that the lab uses and busybox has only in part.
const TOOLS: [&str; 9] =
    ["ip", "tc", "bridge", "dash", "nsenter", "mount", "umount", "mountpoint", "rm"];

/// The scenarios that depend on the kernel most, by the beginning of their names: frames that
/// alarm and frames that do not, ports that come and go and who else is on them, restarts, VLANs, and what
/// someone takes away.
const ON_THE_KERNEL: [&str; 9] = [
    "claims::a31",
    "claims::every",
    "hook::coverage_a",
    "loss::",
    "ports::a_port",
    "restart::leases",
    "bridge::",
    "vlan::",
    "trace::",
];

/// Frames by chance in the share: what an emulated processor does in seconds.
const SHARE_FRAMES: u32 = 10_000;

/// The executable that they are in.
const SCENARIOS: &str = "scenarios";

const INIT: &str = include_str!("init.sh");

/// The archive that all guests share; of a share of the tests, if that is all that they run.
pub(super) fn userland(programs: &BTreeMap<&str, PathBuf>, share: bool) -> Result<Vec<u8>> {
    let tree = Tree::new()?;
    let mut libraries = BTreeSet::new();
    tree.write("init", INIT.as_bytes(), 0o755)?;
    tree.copy(&find("busybox")?, "bin/busybox")?;
    for (name, path) in programs {
        if share && *name == SCENARIOS {
            continue;
        }
        libraries.extend(libraries_of(path)?);
        // Debug information is most of an executable, and a guest's memory is small.
        let stripped = tree.place(&format!("guest/{name}"))?;
        process::read(process::tool("strip").arg("-o").arg(stripped).arg(path))?;
    }
    for tool in TOOLS {
        let path = find(tool)?;
        libraries.extend(libraries_of(&path)?);
        tree.copy(&path, &format!("guest/{}", if tool == "dash" { "sh" } else { tool }))?;
    }
    for library in libraries {
        tree.copy(&library, &library.to_string_lossy())?;
    }
    // Where the tests were compiled to look for them.
    let cases = crate::top().join("tests/cases");
    for entry in fs::read_dir(&cases).with_context(|| cases.display().to_string())? {
        let path = entry?.path();
        tree.copy(&path, &path.to_string_lossy())?;
    }
    for package in ["guard-agent", "guard-ebpf"] {
        tree.write(&format!("{}/{package}/.keep", crate::top().display()), b"", 0o644)?;
    }
    if share {
        tree.write("frames", SHARE_FRAMES.to_string().as_bytes(), 0o644)?;
    } else {
        tree.write("scenarios", ON_THE_KERNEL.join("\n").as_bytes(), 0o644)?;
    }
    tree.archive()
}

/// The archive of one kernel's modules.
pub(super) fn modules(kernel: &Kernel) -> Result<Vec<u8>> {
    let tree = Tree::new()?;
    for (number, module) in kernel.modules.iter().enumerate() {
        // In the order of loading.
        tree.copy(module, &format!("modules/{number}.ko"))?;
    }
    tree.archive()
}

struct Tree(TempDir);

impl Tree {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("guard-guest-").tempdir();
        Ok(Self(dir.context("could not make a directory for a guest")?))
    }

    /// Where `path` of the guest is, with the directories above it.
    fn place(&self, path: &str) -> Result<PathBuf> {
        let place = self.0.path().join(path.trim_start_matches('/'));
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        Ok(place)
    }

    fn copy(&self, from: &Path, to: &str) -> Result<()> {
        fs::copy(from, self.place(to)?)
            .with_context(|| format!("could not copy {}", from.display()))?;
        Ok(())
    }

    fn write(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let place = self.place(path)?;
        fs::write(&place, content).with_context(|| place.display().to_string())?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
        Ok(())
    }

    fn archive(&self) -> Result<Vec<u8>> {
        let names = process::read(process::tool("find").arg(".").current_dir(self.0.path()))?;
        let mut cpio = process::tool("busybox")
            .args(["cpio", "-o", "-H", "newc", "-R", "0:0"])
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("could not run busybox")?;
        let mut stdin = cpio.stdin.take().context("cpio has no standard input")?;
        // On a thread, as cpio begins to write before it has read all.
        let names = std::thread::spawn(move || stdin.write_all(names.as_bytes()));
        let output = cpio.wait_with_output()?;
        names.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        ensure!(output.status.success(), "`busybox cpio` failed ({})", output.status);
        Ok(output.stdout)
    }
}

fn find(program: &str) -> Result<PathBuf> {
    let mut dirs: Vec<PathBuf> =
        std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    // Not on everyone's path.
    dirs.extend(["/usr/sbin".into(), "/sbin".into()]);
    let found = dirs.iter().map(|dir| dir.join(program)).find(|path| path.is_file());
    found.with_context(|| format!("there is no {program} on this machine"))
}

/// The shared libraries of a program, the loader included.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = process::read(process::tool("ldd").arg(program))?;
    let words =
        listed.lines().filter_map(|line| line.split_whitespace().find(|w| w.starts_with('/')));
    Ok(words.map(PathBuf::from).collect())
}
