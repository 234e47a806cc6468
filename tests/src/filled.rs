//! A store that has many leases, made before the agent starts: one call after the other would take
//! minutes.

use std::sync::Arc;

use anyhow::{Context, Result};
use guard_agent::{
    clock,
    ledger::Ledger,
    live::SharedEvidence,
    store::{Boot, Store},
};
use guard_core::{
    lease::{
        Pool, PoolSpec, Pools,
        command::{Allocate, Command},
    },
    mac::Mac,
    segment::Segment,
};
use tokio::task::JoinSet;

use crate::lab::{BRIDGE, Lab, POOL};

/// How many allocations wait for one commit.
const AT_ONCE: u32 = 1024;

impl Lab {
    /// Fills the pool with so many active leases, each of a sandbox of its own: `s0`, `s1` and so on.
    /// To be called before the agent starts.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn fill(&self, leases: u32) -> Result<()> {
        self.fill_with(leases, |_| None)
    }

    /// As [`Lab::fill`], each with a MAC that it has declared.
    ///
    /// # Errors
    /// As [`Lab::fill`].
    pub fn fill_declared(&self, leases: u32) -> Result<()> {
        self.fill_with(leases, |number| {
            let [_, a, b, c] = number.to_be_bytes();
            Some(Mac([2, 0xee, 0, a, b, c]))
        })
    }

    fn fill_with(&self, leases: u32, mac: impl Fn(u32) -> Option<Mac>) -> Result<()> {
        let state = self.dir().join("state");
        std::fs::create_dir_all(&state).context("the state directory")?;
        let boot = Boot { id: clock::boot_id()?, now: clock::now() };
        let store = Store::open(&state.join("leases.db"), &boot)?;
        let prefix = self.prefix().trunc().into();
        let spec = PoolSpec::new(POOL, Segment::new(BRIDGE, 0), prefix);
        let pools = Pools::new(vec![Pool::new(spec)?])?;
        let view = Arc::new(SharedEvidence::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let changes = Arc::clone(view.changes());
            let ledger = Ledger::start(pools, store, view, changes, Vec::new())?;
            for first in (0..leases).step_by(AT_ONCE as usize) {
                let mut calls = JoinSet::new();
                for number in first..leases.min(first + AT_ONCE) {
                    let ledger = ledger.clone();
                    let lease = lease(number, mac(number));
                    calls.spawn(async move { ledger.call(lease).await });
                }
                while let Some(called) = calls.join_next().await {
                    called??;
                }
            }
            ledger.shutdown().await;
            Ok(())
        })
    }
}

fn lease(number: u32, mac: Option<Mac>) -> Command {
    Command::Allocate(Allocate {
        pools: vec![POOL.into()],
        sandbox: format!("s{number}").into(),
        confirmed: true,
        mac,
        ..Allocate::default()
    })
}
