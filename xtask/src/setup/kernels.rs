//! Debian's cloud kernels, one of each suite, unpacked into the cache and never installed.
//!
//! A kernel that is there stays: a newer one of the same suite comes when its directory in the
//! cache is removed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::apt_sources::Archive;
use super::private_apt::PrivateApt;
use crate::process;
use crate::terminal::Task;

/// The suites, from the oldest kernel that guard knows to the newest that Debian has.
const SUITES: [&str; 4] = ["bullseye", "bookworm", "trixie", "trixie-backports"];

/// It depends on the newest kernel of its suite.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// What such a kernel is made of; from 7.3 it is more than one package.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];

/// The modules that bridges, their ports and their filters need, in the order of loading. What a
/// kernel does not have as a module is built into it.
const MODULES: [&str; 10] =
    ["llc", "stp", "garp", "mrp", "8021q", "bridge", "veth", "sch_ingress", "cls_bpf", "af_packet"];

/// A kernel that can be booted.
pub(crate) struct Kernel {
    /// As `uname -r` says.
    pub(crate) release: String,
    /// The kernel itself.
    pub(crate) image: PathBuf,
    /// The modules, in the order of loading.
    pub(crate) modules: Vec<PathBuf>,
}

/// Brings those that are missing; true if there were some.
pub(super) fn ensure(cache: &Path) -> Result<bool> {
    ensure!(cfg!(target_arch = "x86_64"), "the kernels are for amd64, and so are the tests");
    let missing: Vec<&str> =
        SUITES.into_iter().filter(|suite| !dir(cache, suite).is_dir()).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    let archive = Archive::of_machine()?;
    for suite in &missing {
        let task = Task::start(&format!("{suite}'s kernel"), "the program is run in it");
        fetch(&task, &archive, suite, cache).with_context(|| format!("{suite}'s kernel"))?;
        task.done();
    }
    Ok(true)
}

/// Those that are in the cache.
pub(super) fn list(cache: &Path) -> Result<Vec<Kernel>> {
    SUITES.iter().map(|suite| read(&dir(cache, suite))).collect()
}

fn dir(cache: &Path, suite: &str) -> PathBuf {
    cache.join("kernels").join(suite)
}

fn read(dir: &Path) -> Result<Kernel> {
    let release = fs::read_to_string(dir.join("release"))
        .with_context(|| format!("no kernel in {}", dir.display()))?;
    let modules = MODULES.iter().map(|module| dir.join(format!("{module}.ko")));
    Ok(Kernel {
        release: release.trim().to_owned(),
        image: dir.join("vmlinuz"),
        modules: modules.filter(|module| module.is_file()).collect(),
    })
}

fn fetch(task: &Task, archive: &Archive, suite: &str, cache: &Path) -> Result<()> {
    let apt = PrivateApt::of_suite(task, archive, suite)?;
    let destination = dir(cache, suite);
    let parent = destination.parent().context("the cache has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("could not create {}", parent.display()))?;
    let staging = tempfile::Builder::new().prefix(".kernel-").tempdir_in(parent)?;
    let unpacked = staging.path().join("unpacked");
    for package in packages(&apt)? {
        let versions = apt.versions(&package)?;
        let version = versions.first().with_context(|| format!("{suite} has no {package}"))?;
        let file = apt.download(task, &package, version)?;
        task.progress(&format!("unpacking {package} {version}"));
        process::read(process::tool("dpkg-deb").arg("--extract").arg(file).arg(&unpacked))?;
    }
    let kernel = staging.path().join("kernel");
    keep(&unpacked, &kernel)?;
    fs::rename(&kernel, &destination)
        .with_context(|| format!("could not move a kernel to {}", destination.display()))
}

/// The packages of the newest kernel.
fn packages(apt: &PrivateApt) -> Result<Vec<String>> {
    let is_part = |name: &String| {
        PARTS.iter().any(|part| {
            name.strip_prefix(part).is_some_and(|rest| {
                // Followed by a release; the others depend on one.
                rest.starts_with(|first: char| first.is_ascii_digit())
            })
        })
    };
    let mut packages: Vec<String> = Vec::new();
    let mut ask = vec![PACKAGE.to_owned()];
    while let Some(package) = ask.pop() {
        for part in apt.depends(&package)?.into_iter().filter(is_part) {
            if !packages.contains(&part) {
                ask.push(part.clone());
                packages.push(part);
            }
        }
    }
    ensure!(!packages.is_empty(), "{PACKAGE} depends on no kernel");
    Ok(packages)
}

/// Takes what is needed out of the unpacked packages.
fn keep(unpacked: &Path, kernel: &Path) -> Result<()> {
    fs::create_dir(kernel)?;
    let files = files(unpacked)?;
    let name = |file: &Path| file.file_name()?.to_str().map(str::to_owned);
    let (image, release) = files
        .iter()
        .find_map(|file| Some((file, release_of(file)?)))
        .context("no vmlinuz in the packages")?;
    fs::copy(image, kernel.join("vmlinuz"))?;
    for module in MODULES {
        let file_name = format!("{module}.ko");
        let found = files.iter().find_map(|file| {
            name(file)?.strip_prefix(&file_name).map(|compression| (file, compression.to_owned()))
        });
        let Some((file, compression)) = found else { continue };
        let to = kernel.join(file_name);
        match &*compression {
            "" => drop(fs::copy(file, to)?),
            ".xz" => {
                let mut unxz = process::tool("busybox");
                let out = fs::File::create(to)?;
                let unxz = unxz.args(["unxz", "-c"]).arg(file).stdout(out);
                ensure!(unxz.status()?.success(), "could not unpack {}", file.display());
            }
            other => anyhow::bail!("{} is compressed as {other}", file.display()),
        }
    }
    fs::write(kernel.join("release"), release)?;
    Ok(())
}

/// The release of a kernel, by where its package puts it: `/boot/vmlinuz-RELEASE`, and from 7.3
/// `/usr/lib/modules/RELEASE/vmlinuz`.
fn release_of(image: &Path) -> Option<String> {
    let name = image.file_name()?.to_str()?;
    if name == "vmlinuz" {
        return Some(image.parent()?.file_name()?.to_str()?.to_owned());
    }
    name.strip_prefix("vmlinuz-").map(str::to_owned)
}

fn files(top: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![top.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("{}", dir.display()))? {
            let entry = entry?;
            // Links among them point to what is there anyway.
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else if entry.file_type()?.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_either_place() {
        let paths =
            ["boot/vmlinuz-6.1.0-50-cloud-amd64", "usr/lib/modules/6.1.0-50-cloud-amd64/vmlinuz"];
        for path in paths {
            let release = release_of(Path::new(path));
            assert_eq!(release.as_deref(), Some("6.1.0-50-cloud-amd64"), "{path}");
        }
        assert_eq!(release_of(Path::new("usr/lib/modules/1/kernel/net/veth.ko")), None);
    }
}
