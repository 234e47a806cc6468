//! `cargo xtask release`: everything that a release consists of, in one directory, and the commands that
//! publish it. For the architecture of this machine: the workflow runs it on one of each.

mod versions;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::setup::{self, Profile};
use crate::{package, process, terminal};

/// What is linked statically, so that it runs on any distribution, and in a container without one.
const PROGRAMS: [&str; 3] = ["guard-agent", "guardctl", "guard-ipam"];
const CHART: &str = "guard-agent/dist/helm/guard";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Makes the release in `out`. With a tag, everything must be of the version that it names.
pub(crate) fn run(tag: Option<&str>, out: Option<PathBuf>) -> Result<()> {
    versions::agree(crate::top(), tag)?;
    let out = out.unwrap_or_else(|| crate::top().join("target").join(format!("guard-{VERSION}")));
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("could not empty {}", out.display()))?;
    }
    fs::create_dir_all(&out).with_context(|| format!("could not create {}", out.display()))?;
    setup::run(Profile::Release)?;
    package::run(false, 1, Some(out.clone()))?;
    let licences = out.join("LICENSES.html");
    terminal::heading("List what is linked in, and its licences");
    licences_of(&licences)?;
    sbom(&out)?;
    tarball(&out, &licences)?;
    chart(&out)?;
    sums(&out)?;
    terminal::heading("To publish it");
    for line in publish(&out, tag) {
        terminal::line(&line);
    }
    Ok(())
}

/// The commit that is built, for `--version`; with `+` where files have been changed since.
pub(crate) fn commit() -> Result<String> {
    let commit = process::read(process::tool("git").args(["rev-parse", "--short=12", "HEAD"]))?;
    let changed = process::read(process::tool("git").args(["status", "--porcelain"]))?;
    let mark = if changed.is_empty() { "" } else { "+" };
    Ok(format!("{}{mark}", commit.trim()))
}

fn machine() -> Result<String> {
    Ok(process::read(process::tool("uname").arg("--machine"))?.trim().to_owned())
}

/// The programs, linked statically, in an archive.
fn tarball(out: &Path, licences: &Path) -> Result<()> {
    terminal::heading("Build the programs for any distribution");
    let target = format!("{}-unknown-linux-musl", machine()?);
    process::read(process::tool("rustup").args(["target", "add", &target]))?;
    let mut build = process::tool("cargo");
    build.args(["build", "--locked", "--release", "--bins", "--target", &target]);
    build.args(PROGRAMS.iter().flat_map(|name| ["--package", name]));
    // The compiler of musl-tools, for the bundled SQLite.
    build
        .env("GUARD_COMMIT", commit()?)
        .env(format!("CC_{}", target.replace('-', "_")), "musl-gcc");
    process::shown(&mut build)?;
    let staging = tempfile::tempdir().context("could not make a directory")?;
    let name = format!("guard-{VERSION}-linux-{}", machine()?);
    let root = staging.path().join(&name);
    fs::create_dir(&root)?;
    for program in PROGRAMS {
        let (from, to) =
            (crate::top().join("target").join(&target).join("release"), root.join(program));
        fs::copy(from.join(program), &to).with_context(|| format!("could not copy {program}"))?;
        process::read(process::tool("strip").arg("--strip-unneeded").arg(&to))?;
        let kind = process::read(process::tool("readelf").arg("--dynamic").arg(&to))?;
        ensure!(!kind.contains("NEEDED"), "{program} is not linked statically:\n{kind}");
    }
    for file in ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        fs::copy(crate::top().join(file), root.join(file))?;
    }
    fs::copy(licences, root.join("LICENSES.html"))?;
    let mut tar = process::tool("tar");
    tar.args(["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "--gzip", "--create"]);
    tar.arg("--directory").arg(staging.path()).arg("--file");
    process::read(tar.arg(out.join(format!("{name}.tar.gz"))).arg(&name)).map(drop)
}

/// The texts of the licences of everything that is linked in.
fn licences_of(to: &Path) -> Result<()> {
    let mut about = process::tool("cargo-about");
    about.args(["generate", "--locked", "--workspace", "--fail", "--config"]);
    about.args(["guard-agent/dist/release/about.toml", "--output-file"]).arg(to);
    process::read(about.arg("guard-agent/dist/release/licenses.hbs")).map(drop)
}

/// What each program is made of, as CycloneDX has it.
fn sbom(out: &Path) -> Result<()> {
    for program in PROGRAMS {
        let manifest = match program {
            "guard-agent" => "guard-agent/Cargo.toml".to_owned(),
            other => format!("guard-agent/{other}/Cargo.toml"),
        };
        let mut command = process::tool("cargo-cyclonedx");
        command.args(["cyclonedx", "--format", "json", "--manifest-path", &manifest]);
        process::read(command.args(["--no-build-deps", "--override-filename", "sbom"]))?;
        // It writes one beside each manifest of the workspace.
        let made = crate::top().join(&manifest).with_file_name("sbom.json");
        let kept = out.join(format!("{program}-{VERSION}.cdx.json"));
        fs::copy(&made, kept).with_context(|| format!("could not read {}", made.display()))?;
        for left in process::read(process::tool("git").args([
            "ls-files",
            "--others",
            "--exclude-standard",
            "*sbom.json",
        ]))?
        .lines()
        {
            fs::remove_file(crate::top().join(left))?;
        }
    }
    Ok(())
}

fn chart(out: &Path) -> Result<()> {
    let tools = setup::chart()?;
    process::read(process::tool(tools.helm()).args(["package", CHART, "--destination"]).arg(out))
        .map(drop)
}

fn sums(out: &Path) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(out)? {
        names.push(entry?.file_name());
    }
    names.sort();
    let sums = process::read(process::tool("sha256sum").current_dir(out).args(&names))?;
    terminal::heading(&format!("Made in {}", out.display()));
    sums.lines().for_each(terminal::line);
    Ok(fs::write(out.join("SHA256SUMS"), sums)?)
}

/// What takes a registry or a key: it is printed, and not done.
fn publish(out: &Path, tag: Option<&str>) -> Vec<String> {
    let (out, tag) = (out.display(), tag.map_or_else(|| format!("v{VERSION}"), str::to_owned));
    vec![
        format!("git tag --sign {tag} && git push origin {tag}   # the workflow does the rest:"),
        format!("gh release create {tag} {out}/*"),
        format!(
            "buildah build --file guard-agent/dist/container/Containerfile --tag REGISTRY/guard:{VERSION} {out}"
        ),
        format!("buildah push REGISTRY/guard:{VERSION}"),
        format!("helm push {out}/guard-{VERSION}.tgz oci://REGISTRY/charts"),
        format!(
            "gh attestation sign is the workflow's (actions/attest-build-provenance of {out}/SHA256SUMS)"
        ),
    ]
}
