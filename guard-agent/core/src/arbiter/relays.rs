//! Stations that send for others: repeaters and relays (claims.md A10). Their ARP and neighbour discovery
//! name the station that they send for, and their packets do not.

use std::collections::HashMap;

use guard_ebpf::abi::{AddressKey, CLAIM_MISMATCH, CLAIM_SPOOF};

use super::{Facts, Remark, Seen, given::Given};
use crate::{evidence::Strength, mac::Mac};

/// So many addresses of one port are remembered.
const MOST_OF_PORT: usize = 256;

/// Who sends for whom, by port and address: the sender of the frames, and the station that they name.
#[derive(Debug, Default)]
pub(super) struct Relays(HashMap<u32, HashMap<AddressKey, (Mac, Mac)>>);

impl Relays {
    /// The holder of an address was heard, in a frame of this Ethernet source. The first such is told.
    pub(super) fn heard<F: Facts>(&mut self, seen: &Seen, eth_src: Mac, given: &mut Given<'_, F>) {
        let station = &seen.claim.station;
        if seen.flags & CLAIM_MISMATCH == 0 || seen.flags & CLAIM_SPOOF != 0 {
            return;
        }
        let of_port = self.0.entry(station.ifindex).or_default();
        let known = of_port.contains_key(&seen.key);
        if known || of_port.len() < MOST_OF_PORT {
            let before = of_port.insert(seen.key, (eth_src, station.mac));
            if before != Some((eth_src, station.mac)) {
                given.remark(Remark::Relays, seen);
            }
        }
    }

    /// Whether a packet is one that a relay has sent for the station that has the address. Who says that
    /// the address is at the relay's own MAC claims it for himself.
    pub(super) fn is_for(&self, seen: &Seen, holder: Mac) -> bool {
        let station = &seen.claim.station;
        let known = self.0.get(&station.ifindex).and_then(|of_port| of_port.get(&seen.key));
        seen.claim.strength == Strength::Use && known == Some(&(station.mac, holder))
    }

    pub(super) fn port_gone(&mut self, ifindex: u32) {
        self.0.remove(&ifindex);
    }
}
