//! `cargo xtask package`: a Debian package, put together by dpkg's own tools.

mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::setup::Profile;
use crate::{process, release, setup, terminal};

/// Where the package's own files are.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Makes the package in `out`: of a release build, or of the build that the tests use.
pub(crate) fn run(dev: bool, revision: u32, out: Option<PathBuf>) -> Result<()> {
    let programs = if dev { built_for_tests()? } else { built_for_release()? };
    let out = out.unwrap_or_else(|| crate::top().join("target/debian"));
    fs::create_dir_all(&out).with_context(|| format!("could not create {}", out.display()))?;
    let staging = tempfile::tempdir().context("could not make a directory")?;
    let root = staging.path().join("guard");
    // Others may read what is installed, whatever the umask is here.
    fs::create_dir(&root)?;

    let version = format!("{}-{revision}", env!("CARGO_PKG_VERSION"));
    tree::lay_out(&root, &programs, &changelog(&version)?)?;
    control(&root, &version)?;
    let package = out.join(format!("guard_{version}_{}.deb", architecture()?));
    process::read(
        dated(&mut process::tool("dpkg-deb"))
            .args(["--root-owner-group", "--build"])
            .arg(&root)
            .arg(&package),
    )?;
    terminal::line(&package.display().to_string());
    Ok(())
}

fn built_for_release() -> Result<PathBuf> {
    setup::run(Profile::Demo)?;
    terminal::heading("Build the programs");
    let mut build = process::tool("cargo");
    build.args(["build", "--locked", "--release"]);
    build.args(tree::PROGRAMS.iter().flat_map(|(name, _)| ["--package", name]));
    build.arg("--bins").env("GUARD_COMMIT", release::commit()?);
    process::shown(&mut build)?;
    Ok(built_for_tests()?.with_file_name("release"))
}

/// Where this program is, and the others that were built with it.
fn built_for_tests() -> Result<PathBuf> {
    let own = std::env::current_exe().context("could not find out where this program is")?;
    Ok(own.parent().context("it is nowhere")?.to_owned())
}

/// Everything that dpkg wants to know.
fn control(root: &Path, version: &str) -> Result<()> {
    let dir = root.join("DEBIAN");
    fs::create_dir(&dir)?;
    let files = tree::files(root)?;
    let bytes: u64 =
        files.iter().filter_map(|file| Some(root.join(file).metadata().ok()?.len())).sum();
    let control = ours("control")?
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", &architecture()?)
        .replace("@SIZE@", &bytes.div_ceil(1024).to_string())
        .replace("@DEPENDS@", &depends(root)?);
    tree::write(&dir.join("control"), &control, 0o644)?;
    tree::write(&dir.join("conffiles"), &ours("conffiles")?, 0o644)?;
    for script in SCRIPTS {
        tree::write(&dir.join(script), &ours(script)?, 0o755)?;
    }
    let listed = files.iter().filter(|file| !file.starts_with("etc"));
    let sums = process::read(process::tool("md5sum").current_dir(root).args(listed))?;
    tree::write(&dir.join("md5sums"), &sums, 0o644)
}

/// The libraries that the programs are linked with.
fn depends(root: &Path) -> Result<String> {
    // It reads, and insists on, the control file of a source package.
    let source = tempfile::tempdir()?;
    fs::create_dir(source.path().join("debian"))?;
    fs::write(
        source.path().join("debian/control"),
        "Source: guard\n\nPackage: guard\nArchitecture: any\n",
    )?;
    let mut command = process::tool("dpkg-shlibdeps");
    command.current_dir(source.path()).arg("-O");
    command.args(tree::PROGRAMS.map(|(name, directory)| root.join(directory).join(name)));
    let found = process::read(&mut command)?;
    let found =
        found.trim().strip_prefix("shlibs:Depends=").context("dpkg-shlibdeps said nothing")?;
    Ok(found.to_owned())
}

fn changelog(version: &str) -> Result<String> {
    let mut date = process::tool("date");
    let date =
        process::read(date.args(["--rfc-email", "--utc", "--date", &format!("@{}", epoch()?)]))?;
    Ok(format!(
        "guard ({version}) unstable; urgency=medium\n\n  * What has changed is in changelog.gz.\n\n \
         -- The guard authors <guard@localhost>  {}\n",
        date.trim()
    ))
}

/// Files are dated by the last commit, so that the same sources make the same package.
fn dated(command: &mut Command) -> &mut Command {
    if let Ok(epoch) = epoch() {
        command.env("SOURCE_DATE_EPOCH", epoch);
    }
    command
}

fn epoch() -> Result<String> {
    let seconds = process::read(process::tool("git").args(["log", "-1", "--format=%ct"]))?;
    Ok(seconds.trim().to_owned())
}

fn architecture() -> Result<String> {
    let found = process::read(process::tool("dpkg").arg("--print-architecture"))?;
    Ok(found.trim().to_owned())
}

fn ours(file: &str) -> Result<String> {
    let path = crate::top().join("guard-agent/dist/debian").join(file);
    fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))
}
