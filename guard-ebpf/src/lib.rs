//! What both sides of the kernel boundary share: the [`abi`] of maps and events, and the way from
//! a frame to a decision.
//!
//! A frame is read into a [`claim::Parsed`] by [`frame::parse`], and [`decide::judge`] meets it with
//! what the maps hold. Both are pure: bytes, tables and time come in as arguments, so the same code
//! runs in the kernel's program, in tests on the host, and over recorded frames. What to do with a
//! decision (write a map, emit an event) is the program's part.

#![no_std]

pub mod abi;
pub mod address;
mod arp;
pub mod claim;
pub mod counters;
pub mod decide;
pub mod frame;
mod ipv4;
pub mod known;
pub mod mac;
#[cfg(feature = "user")]
mod user;
