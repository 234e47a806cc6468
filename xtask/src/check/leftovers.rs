//! What the test command leaves behind: nothing, or it fails and names it.
//!
//! Each run has a temporary directory of its own, in `TMPDIR` of all that it starts. By that it knows
//! its files, its mounts and its processes. The rest is ours where it was not there before and has a
//! name that tests give; the name of a network namespace also says which process made it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use nix::net::if_::if_nameindex;
use tempfile::TempDir;

/// How long what was taken away just now may take to go: the kernel frees programs later.
const GOES: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 10_000 });

/// How names begin that tests give to links. Docker's `veth0123abc` is nobody's of ours.
const LINKS: [&str; 4] = ["guard", "veth-", "rt0", "rt1"];

/// A run of the test command.
pub(super) struct Run {
    temporary: TempDir,
    places: Places,
    before: BTreeSet<Trace>,
}

/// Where things are left.
struct Places {
    namespaces: PathBuf,
    pins: PathBuf,
}

/// Something that can be left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trace {
    Namespace(String),
    Link(String),
    Pin(PathBuf),
    Program(u32),
}

impl Run {
    /// Remembers what there is.
    pub(super) fn begin() -> Result<Self> {
        let places = Places { namespaces: "/run/netns".into(), pins: "/sys/fs/bpf".into() };
        Self::begin_in(places)
    }

    fn begin_in(places: Places) -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("guard-").tempdir();
        let temporary = temporary.context("a temporary directory for the run")?;
        let before = places.traces()?;
        Ok(Self { temporary, places, before })
    }

    /// Has a command, and all that it starts, use the run's temporary directory.
    pub(super) fn owns<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("TMPDIR", self.temporary.path())
    }

    /// Compares with the beginning.
    ///
    /// # Errors
    /// Something is left. The temporary directory stays for whoever wants to know why.
    pub(super) fn end(mut self) -> Result<()> {
        let end = Instant::now() + GOES;
        let mut left = self.left()?;
        while !left.is_empty() && Instant::now() < end {
            #[expect(clippy::disallowed_methods, reason = "nobody tells of what the kernel frees")]
            sleep(Duration::from_millis(100));
            left = self.left()?;
        }
        self.temporary.disable_cleanup(!left.is_empty());
        let named = left.join("\n  ");
        ensure!(left.is_empty(), "the tests have left behind:\n  {named}");
        Ok(())
    }

    fn left(&self) -> Result<Vec<String>> {
        let Self { temporary, places, before } = self;
        let mut left = processes(temporary.path())?;
        left.extend(mounts(temporary.path())?);
        for entry in fs::read_dir(temporary.path()).context("the run's temporary directory")? {
            left.push(format!("file {}", entry?.path().display()));
        }
        let others = places.others_run()?;
        let traces = places.traces()?;
        left.extend(traces.difference(before).filter_map(|trace| trace.left(others)));
        Ok(left)
    }
}

impl Trace {
    /// What to call it, if it is ours; `others` run tests of theirs now.
    fn left(&self, others: bool) -> Option<String> {
        match self {
            Self::Namespace(name) => {
                let ours = maker(name).is_some_and(|pid| !is_running(pid));
                ours.then(|| format!("network namespace {name}"))
            }
            Self::Link(name) => Some(format!("link {name}")),
            Self::Pin(path) => Some(format!("pin {}", path.display())),
            // A program does not say who has loaded it.
            Self::Program(id) => (!others).then(|| format!("program {id} in the kernel")),
        }
    }
}

impl Places {
    fn traces(&self) -> Result<BTreeSet<Trace>> {
        let mut traces = BTreeSet::new();
        for name in names(&self.namespaces)? {
            if maker(&name).is_some() {
                traces.insert(Trace::Namespace(name));
            }
        }
        for name in names(&self.pins)? {
            if name.starts_with("guard") {
                traces.extend(files_beneath(self.pins.join(name))?.into_iter().map(Trace::Pin));
            }
        }
        let links = if_nameindex().context("the links of this namespace")?;
        let links = links.iter().map(|link| link.name().to_string_lossy().into_owned());
        let ours = links.filter(|name| LINKS.iter().any(|begin| name.starts_with(begin)));
        traces.extend(ours.map(Trace::Link));
        // Only root sees them.
        let programs = loaded_programs().filter_map(Result::ok);
        let ours = programs.filter(|it| it.name_as_str().is_some_and(|n| n.starts_with("guard")));
        traces.extend(ours.map(|program| Trace::Program(program.id())));
        Ok(traces)
    }

    /// Whether somebody else runs tests now.
    fn others_run(&self) -> Result<bool> {
        Ok(names(&self.namespaces)?.iter().any(|name| maker(name).is_some_and(is_running)))
    }
}

/// Which process has made a namespace: labs call them `guard-PID-NUMBER-NAME`.
fn maker(namespace: &str) -> Option<u32> {
    namespace.strip_prefix("guard-")?.split('-').next()?.parse().ok()
}

fn is_running(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Processes of which the run's temporary directory is theirs.
fn processes(temporary: &Path) -> Result<Vec<String>> {
    let ours = format!("TMPDIR={}", temporary.display());
    let ours = ours.as_bytes();
    let mut found = Vec::new();
    for pid in names(Path::new("/proc"))?.into_iter().filter(|name| name.parse::<u32>().is_ok()) {
        let proc = Path::new("/proc").join(&pid);
        // One that has ended meanwhile, or is another user's, is not ours.
        let Ok(environment) = fs::read(proc.join("environ")) else { continue };
        let mut variables = environment.split(|byte| *byte == 0);
        if variables.any(|variable| variable.starts_with(ours)) {
            let words = fs::read(proc.join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            found.push(format!("process {pid}: {}", words.trim()));
        }
    }
    Ok(found)
}

fn mounts(temporary: &Path) -> Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let ours = places.filter(|place| Path::new(place).starts_with(temporary));
    Ok(ours.map(|place| format!("mount {place}")).collect())
}

/// The names in a directory; none where there is no such directory.
fn names(dir: &Path) -> Result<Vec<String>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// A file, or all beneath a directory; one with nothing in it counts itself.
fn files_beneath(path: PathBuf) -> Result<Vec<PathBuf>> {
    let mut beneath = Vec::new();
    for name in if path.is_dir() { names(&path)? } else { Vec::new() } {
        beneath.extend(files_beneath(path.join(name))?);
    }
    if beneath.is_empty() {
        beneath.push(path);
    }
    Ok(beneath)
}

#[cfg(test)]
mod tests;
