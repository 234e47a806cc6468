//! What the kernel knows by itself: of stations that have been silent since before the agent watched, and
//! of what is over a bridge where no port sees it.

use std::{collections::BTreeSet, io, time::Duration};

use guard_core::{arbiter, mac::Mac, segment::Segment};
use tokio::sync::mpsc;

use super::Observer;
use crate::{
    clock, health,
    network::neighbours::{Known, Neighbours},
    supervisor::Supervisor,
};

/// So many MACs are named.
const NAMED: usize = 4;

/// Reads it on a thread of its own: an FDB can be long.
pub(super) struct NeighbourReader {
    read: mpsc::Sender<io::Result<Neighbours>>,
    supervisor: Supervisor,
}

impl NeighbourReader {
    /// The reader, and the channel on which it reports.
    pub(super) fn new(supervisor: Supervisor) -> (Self, mpsc::Receiver<io::Result<Neighbours>>) {
        let (read, found) = mpsc::channel(1);
        (Self { read, supervisor }, found)
    }

    /// Reads what is over these bridges, with `all` the neighbour tables too. False if the last read is
    /// still under way.
    fn start(&self, bridges: BTreeSet<u32>, all: bool) -> bool {
        let Ok(permit) = self.read.clone().try_reserve_owned() else { return false };
        self.supervisor.spawn_blocking("read of the neighbours", move || {
            let read = if all { Neighbours::read } else { Neighbours::of_bridges };
            permit.send(read(&bridges));
        });
        true
    }
}

impl Observer {
    /// Reads them at once.
    pub(super) fn read_neighbours(&mut self) {
        let read = Neighbours::read(&self.bridges());
        self.take_neighbours(read);
    }

    pub(super) fn start_reading_neighbours(&mut self, reader: &NeighbourReader) {
        if reader.start(self.bridges(), self.read_all_neighbours) {
            self.read_all_neighbours = false;
        }
    }

    pub(super) fn take_neighbours(&mut self, read: io::Result<Neighbours>) {
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                let why = format!("what the kernel knows of them cannot be read: {error}");
                self.read_all_neighbours = true;
                return self.deps.health.degraded(health::NEIGHBOURS, &why);
            }
        };
        self.deps.health.recovered(health::NEIGHBOURS);
        let now = clock::monotonic();
        let known = read.on(&self.view).into_iter().map(|known| neighbour(&known, now)).collect();
        self.arbitrate(arbiter::Event::Neighbours(known));
        self.name_macvlans(&read);
    }

    /// Frames of a macvlan on a bridge leave by the bridge itself, and no port sees them. The addresses
    /// of those in this namespace are the host's; those in others are listened to.
    fn name_macvlans(&mut self, read: &Neighbours) {
        let here: BTreeSet<_> = self.topology.links().filter_map(|link| link.mac).collect();
        for (name, bridge) in self.view.bridges.clone() {
            let what = health::above(&name);
            let macs = read.macvlans_elsewhere(bridge.ifindex, &here);
            let unseen = (!macs.is_empty()).then(|| unseen(&macs));
            let listens = self.listen_above(&name, &bridge.devices, macs);
            match (unseen, listens) {
                (None, _) => self.deps.health.recovered(&what),
                (Some(unseen), Ok(())) => self.deps.health.degraded(&what, &unseen),
                (Some(unseen), Err(error)) => {
                    let why = format!("{unseen}; they cannot be listened to: {error}");
                    self.deps.health.degraded(&what, &why);
                }
            }
        }
    }

    fn bridges(&self) -> BTreeSet<u32> {
        self.view.bridges.values().map(|bridge| bridge.ifindex).collect()
    }
}

fn neighbour(
    Known { bridge, vlan, device, address, mac, port, age }: &Known,
    now: Duration,
) -> arbiter::Neighbour {
    arbiter::Neighbour {
        key: Segment::new("", *vlan).key(*bridge, *address),
        device: *device,
        mac: *mac,
        port: *port,
        confirmed: now.saturating_sub(*age),
    }
}

fn unseen(macs: &BTreeSet<Mac>) -> String {
    let named: Vec<_> = macs.iter().take(NAMED).map(ToString::to_string).collect();
    let others = match macs.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "there are macvlans on it in other network namespaces, at {}{others}: what they send passes no \
         port; an address of theirs is held back once they have sent ARP or neighbour discovery with it, \
         and what they send each other is not seen; exclude their addresses from the pools, or make the \
         sandboxes ports",
        named.join(", ")
    )
}
