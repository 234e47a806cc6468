//! The documentation: what it names exists, and what it tells people to type works.

mod commands;
mod config;
mod go;
mod guide;
mod names;
mod python;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The top of the repository.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(top().join(path)).with_context(|| path.to_owned())
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
