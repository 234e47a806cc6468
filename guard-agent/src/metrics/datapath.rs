//! What the program counts, on each CPU.

use std::{
    collections::BTreeMap,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::{MapData, PerCpuArray};
use guard_ebpf::{
    abi::{
        BridgeCounters, MAP_BOUND_MACS, MAP_LIVE, MAP_MACS, MAP_OWNED, MAP_POLICIES, MAP_PORTS,
        MAP_PREFIXES, MAP_VLANS,
    },
    counters::{DropReason, FrameKind, MalformedReason, NoClaim, OpaqueReason},
};

use super::Metrics;

/// The program's counters, read when someone asks.
pub struct Counters {
    bridges: PerCpuArray<MapData, BridgeCounters>,
    ports: PerCpuArray<MapData, u64>,
    slots: BTreeMap<Arc<str>, u32>,
    lost: AtomicU64,
    full: AtomicU64,
    unjudged: AtomicU64,
    /// Entries of each of these maps that were put right.
    repaired: [AtomicU64; REPAIRED.len()],
}

/// The maps that only the agent writes, and that it compares with what it wrote.
pub(super) const REPAIRED: [&str; 7] =
    [MAP_OWNED, MAP_PORTS, MAP_VLANS, MAP_PREFIXES, MAP_MACS, MAP_BOUND_MACS, MAP_POLICIES];

impl Counters {
    /// `slots` are the places of the bridges in the array by bridge.
    pub fn new(
        bridges: PerCpuArray<MapData, BridgeCounters>,
        ports: PerCpuArray<MapData, u64>,
        slots: BTreeMap<Arc<str>, u32>,
    ) -> Self {
        let counters = Self {
            bridges,
            ports,
            slots,
            lost: AtomicU64::new(0),
            full: AtomicU64::new(0),
            unjudged: AtomicU64::new(0),
            repaired: Default::default(),
        };
        counters.full.store(counters.full(), Ordering::Relaxed);
        counters.lost.store(counters.lost(), Ordering::Relaxed);
        counters.unjudged_more();
        counters
    }

    /// Frames that a port has delivered, by its slot.
    pub fn frames(&self, slot: u32) -> u64 {
        self.ports.get(&slot, 0).map_or(0, |values| values.iter().sum())
    }

    /// Whether events were lost since this was last asked.
    pub fn lost_more(&self) -> bool {
        let lost = self.lost();
        self.lost.swap(lost, Ordering::Relaxed) != lost
    }

    /// Whether frames passed unjudged since this was last asked.
    pub fn unjudged_more(&self) -> bool {
        let unjudged = self.each().map(|(bridge, _)| bridge.unjudged).sum();
        self.unjudged.swap(unjudged, Ordering::Relaxed) != unjudged
    }

    /// Whether a claim or a MAC found no room in its map since this was last asked.
    pub fn full_more(&self) -> bool {
        let full = self.full();
        self.full.swap(full, Ordering::Relaxed) != full
    }

    /// So many entries of a map of `REPAIRED` were put right.
    pub fn repaired(&self, map: &str, entries: usize) {
        let counters = REPAIRED.iter().zip(&self.repaired).filter(|(name, _)| **name == map);
        for (_, counter) in counters {
            counter.fetch_add(u64::try_from(entries).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Makes the metrics show what was counted.
    pub fn collect(&self, metrics: &Metrics) {
        for (map, repaired) in REPAIRED.iter().zip(&self.repaired) {
            let counter = metrics.datapath.repaired.with_label_values(&[*map]);
            Metrics::follow(&counter, repaired.load(Ordering::Relaxed));
        }
        Metrics::follow(&metrics.datapath.events_lost, self.lost());
        for (bridge, name) in self.each() {
            for kind in FrameKind::ALL {
                let counter = metrics.datapath.frames.with_label_values(&[&*name, kind.name()]);
                Metrics::follow(&counter, bridge.frames[*kind as usize]);
            }
            for reason in OpaqueReason::ALL {
                let name_of = format!("opaque_{}", reason.name());
                let counter = metrics.datapath.malformed.with_label_values(&[&*name, &name_of]);
                Metrics::follow(&counter, bridge.opaque[*reason as usize]);
            }
            for reason in DropReason::ALL {
                let labels = [&*name, reason.name()];
                let dropped = metrics.datapath.frames_dropped.with_label_values(&labels);
                Metrics::follow(&dropped, bridge.dropped[*reason as usize]);
                let counter = metrics.datapath.would_drop.with_label_values(&labels);
                Metrics::follow(&counter, bridge.would_drop[*reason as usize]);
            }
            let ignored = NoClaim::ALL
                .iter()
                .map(|reason| (reason.name(), bridge.no_claim[*reason as usize]));
            let over = [("over_quota", bridge.over_quota), ("over_budget", bridge.over_budget)];
            for (reason, count) in ignored.chain(over) {
                let counter = metrics.datapath.claims_ignored.with_label_values(&[&*name, reason]);
                Metrics::follow(&counter, count);
            }
            let suspect =
                [("clone", bridge.clones), ("router", bridge.routers), ("odd", bridge.odd)];
            for (kind, count) in suspect {
                let counter = metrics.datapath.suspect.with_label_values(&[&*name, kind]);
                Metrics::follow(&counter, count);
            }
            for (map, count) in full(&bridge) {
                let counter = metrics.datapath.map_full.with_label_values(&[&*name, map]);
                Metrics::follow(&counter, count);
            }
            for reason in MalformedReason::ALL {
                let counter =
                    metrics.datapath.malformed.with_label_values(&[&*name, reason.name()]);
                Metrics::follow(&counter, bridge.malformed[*reason as usize]);
            }
        }
    }

    fn full(&self) -> u64 {
        self.each().flat_map(|(bridge, _)| full(&bridge)).map(|(_, count)| count).sum()
    }

    fn lost(&self) -> u64 {
        self.each().map(|(bridge, _)| bridge.events_lost).sum()
    }

    /// The sum over all CPUs for each bridge.
    fn each(&self) -> impl Iterator<Item = (BridgeCounters, Arc<str>)> + '_ {
        self.slots.iter().filter_map(|(name, slot)| {
            let values = self.bridges.get(slot, 0).ok()?;
            let sum = values.iter().fold(bytemuck::Zeroable::zeroed(), plus);
            Some((sum, name.clone()))
        })
    }
}

/// Entries that found no room, by map.
fn full(bridge: &BridgeCounters) -> [(&'static str, u64); 2] {
    [(MAP_LIVE, bridge.live_full), (MAP_MACS, bridge.macs_full)]
}

/// The counters are `u64` from first to last.
fn plus(mut sum: BridgeCounters, one: &BridgeCounters) -> BridgeCounters {
    let sums = bytemuck::cast_slice_mut::<_, u64>(slice::from_mut(&mut sum));
    for (sum, one) in sums.iter_mut().zip(bytemuck::cast_slice::<_, u64>(slice::from_ref(one))) {
        *sum += one;
    }
    sum
}
