//! What both sides of the kernel boundary share: the [`abi`] of maps and events.

#![no_std]

pub mod abi;
