//! Compares the maps that only the agent writes with what it has written: whoever may write maps can take a
//! port or an owner out, and would be seen no more.

use std::{sync::Arc, time::Duration};

use aya::maps::MapError;
use guard_ebpf::abi::{
    MAP_BOUND_MACS, MAP_MACS, MAP_OWNED, MAP_POLICIES, MAP_PORTS, MAP_PREFIXES, MAP_VLANS,
};
use tokio::time::Instant;

use super::Observer;
use crate::{datapath, metrics::Counters};

/// How often.
pub(super) const EVERY: Duration = Duration::from_secs(3);

impl Observer {
    pub(super) fn repair_maps(&mut self) {
        if Instant::now() < self.repair_at {
            return;
        }
        self.repair_at = Instant::now() + EVERY;
        report(&self.counters, MAP_PORTS, self.ports.repair_entries());
        report(&self.counters, MAP_VLANS, self.ports.repair_vlans());
        report(&self.counters, MAP_PREFIXES, self.executor.repair_prefixes());
        report(&self.counters, MAP_POLICIES, self.deps.owners.repair_policies());
        let (bpffs, owners) = (self.deps.bpffs.clone(), self.deps.owners.clone());
        let counters = Arc::clone(&self.counters);
        // There can be as many as there are leases.
        self.deps.supervisor.spawn_blocking("repair of the owners", move || {
            let wrong = datapath::owned(&bpffs).map(|there| owners.repair(there));
            if let Some((segment, address)) = wrong.as_ref().ok().and_then(|wrong| wrong.first()) {
                tracing::debug!(%segment, %address, "the first owner that was put right");
            }
            report(&counters, MAP_OWNED, wrong.map(|wrong| wrong.len()));
            match datapath::bound(&bpffs).and_then(|there| owners.repair_macs(&there)) {
                Ok([macs, stations]) => {
                    report(&counters, MAP_MACS, Ok(macs));
                    report(&counters, MAP_BOUND_MACS, Ok(stations));
                }
                Err(error) => report(&counters, MAP_MACS, Err(error)),
            }
        });
    }
}

fn report(counters: &Counters, map: &'static str, repaired: Result<usize, MapError>) {
    match repaired {
        Ok(0) => {}
        Ok(entries) => {
            counters.repaired(map, entries);
            tracing::warn!(
                map,
                entries,
                "someone has changed what the agent wrote into the kernel; put right"
            );
        }
        Err(error) => {
            tracing::warn!(map, %error, "cannot compare what the kernel has with what was written");
        }
    }
}
