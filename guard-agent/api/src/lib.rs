//! guard's wire contracts: the messages and services of its API and of those that the agent calls,
//! and the client with which programs call the agent.

pub mod client;
pub mod convert;
pub mod files;
#[cfg(feature = "serde")]
pub mod json;
pub mod pages;
pub mod proto;

pub use guard_core::bounds;
