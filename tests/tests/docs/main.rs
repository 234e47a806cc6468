//! The documentation: what it names exists, and what it tells people to type works.

mod architecture;
mod commands;
mod config;
mod go;
mod guide;
mod names;
mod python;
mod rules;
mod supply;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The top of the repository.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(top().join(path)).with_context(|| path.to_owned())
}

/// All files below a directory.
fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { walk(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

/// All that is written in Rust here: the paths, and what stands there.
fn sources() -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for dir in ["guard-agent", "guard-ebpf", "tests", "xtask"] {
        walk(&top().join(dir), &mut files)?;
    }
    let rust = files.into_iter().filter(|file| file.extension().is_some_and(|e| e == "rs"));
    rust.map(|file| Ok((file.clone(), std::fs::read_to_string(file)?))).collect()
}

/// The fenced blocks of a document: what stands behind the fence, and what in it.
fn blocks(document: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in document.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(info), None) => open = Some((info.to_owned(), String::new())),
            (None, Some((info, text))) => open = Some((info, text + line + "\n")),
            (None, None) => {}
        }
    }
    blocks
}
