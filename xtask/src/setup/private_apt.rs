//! apt with a configuration of its own in a temporary directory: it can look into another suite of
//! the archive while the machine's own sources and lists stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::apt_sources::Archive;
use crate::process;
use crate::terminal::Task;

/// One suite of an archive.
pub(super) struct PrivateApt {
    dir: TempDir,
}

impl PrivateApt {
    /// Reads the package list of `suite`.
    pub(super) fn of_suite(task: &Task, archive: &Archive, suite: &str) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("guard-apt-")
            .tempdir()
            .context("could not make a temporary directory for apt")?;
        for subdir in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.path().join(subdir))?;
        }
        fs::write(dir.path().join("sources.list"), archive.source(suite))?;
        let apt = Self { dir };
        process::quiet(task, apt.command("apt-get").arg("update"))
            .with_context(|| format!("could not read the package list of {suite}"))?;
        Ok(apt)
    }

    /// The versions of `package`, newest first.
    pub(super) fn versions(&self, package: &str) -> Result<Vec<String>> {
        Ok(versions(&process::read(self.command("apt-cache").args(["madison", package]))?))
    }

    /// The packages that `package` depends on.
    pub(super) fn depends(&self, package: &str) -> Result<Vec<String>> {
        Ok(depends(&process::read(self.command("apt-cache").args(["depends", package]))?))
    }

    /// Downloads one version of `package` and returns its file; it lives as long as `self`.
    pub(super) fn download(&self, task: &Task, package: &str, version: &str) -> Result<PathBuf> {
        let mut download = self.command("apt-get");
        download.args(["download", &format!("{package}={version}")]);
        let dir = self.dir.path().join(package);
        fs::create_dir_all(&dir)?;
        process::quiet(task, download.current_dir(&dir))?;
        fs::read_dir(&dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get downloaded no file for {package} {version}"))
    }

    fn command(&self, program: &str) -> Command {
        let dir: &Path = self.dir.path();
        let mut command = process::tool(program);
        for (option, value) in [
            ("Dir::Etc::SourceList", dir.join("sources.list")),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
            ("Dir::State::Lists", dir.join("lists")),
            ("Dir::Cache", dir.join("cache")),
        ] {
            command.arg("--option").arg(format!("{option}={}", value.display()));
        }
        // The temporary directory is ours alone: the user `_apt` could not write to it.
        command.args(["--option", "APT::Sandbox::User=root"]);
        command.args(["--option", "Acquire::Languages=none"]);
        command
    }
}

/// `apt-cache madison` prints `package | version | origin` lines.
fn versions(madison: &str) -> Vec<String> {
    let lines = madison.lines().filter_map(|line| line.split('|').nth(1));
    lines.map(|version| version.trim().to_owned()).collect()
}

/// `apt-cache depends` prints a `  Depends: package` line for each.
fn depends(listed: &str) -> Vec<String> {
    let lines = listed.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    lines.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn dependencies_are_read() {
        let listed = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-50-cloud-amd64\n  \
            Recommends: firmware\n |Depends: kmod\n";
        assert_eq!(super::depends(listed), ["linux-image-6.1.0-50-cloud-amd64"]);
    }

    #[test]
    fn madisons_versions_are_read() {
        let madison = "  rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://mirror.test/debian \
            trixie-backports/main amd64 Packages\n";
        assert_eq!(super::versions(madison), ["1.95.0+dfsg1-2~bpo13+1"]);
    }
}
