//! Pieces of configuration in the documents are configuration.

use anyhow::{Context, Result};
use guard_tests::{binary, require_root, run};

use crate::{blocks, read};

const BRIDGE: &str = "[[bridge]]\nname = \"br0\"\n";
const POOL: &str = "[[pool]]\nname = \"p\"\nbridge = \"br0\"\nprefix = \"10.8.64.0/24\"\n";

#[test]
fn every_piece_of_configuration_is_one_that_the_agent_takes() -> Result<()> {
    require_root()?;
    let agent = binary("guard-agent")?.to_string_lossy().into_owned();
    let file = tempfile::NamedTempFile::new()?;
    let path = file.path().to_string_lossy().into_owned();
    let mut pieces = 0;
    for document in ["README.md", "docs/guide.md", "docs/operations.md"] {
        for (info, piece) in blocks(&read(document)?) {
            if !info.starts_with("toml") {
                continue;
            }
            pieces += 1;
            let mut whole = piece.clone();
            for (part, head) in [(BRIDGE, "[[bridge]]"), (POOL, "[[pool]]")] {
                if !piece.contains(head) {
                    whole.push_str(part);
                }
            }
            std::fs::write(&path, &whole)?;
            run(&agent, &["check-config", &path])
                .with_context(|| format!("{document}: {whole}"))?;
        }
    }
    assert!(pieces >= 5, "{pieces} pieces");
    Ok(())
}

#[test]
fn the_example_that_the_package_installs_is_one_that_the_agent_takes() -> Result<()> {
    require_root()?;
    let text = read("guard-agent/dist/debian/agent.toml")?;
    let (_, example) = text.split_once("\n\n").context("an introduction")?;
    let example: Vec<_> = example.lines().map(|line| line.trim_start_matches(['#', ' '])).collect();
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), example.join("\n"))?;
    let path = file.path().to_string_lossy().into_owned();
    let said = run(&binary("guard-agent")?.to_string_lossy(), &["check-config", &path])?;
    assert!(said.contains("good: 1 bridge(s), 1 pool(s)"), "{said}");
    Ok(())
}
