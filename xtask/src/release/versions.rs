//! The version stands in several places, which must say the same.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

/// Fails where the chart has another version than the workspace; with a tag, also where that names
/// another, or where the changelog does not know it.
pub(super) fn agree(top: &Path, tag: Option<&str>) -> Result<()> {
    let read = |file: &str| fs::read_to_string(top.join(file)).with_context(|| file.to_owned());
    let version = env!("CARGO_PKG_VERSION");
    let chart = read("guard-agent/dist/helm/guard/Chart.yaml")?;
    for key in ["version", "appVersion"] {
        let line = chart.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
        let found = line.map(|value| value.trim().trim_matches('"')).unwrap_or_default();
        ensure!(found == version, "Chart.yaml: {key} is {found:?}, and Cargo.toml says {version}");
    }
    let Some(tag) = tag else { return Ok(()) };
    ensure!(tag == format!("v{version}"), "the tag is {tag}, and Cargo.toml says {version}");
    let changelog = read("CHANGELOG.md")?;
    let heading = format!("## [{version}] - ");
    if !changelog.lines().any(|line| line.starts_with(&heading)) {
        bail!("CHANGELOG.md has no section {heading:?} with a date");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_same_everywhere() {
        agree(crate::top(), None).unwrap();
    }

    #[test]
    fn a_tag_of_another_version_is_refused() {
        let error = agree(crate::top(), Some("v99.0.0")).unwrap_err().to_string();
        assert!(error.contains("v99.0.0") && error.contains("Cargo.toml"), "{error}");
    }
}
