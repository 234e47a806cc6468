//! What the project is made of, and under which licences it can be had.

use anyhow::{Context, Result};

use crate::{read, top};

#[test]
fn actions_are_named_by_their_commits() -> Result<()> {
    let mut actions = 0;
    for workflow in std::fs::read_dir(top().join(".github/workflows"))? {
        let path = workflow?.path();
        for line in std::fs::read_to_string(&path)?.lines() {
            let Some((_, action)) = line.split_once("uses: ") else { continue };
            let (_, commit) = action.split_once('@').context("an action without a version")?;
            let commit = commit.split(' ').next().unwrap_or_default();
            let is_hash = commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit());
            assert!(is_hash, "{}: {action}", path.display());
            actions += 1;
        }
    }
    assert!(actions > 0);
    Ok(())
}

/// In the manifests, in the package and in the README.
#[test]
fn the_licences_are_said_alike() -> Result<()> {
    let (all, programs) = ("MIT OR Apache-2.0", "MIT OR Apache-2.0 OR GPL-2.0-only");
    assert!(read("Cargo.toml")?.contains(&format!("license = \"{all}\"\n")));
    assert!(read("guard-ebpf/Cargo.toml")?.contains(&format!("license = \"{programs}\"\n")));
    let copyright = read("guard-agent/dist/debian/copyright")?;
    let of = |files: &str| -> Result<String> {
        let stanza = copyright.split("\n\n").find(|stanza| stanza.starts_with(files));
        let license = stanza
            .and_then(|stanza| stanza.lines().find_map(|line| line.strip_prefix("License: ")));
        license.map(str::to_owned).context(files.to_owned())
    };
    let debian = |spdx: &str| spdx.replace("GPL-2.0-only", "GPL-2").replace(" OR ", " or ");
    assert_eq!(of("Files: *\n")?, debian(all));
    assert_eq!(of("Files: guard-ebpf/*\n")?, debian(programs));
    let readme = read("README.md")?;
    let (_, licence) = readme.split_once("## Licence\n").context("no licence")?;
    for file in ["LICENSE-MIT", "LICENSE-APACHE", "guard-ebpf/LICENSE-GPL-2.0"] {
        assert!(licence.contains(&format!("({file})")) && top().join(file).exists(), "{file}");
    }
    Ok(())
}
