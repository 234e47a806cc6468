//! guard's wire contracts: the messages and services of its API and of those that the agent calls,
//! and the client with which programs call the agent.

pub mod client;
pub mod convert;
pub mod files;
#[cfg(feature = "serde")]
pub mod json;
pub mod pages;
pub mod proto;

use std::sync::LazyLock;

pub use guard_core::bounds;

/// What `--version` says: the version, and the commit if it was built as a release.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    // `cargo xtask release` and `package` set it.
    option_env!("GUARD_COMMIT")
        .map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})"))
});
