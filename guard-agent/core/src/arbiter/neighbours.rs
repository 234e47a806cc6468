//! What the host's own neighbour table knows (claims.md, "The host's neighbours"): stations that have been
//! silent since before the agent watched. It only adds. Where the kernel's word is fresh and it has the
//! station on a port, that is evidence; else the host asks, and the address is held back for so long.

use std::{collections::HashMap, net::IpAddr, num::NonZeroU32, time::Duration};

use guard_ebpf::abi::{AddressKey, STRENGTH_USE};

use super::{Arbiter, Effect, Facts, Seen, given::Given};
use crate::{
    evidence::{Claim, Strength},
    mac::Mac,
    policy::Quota,
    segment::Segment,
};

/// An address is held back for so long: the kernel asks three times, a second apart.
const ASKED_FOR: Duration = Duration::from_secs(4);
/// So many are asked for at a time.
const MOST_ASKED: usize = 1024;

/// An entry of the host's neighbour table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The address.
    pub key: AddressKey,
    /// The host's device that the entry is of.
    pub device: u32,
    /// At which MAC the host has found the address.
    pub mac: Mac,
    /// The port behind which the bridge has that MAC now.
    pub port: Option<u32>,
    /// When it was last confirmed, on `CLOCK_MONOTONIC`.
    pub confirmed: Duration,
}

/// How many addresses of a port count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    access: NonZeroU32,
    uplink: NonZeroU32,
}

impl Most {
    pub(super) fn new(quota: &Quota) -> Self {
        Self { access: quota.addresses_per_port, uplink: quota.uplink_addresses }
    }
}

impl Arbiter {
    /// The host's neighbour table was read.
    pub(super) fn neighbours_read<F: Facts>(
        &self,
        neighbours: Vec<Neighbour>,
        given: &mut Given<'_, F>,
    ) {
        let (mut of_port, mut asked) = (HashMap::<u32, u32>::new(), 0);
        for neighbour in neighbours {
            let Some((segment, address)) = given.nobodys(&neighbour) else { continue };
            let now = given.now.monotonic;
            let is_fresh = now.saturating_sub(neighbour.confirmed) < self.conflict.live_window;
            let of_port = neighbour.port.map(|port| of_port.entry(port).or_default());
            let fresh = of_port.filter(|_| is_fresh);
            if let Some(count) = fresh
                && let Some(seen) = given.neighbour_seen(&neighbour)
                && *count < self.most_neighbours(seen.claim.station.ifindex, given)
            {
                *count += 1;
                given.claimed(seen);
            } else if given.facts.holder(&segment, address).is_none() && asked < MOST_ASKED {
                asked += 1;
                let Neighbour { device, mac, .. } = neighbour;
                given.effects.push(Effect::HoldBack(segment, address, now + ASKED_FOR));
                given.effects.push(Effect::HostAsks { device, address, mac });
            }
        }
    }

    fn most_neighbours<F: Facts>(&self, port: u32, given: &Given<'_, F>) -> u32 {
        let uplink = given.facts.port(port).is_some_and(|port| port.uplink);
        if uplink { self.neighbours.uplink.get() } else { self.neighbours.access.get() }
    }
}

impl<F: Facts> Given<'_, F> {
    /// Where an address is that could be handed out, and of which nothing else is known.
    fn nobodys(&self, Neighbour { key, .. }: &Neighbour) -> Option<(Segment, IpAddr)> {
        let (bridge, _) = self.facts.bridge(key.bridge)?;
        let (segment, address) = (Segment::new(bridge, key.vlan), key.ip());
        let is_known = self.facts.is_reserved(&segment, address)
            || self.facts.is_host(&segment, address)
            || self.facts.is_off_prefix(&segment, address)
            || !self.facts.claims(&segment, address).is_empty();
        (!is_known).then_some((segment, address))
    }

    fn neighbour_seen(
        &self,
        Neighbour { key, mac, port, confirmed, .. }: &Neighbour,
    ) -> Option<Seen> {
        let seen = self.seen(*key, (*port)?, *mac, STRENGTH_USE, *confirmed, *confirmed)?;
        let claim = Claim { strength: Strength::Neighbour, ..seen.claim };
        let is_station = mac.is_host() && !self.facts.is_host_mac(key.bridge, *mac);
        is_station.then_some(Seen { claim, ..seen })
    }
}
