//! The agent's configuration, as the file that it reads.

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::lab::{BRIDGE, Lab, POOL};

/// A configuration: first one that fits the lab, with every other setting at its default.
#[derive(Clone, Debug)]
pub struct Config {
    table: Table,
}

impl Config {
    pub(crate) fn of(lab: &Lab) -> Result<Self> {
        let dir = lab.dir();
        let paths = [("state_dir", "state"), ("socket", "guard.sock"), ("bpffs", "bpf/guard")];
        let mut table = Table::new();
        for (key, path) in paths {
            let path = dir.join(path).to_string_lossy().into_owned();
            table.insert(key.to_owned(), Value::String(path));
        }
        // Loopback is each namespace's own, so that every lab can have the same port.
        table.insert("http".to_owned(), Value::String("127.0.0.1:9477".to_owned()));
        let prefix = lab.prefix().trunc();
        Self { table }.with(&format!(
            "[[bridge]]\nname = {BRIDGE:?}\n\
             [[pool]]\nname = {POOL:?}\nbridge = {BRIDGE:?}\nprefix = \"{prefix}\"\n"
        ))
    }

    /// Adds a piece of TOML: tables are merged, anything else replaces what was there.
    ///
    /// # Errors
    /// It is not TOML.
    pub fn with(mut self, fragment: &str) -> Result<Self> {
        let fragment: Table = fragment.parse().with_context(|| format!("not TOML: {fragment}"))?;
        merge(&mut self.table, fragment);
        Ok(self)
    }

    /// Sets a key of the first pool, which is the lab's, to a piece of TOML.
    ///
    /// # Errors
    /// It is not TOML.
    pub fn with_pool(mut self, key: &str, value: &str) -> Result<Self> {
        let mut parsed: Table =
            format!("{key} = {value}").parse().with_context(|| format!("not TOML: {value}"))?;
        let value = parsed.remove(key).context("a key with a dot in it")?;
        let pools = self.table.get_mut("pool").and_then(Value::as_array_mut);
        let pool = pools.and_then(|pools| pools.first_mut()).and_then(Value::as_table_mut);
        pool.context("a configuration without pools")?.insert(key.to_owned(), value);
        Ok(self)
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never: what was read from TOML can be written as TOML.
    pub fn text(&self) -> Result<String> {
        toml::to_string(&self.table).context("writing TOML")
    }
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}
