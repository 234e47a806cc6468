//! What the package installs, and where.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process;

/// The programs, and the directories that Debian has for such.
pub(super) const PROGRAMS: [(&str, &str); 3] =
    [("guard-agent", "usr/sbin"), ("guardctl", "usr/bin"), ("guard-ipam", "usr/lib/cni")];

/// Other files, by their place in the repository.
const FILES: [(&str, &str); 11] = [
    ("guard-agent/dist/systemd/guard-agent.service", "usr/lib/systemd/system"),
    ("guard-agent/dist/systemd/guard-agent.socket", "usr/lib/systemd/system"),
    ("guard-agent/dist/systemd/guard.conf", "usr/lib/sysusers.d"),
    ("guard-agent/dist/debian/agent.toml", "etc/guard"),
    ("guard-agent/dist/prometheus/guard.rules.yml", "usr/share/guard/prometheus"),
    ("guard-agent/dist/prometheus/guard.rules.test.yml", "usr/share/guard/prometheus"),
    ("guard-agent/dist/grafana/guard.json", "usr/share/guard/grafana"),
    ("guard-agent/proto/guard/v1/guard.proto", "usr/share/guard/proto/guard/v1"),
    (
        "guard-agent/proto/guard/directory/v1/directory.proto",
        "usr/share/guard/proto/guard/directory/v1",
    ),
    ("guard-agent/dist/debian/copyright", "usr/share/doc/guard"),
    ("README.md", "usr/share/doc/guard"),
];

/// Documents that Debian wants compressed, and their names there.
const DOCUMENTS: [(&str, &str); 3] = [
    ("CHANGELOG.md", "changelog"),
    ("docs/guide.md", "guide.md"),
    ("docs/operations.md", "operations.md"),
];

/// The shells, and where each looks for what completes a command.
const COMPLETIONS: [(&str, &str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions", "guardctl"),
    ("zsh", "usr/share/zsh/vendor-completions", "_guardctl"),
    ("fish", "usr/share/fish/vendor_completions.d", "guardctl.fish"),
];

/// Lays everything out below `root`.
pub(super) fn lay_out(root: &Path, programs: &Path, changelog: &str) -> Result<()> {
    for (name, directory) in PROGRAMS {
        let to = place(root, directory, name)?;
        copy(&programs.join(name), &to, 0o755)?;
        process::read(process::tool("strip").arg("--strip-unneeded").arg(&to))?;
    }
    for (file, directory) in FILES {
        let from = crate::top().join(file);
        let name = from.file_name().context("a file without a name")?;
        copy(&from, &place(root, directory, Path::new(name))?, 0o644)?;
    }
    of_guardctl(root, &programs.join("guardctl"))?;
    let doc = "usr/share/doc/guard";
    for (file, name) in DOCUMENTS {
        let to = place(root, doc, name)?;
        copy(&crate::top().join(file), &to, 0o644)?;
        compress(&to)?;
    }
    let to = place(root, doc, "changelog.Debian")?;
    write(&to, changelog, 0o644)?;
    compress(&to)?;
    let overrides = place(root, "usr/share/lintian/overrides", "guard")?;
    copy(&crate::top().join("guard-agent/dist/debian/lintian-overrides"), &overrides, 0o644)
}

/// The man pages, and what completes commands in Debian's shells.
fn of_guardctl(root: &Path, guardctl: &Path) -> Result<()> {
    let pages = root.join("usr/share/man/man1");
    process::read(process::tool(guardctl).arg("man").arg(&pages))?;
    for page in files(&pages)? {
        let page = pages.join(page);
        fs::set_permissions(&page, fs::Permissions::from_mode(0o644))?;
        compress(&page)?;
    }
    for (shell, directory, name) in COMPLETIONS {
        let text = process::read(process::tool(guardctl).args(["completions", shell]))?;
        write(&place(root, directory, name)?, &text, 0o644)?;
    }
    Ok(())
}

/// The files below `root`, but for those of dpkg itself.
pub(super) fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut directories) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                files.push(entry.path().strip_prefix(root)?.to_owned());
            } else if entry.file_name() != "DEBIAN" {
                directories.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

fn place(root: &Path, directory: &str, name: impl AsRef<Path>) -> Result<PathBuf> {
    let directory = root.join(directory);
    fs::create_dir_all(&directory)
        .with_context(|| format!("could not create {}", directory.display()))?;
    Ok(directory.join(name))
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("could not copy {}", from.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

/// Writes a file with a mode.
pub(super) fn write(to: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(to, text).with_context(|| format!("could not write {}", to.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

fn compress(file: &Path) -> Result<()> {
    process::read(process::tool("gzip").args(["-9", "--no-name"]).arg(file)).map(drop)
}
