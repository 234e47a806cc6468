//! An agent with sixteen clients, from one crash to the next.

use anyhow::{Context, Result};
use guard_tests::{Agent, Client, Lab};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::{knowledge::Knowledge, verify::verify};

const CLIENTS: usize = 16;

/// A lab, its agent and its clients.
pub(crate) struct Life {
    // Dropped before the lab is.
    pub agent: Agent,
    pub lab: Lab,
    runtime: Runtime,
    knowledge: Vec<Knowledge>,
}

impl Life {
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let agent = lab.agent()?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Self { agent, lab, runtime, knowledge: (0..CLIENTS).map(Knowledge::new).collect() })
    }

    /// Lets the clients at the agent until `end` has ended it, restarts it by `again` and compares.
    pub(crate) fn round(
        &mut self,
        end: impl FnOnce(&Runtime, &Agent) -> Result<()>,
        again: impl FnOnce(&Lab, &mut Agent) -> Result<()>,
    ) -> Result<()> {
        let socket = self.agent.socket();
        let mut clients = Vec::with_capacity(CLIENTS);
        for _ in 0..CLIENTS {
            clients.push(self.runtime.block_on(Client::connect(&socket))?);
        }
        let mut living = JoinSet::new();
        for (knowledge, client) in self.knowledge.drain(..).zip(clients) {
            living.spawn_on(knowledge.live(client), self.runtime.handle());
        }
        end(&self.runtime, &self.agent)?;
        while let Some(ended) = self.runtime.block_on(living.join_next()) {
            self.knowledge.push(ended.context("a client panicked")??);
        }
        again(&self.lab, &mut self.agent)?;
        self.runtime.block_on(verify(&socket, &mut self.knowledge))
    }

    /// How many leases were given in all; a test in which nothing happens says nothing.
    pub(crate) fn given(&self) -> usize {
        self.knowledge.iter().map(|knowledge| knowledge.held.len() + knowledge.ended.len()).sum()
    }
}

/// Numbers that look random, the same in each run (splitmix64).
pub(crate) struct Numbers(pub u64);

impl Numbers {
    /// One below `limit`.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = u64::from(limit) * ((mixed >> 32) & 0xffff_ffff);
        u32::try_from(share >> 32).expect("below a u32")
    }
}
