//! Errors as the CNI specification has them: a code, a message, details.

use std::io;

use guard_api::client::CallError;
use serde_json::{Value, json};

use crate::VERSIONS;

/// Why a call did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The configuration is of a version that is not spoken here.
    #[error(
        "cniVersion {asked:?} is not supported; write one of these in the network's \
         configuration: {}",
        VERSIONS.join(", ")
    )]
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
    /// One lease of several is not released.
    #[error("{container} keeps {address}: {why}")]
    Kept {
        /// Whose it is.
        container: String,
        /// What it is.
        address: String,
        /// What the agent says.
        why: Box<CallError>,
    },
    /// Of several things these went wrong; the others are done.
    #[error("{} not done: {}", .0.len(), several(.0))]
    Several(Vec<Error>),
    /// ADD would not work now.
    #[error("{0}")]
    NotReady(String),
}

/// "Try again later."
const AGAIN: u32 = 11;

/// How many of several errors are written out.
const NAMED: usize = 8;

fn several(errors: &[Error]) -> String {
    let named: Vec<_> = errors.iter().take(NAMED).map(ToString::to_string).collect();
    let more = errors.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    named.join("; ") + &more
}

impl Error {
    /// Whether the same call may go through a little later: the agent is starting, or about to.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Agent(error) => error.is_passing(),
            Self::Kept { why, .. } => why.is_passing(),
            Self::Several(errors) => errors.iter().any(Self::is_passing),
            _ => false,
        }
    }

    /// All that went wrong, if anything did.
    pub(crate) fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    /// The specification's code ("Error"), or one of our own from 100 on.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Version { .. } => 1,
            Self::Variable { .. } => 4,
            Self::Input(_) | Self::Runtime(_) => 5,
            Self::Decode(_) => 6,
            Self::Conf(_) => 7,
            // What is worst: "try again later" only where that helps all of them.
            Self::Several(errors) => {
                let codes = errors.iter().map(Self::code);
                codes.filter(|code| *code != AGAIN).max().unwrap_or(AGAIN)
            }
            Self::Agent(error) if error.retry_helps() => AGAIN,
            Self::Kept { why, .. } if why.retry_helps() => AGAIN,
            Self::Agent(_) => 100,
            Self::Check(_) => 101,
            Self::Chain(_) => 102,
            Self::Kept { .. } => 103,
            // "The plugin is not available".
            Self::NotReady(_) => 50,
        }
    }

    /// The document that a runtime reads.
    pub(crate) fn document(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "code": self.code(),
            "msg": "guard-ipam",
            "details": self.to_string(),
        })
    }
}
