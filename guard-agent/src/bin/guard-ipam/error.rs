//! What can go wrong, as the specification tells it: a code, a message, details.

use std::io;

use guard_agent::client::CallError;
use serde_json::{Value, json};

use crate::VERSIONS;

/// Why a call did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is of a version that is not spoken here.
    #[error("cniVersion {asked:?} is not supported; these are: {}", VERSIONS.join(", "))]
    Version {
        /// Which one.
        asked: String,
    },
    /// A variable is missing or malformed.
    #[error("{name}: {why}")]
    Variable {
        /// Which one.
        name: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Standard input.
    #[error("cannot read the configuration from standard input: {0}")]
    Input(io::Error),
    /// Threads or descriptors have run out.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// Not JSON, or a value of the wrong kind.
    #[error("the network configuration cannot be read: {0}")]
    Decode(#[from] serde_json::Error),
    /// The configuration is well formed and cannot be right.
    #[error("{0}")]
    Conf(String),
    /// The agent refused, or is not there.
    #[error(transparent)]
    Agent(#[from] CallError),
    /// What ADD left is not there any more.
    #[error("{0}")]
    Check(String),
    /// There is nothing to bind to.
    #[error("{0}")]
    Chain(String),
    /// GC's list leaves out what is in use.
    #[error("{0}")]
    Contradiction(String),
    /// ADD would not work now.
    #[error("{0}")]
    NotReady(String),
}

impl Error {
    /// The specification's code ("Error"), or one of our own from 100 on.
    pub fn code(&self) -> u32 {
        match self {
            Self::Version { .. } => 1,
            Self::Variable { .. } => 4,
            Self::Input(_) | Self::Runtime(_) => 5,
            Self::Decode(_) => 6,
            Self::Conf(_) => 7,
            // "Try again later".
            Self::Agent(error) if error.is_passing() => 11,
            Self::Agent(_) => 100,
            Self::Check(_) => 101,
            Self::Chain(_) => 102,
            Self::Contradiction(_) => 103,
            // "The plugin is not available".
            Self::NotReady(_) => 50,
        }
    }

    /// The document that a runtime reads.
    pub fn document(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "code": self.code(),
            "msg": "guard-ipam",
            "details": self.to_string(),
        })
    }
}
