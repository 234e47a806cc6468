//! Tests that are named, and places that are linked to.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{read, sources, top, walk};

const DOCUMENTS: [&str; 6] = [
    "README.md",
    "docs/architecture.md",
    "docs/guide.md",
    "docs/operations.md",
    "docs/SPECIFICATION.md",
    "tests/cases/README.md",
];

/// The names of all functions that follow `#[test]`, or stand in a macro of proptest.
fn tests() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for (_, text) in sources()? {
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let Some((head, rest)) = line.split_once("fn ") else { continue };
            if is_test && matches!(head, "" | "async " | "pub ") {
                names.extend(rest.split('(').next().map(str::to_owned));
                is_test = false;
            }
        }
    }
    Ok(names)
}

#[test]
fn docs_name_tests_that_exist() -> Result<()> {
    let tests = tests()?;
    let benches = read("tests/src/bin/guard-bench/main.rs")?;
    let mut promises = 0;
    for row in read("docs/SPECIFICATION.md")?.lines() {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [number, promise, _figure, held] = cells[..] else { continue };
        let Ok(number) = number.parse::<usize>() else { continue };
        promises += 1;
        assert_eq!(number, promises, "{promise}");
        let named: Vec<_> = held.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "nothing holds {number}: {promise}");
        for name in named {
            let bench = name.strip_prefix("cargo xtask bench ").map(|bench| {
                let variant = bench[..1].to_uppercase() + &bench[1..];
                benches.contains(&format!("{variant} {{"))
            });
            assert!(bench.unwrap_or_else(|| tests.contains(name)), "{number}: there is no {name}");
        }
    }
    assert!(promises > 40, "{promises} promises");
    Ok(())
}

#[test]
fn links_lead_somewhere() -> Result<()> {
    let mut documents: Vec<_> = DOCUMENTS.map(str::to_owned).to_vec();
    let mut more = Vec::new();
    for dir in ["docs/decisions", "docs/rules"] {
        walk(&top().join(dir), &mut more)?;
    }
    for path in more {
        let path = path.strip_prefix(top())?.to_string_lossy().into_owned();
        documents.push(path);
    }
    for document in documents {
        let text = read(&document)?;
        let dir = Path::new(&document).parent().context("a directory")?;
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => dir.join(path).to_string_lossy().into_owned(),
            };
            assert!(top().join(&target).exists(), "{document}: {link} leads nowhere");
            if !anchor.is_empty() {
                let found = read(&target)?.lines().any(|line| heading(line) == anchor);
                assert!(found, "{document}: {link} has no such heading");
            }
        }
    }
    Ok(())
}

/// What a heading is linked to by.
fn heading(line: &str) -> String {
    let Some(title) = line.strip_prefix('#') else { return String::new() };
    let title = title.trim_start_matches('#').trim().to_lowercase();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
