//! Macvlans over the bridges in other network namespaces (claims.md, "macvlan elsewhere"): what they have is
//! known by the frames that leave by the bridge, as long as they are there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use guard_core::{arbiter, mac::Mac, policy::is_link_local, segment::Segment};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, yield_now},
    time::sleep,
};

use super::Observer;
use crate::{clock, network::outgoing::Outgoing, supervisor::Supervisor};

/// So many addresses of one of them are known, and of all over a bridge.
const OF_ONE: usize = 16;
const OF_BRIDGE: usize = 1024;
/// A device that cannot be read, because it is down or gone, is read again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// An address, with its VLAN.
type Place = (u16, IpAddr);

/// What was heard in a VLAN of a bridge: Ethernet sources, and the addresses that they claim.
pub(super) struct Heard {
    bridge: Arc<str>,
    vlan: u16,
    claims: Vec<(Mac, IpAddr)>,
}

/// What is known of macvlans, and who listens to them.
pub(super) struct Above {
    listening: HashMap<(Arc<str>, u16), (u32, AbortHandle)>,
    bridges: HashMap<Arc<str>, Bridge>,
    sender: mpsc::Sender<Heard>,
    heard: mpsc::Receiver<Heard>,
    supervisor: Supervisor,
}

/// What is known of those over one bridge.
#[derive(Default)]
struct Bridge {
    macs: BTreeSet<Mac>,
    /// Whose each address is, and when it was heard last.
    places: BTreeMap<Place, (Mac, Duration)>,
}

impl Above {
    pub(super) fn new(supervisor: Supervisor) -> Self {
        let (sender, heard) = mpsc::channel(16);
        let (listening, bridges) = Default::default();
        Self { listening, bridges, sender, heard, supervisor }
    }

    /// What is heard next. It waits for ever where nobody listens.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }

    /// Listens to these devices of a bridge, and to no others of it.
    fn listen(&mut self, bridge: &Arc<str>, devices: &BTreeMap<u16, u32>) -> io::Result<()> {
        self.listening.retain(|(of, vlan), (device, listener)| {
            let stays =
                of != bridge || !listener.is_finished() && devices.get(vlan) == Some(device);
            if !stays {
                listener.abort();
            }
            stays
        });
        for (vlan, device) in devices {
            let key = (Arc::clone(bridge), *vlan);
            if !self.listening.contains_key(&key) {
                let (outgoing, sender) = (Outgoing::open(*device)?, self.sender.clone());
                let task = listen(outgoing, sender, Arc::clone(bridge), *vlan);
                let task = self.supervisor.spawn_once("ear for macvlans", task);
                self.listening.insert(key, (*device, task));
            }
        }
        Ok(())
    }
}

async fn listen(outgoing: Outgoing, sender: mpsc::Sender<Heard>, bridge: Arc<str>, vlan: u16) {
    loop {
        match outgoing.claims().await {
            Ok(claims) if claims.is_empty() => yield_now().await,
            Ok(claims) => {
                let heard = Heard { bridge: Arc::clone(&bridge), vlan, claims };
                if sender.send(heard).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%bridge, vlan, %error, "cannot listen to macvlans");
                sleep(AGAIN).await;
            }
        }
    }
}

impl Bridge {
    /// Whether that is new. An address that was not heard for `long` gives its place to another.
    fn heard(&mut self, place: Place, mac: Mac, now: Duration, long: Duration) -> bool {
        if let Some((_, seen)) = self.places.get_mut(&place) {
            *seen = now;
            return false;
        }
        let own = self.places.iter().filter(|(_, (of, _))| *of == mac);
        let (count, last) = (own.clone().count(), own.min_by_key(|(_, (_, seen))| *seen));
        if count >= OF_ONE {
            let Some((last, (_, seen))) = last.map(|(place, known)| (*place, *known)) else {
                return false;
            };
            if now.saturating_sub(seen) < long {
                return false;
            }
            self.places.remove(&last);
        }
        let has_room = self.places.len() < OF_BRIDGE;
        if has_room {
            self.places.insert(place, (mac, now));
        }
        has_room
    }

    fn owners(&self) -> BTreeMap<Place, Mac> {
        self.places.iter().map(|(place, (mac, _))| (*place, *mac)).collect()
    }
}

impl Observer {
    /// There are these macvlans over a bridge, which has these devices by VLAN.
    pub(super) fn listen_above(
        &mut self,
        bridge: &Arc<str>,
        devices: &BTreeMap<u16, u32>,
        macs: BTreeSet<Mac>,
    ) -> io::Result<()> {
        let none = BTreeMap::new();
        let devices = if macs.is_empty() { &none } else { devices };
        let known = self.above.bridges.entry(Arc::clone(bridge)).or_default();
        let before = known.owners();
        known.places.retain(|_, (mac, _)| macs.contains(mac));
        known.macs = macs;
        let now = known.owners();
        self.above_changed(bridge, &before, now);
        self.above.listen(bridge, devices)
    }

    /// Frames have left by a bridge. Only those of its macvlans say anything.
    pub(super) fn heard_above(&mut self, heard: Option<Heard>) {
        let Some(Heard { bridge, vlan, claims }) = heard else { return };
        let (Some(known), Some(there)) =
            (self.above.bridges.get_mut(&bridge), self.view.bridges.get(&bridge))
        else {
            return;
        };
        let segment = Segment::new(Arc::clone(&bridge), vlan);
        let (now, before) = (clock::monotonic(), known.owners());
        let long = self.deps.conflict.live_window;
        let mut is_new = false;
        for (mac, address) in claims {
            let place = (vlan, address);
            let counts = known.macs.contains(&mac)
                && !is_link_local(address)
                && !there.addresses.contains(&place)
                && !self.executor.is_off_prefix(&segment, address);
            is_new |= counts && known.heard(place, mac, now, long);
        }
        if is_new {
            let now = known.owners();
            self.above_changed(&bridge, &before, now);
        }
    }

    fn above_changed(
        &mut self,
        bridge: &Arc<str>,
        before: &BTreeMap<Place, Mac>,
        now: BTreeMap<Place, Mac>,
    ) {
        let without = |all: &BTreeMap<Place, Mac>, others: &BTreeMap<Place, Mac>| {
            let rest = all.iter().filter(|(place, _)| !others.contains_key(place));
            rest.map(|((vlan, address), mac)| (*vlan, *address, *mac)).collect::<Vec<_>>()
        };
        let (new, old) = (without(&now, before), without(before, &now));
        if new.is_empty() && old.is_empty() {
            return;
        }
        let changed = new.iter().chain(&old);
        let changed: Vec<_> = changed
            .map(|(vlan, address, _)| (Segment::new(Arc::clone(bridge), *vlan), *address))
            .collect();
        self.deps.live.set_above(bridge, now, changed);
        self.arbitrate(arbiter::Event::Above { bridge: Arc::clone(bridge), new, old });
    }
}
