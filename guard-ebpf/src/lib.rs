//! What both sides of the kernel boundary share: the [`abi`] of maps and events, and the way from
//! a frame to a decision.
//!
//! A frame is read into a [`claim::Parsed`] by [`frame::parse`], [`decide::judge`] meets its claims
//! with what the maps hold, and [`watch::watch`] carries out what was decided. Bytes, tables and time
//! come in as arguments, so the same code runs in the kernel's program, in tests on the host, and
//! over recorded frames; they differ in their [`watch::Store`].

#![no_std]

#[cfg(feature = "model")]
extern crate std;

pub mod abi;
pub mod address;
mod apply;
mod arp;
pub mod claim;
pub mod claim_cache;
pub mod counters;
pub mod decide;
mod dhcp;
pub mod drop_cache;
mod enforce;
pub mod fast_path;
pub mod frame;
mod ipv4;
mod ipv6;
pub mod mac;
#[cfg(feature = "model")]
pub mod model;
mod ndp;
mod notification;
mod ruling;
mod sender;
pub mod trace;
#[cfg(feature = "user")]
mod user;
pub mod watch;
