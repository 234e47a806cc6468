//! What only numbers show. `cargo test` runs a share of it, and `cargo xtask soak` all.

mod attack;
mod belief;
mod incidents;
mod surface;
mod thefts;

use std::env;

use anyhow::{Context, Result};
use parking_lot::Mutex;

/// A flood leaves nothing of the machine to anybody else.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How much is asked for; the share where nothing is.
fn asked(variable: &str) -> Result<Option<usize>> {
    let Some(value) = env::var_os(variable) else { return Ok(None) };
    let value = value.to_str().and_then(|value| value.parse().ok());
    value.map(Some).with_context(|| format!("{variable} is no number"))
}
