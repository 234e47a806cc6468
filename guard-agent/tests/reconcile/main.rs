//! The reconciler with ledger, store and directory, over restarts and reboots.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod deaths;
mod node;
mod reboots;
