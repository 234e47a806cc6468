//! The Ethernet source of a frame: whose MAC it is, and how many a port has.

use bytemuck::Zeroable;

use crate::{
    abi::{
        AddressKey, CLAIM_GROUP, CLAIM_RESERVED, EVENT_BRIDGE_MAC, EVENT_CLONE, MAC_BEYOND,
        MAC_BOUND, MacHolder, MacKey, NO_VLAN, PORT_ALLOW_VIRTUAL, PORT_FILTERS_VLANS, PORT_UPLINK,
        Port, PortMac, STATION_BOUND,
    },
    address::Segment,
    apply::{Judged, Outcome, flood},
    claim::{Claim, Parsed},
    counters::DropReason,
    decide::{Holder, PASS, Tables},
    enforce::{DROPPED, PASSES, policy},
    mac::{self, Mac},
    notification::Notification,
    watch::{Ingress, Store},
};

/// The Ethernet source of a frame, and what is to be said against it.
#[derive(Zeroable)]
pub(crate) struct Sender {
    /// The first address that it claims, unspecified if it claims none that counts.
    key: AddressKey,
    /// The MAC.
    mac: MacKey,
    /// Not 0 if it is live with an address in its own name.
    lives: u32,
    /// [`CLAIM_GROUP`] if the frame is to a group, else 0.
    pub(crate) group: u16,
    /// How many claims were judged, and how many of these were carried out.
    pub(crate) claims: u32,
    pub(crate) carried: u32,
    /// A bit for each reason to drop the frame.
    pub(crate) reasons: u32,
    /// The count of the agent's changes before it was judged.
    pub(crate) changes: u32,
    /// Not 0 if the bridge drops the frame, so that its source is not learned.
    pub(crate) unlearned: u32,
    /// Not 0 if nobody has the MAC.
    new: u32,
    /// Not 0 if it counts for the port's quota.
    admits: u32,
    /// [`EVENT_CLONE`], [`EVENT_BRIDGE_MAC`], or 0 where the MAC is nobody else's.
    suspicion: u32,
    /// Whose it is then.
    holder: u32,
    /// The `EVENT_*` to tell of the frame as such, once for a port; 0 without any.
    pub(crate) notice: u8,
}

impl Sender {
    #[inline(always)]
    pub(crate) fn reset(&mut self, parsed: &Parsed, port: &Port) {
        let Parsed { segment, eth_src, .. } = *parsed;
        // Without an address it is about the MAC alone. Where that is on one port in all VLANs, an
        // event for each of them would be a flood.
        let none = port.flags & PORT_FILTERS_VLANS == 0 || segment.vlan == NO_VLAN;
        let vlan = if none { 0 } else { segment.vlan };
        self.key = AddressKey::none(Segment { vlan, inner_vlan: 0, ..segment });
        self.mac = MacKey::new(segment.bridge, vlan, eth_src);
        self.lives = 0;
        self.group = if parsed.group { CLAIM_GROUP } else { 0 };
        self.claims = 0;
        self.carried = 0;
        self.notice = 0;
        self.reasons = PASS;
        self.unlearned = 0;
        self.new = 0;
        self.admits = 0;
        self.suspicion = 0;
        self.holder = 0;
    }

    /// Whether the MAC is another's.
    #[inline(always)]
    pub(crate) const fn is_suspect(&self) -> bool {
        self.suspicion != 0
    }

    /// Takes in what came of one of its claims.
    #[inline(never)]
    pub(crate) fn take(&mut self, claim: &Claim, judged: &Judged) {
        self.claims += 1;
        self.reasons |= judged.reasons;
        if judged.counts != 0 && self.key.address == [0; 16] {
            self.key = claim.key;
        }
        if mac::same(claim.mac, claim.eth_src) {
            self.lives |= judged.lives;
        }
    }

    /// Finds whether the MAC is another port's (claims.md L01) or the bridge's (claims.md L02). A BPF
    /// subprogram.
    #[inline(never)]
    pub(crate) fn identify<S: Store>(&mut self, store: &S, ingress: &Ingress<'_>) {
        let Ingress { port, from, .. } = *ingress;
        let eth_src = self.mac.mac;
        if !mac::is_host(eth_src) {
            return; // Malformed, and counted as such (claims.md L03).
        }
        let (holder, flags) =
            store.mac_holder(&self.mac).map_or((0, 0), |holder| (holder.ifindex, holder.flags));
        if mac::same(eth_src, port.bridge_mac) {
            self.holder = port.bridge;
            self.suspicion = EVENT_BRIDGE_MAC.into();
            self.reasons |= DropReason::BridgeMac.bit();
            return;
        }
        self.new = u32::from(holder == 0);
        // What was only learned is no reason to drop anyone.
        let is_bound = flags & MAC_BOUND != 0;
        let mut clone = holder != 0 && holder != from;
        if port.kind == PORT_UPLINK {
            clone &= flags & MAC_BEYOND == 0;
        } else if !(is_bound && holder == from) {
            let (drops, macs) =
                policy(store, port, from).map_or((PASS, 0), |policy| (policy.drops, policy.macs));
            let most = if macs == 0 { port.quota_macs } else { u32::from(macs) };
            let over = is_over_mac_quota(store, port, eth_src, most);
            let closed = drops & DropReason::Mac.bit() != 0;
            let taken = clone && is_bound;
            let foreign = (closed || over || taken)
                && !(port.flags & PORT_ALLOW_VIRTUAL != 0 && mac::is_virtual(eth_src))
                && !is_named(store, from, eth_src, taken);
            if foreign {
                self.reasons |= DropReason::Mac.bit();
                if over {
                    self.reasons |= DropReason::MacQuota.bit();
                }
            }
            if clone && !is_bound {
                // A MAC of several ports goes from one to the other by right.
                clone = !is_of_several(store, from, eth_src);
            } else if clone {
                clone = foreign;
                if foreign {
                    self.reasons |= DropReason::Clone.bit();
                }
            }
            self.admits = 1;
        }
        if clone {
            self.holder = holder;
            self.suspicion = EVENT_CLONE.into();
        }
    }

    /// Notes where the MAC is, and finds what is to be told of it: then not 0. A BPF subprogram.
    #[inline(never)]
    pub(crate) fn conclude<S: Store>(
        &mut self,
        store: &mut S,
        ingress: &mut Ingress<'_>,
        outcome: &mut Outcome,
        now_ns: u64,
    ) -> u32 {
        let Ingress { port, from, .. } = *ingress;
        let eth_src = self.mac.mac;
        let notification = &mut outcome.notification;
        if mac::is_host(eth_src) && port.quota_macs != 0 && self.unlearned == 0 {
            count_source(store, ingress, notification, &self.mac, now_ns);
            if self.admits != 0 && outcome.fate == PASSES {
                admit_source(store, port, eth_src);
            }
        }
        if self.new != 0 && self.lives != 0 && outcome.fate != DROPPED {
            // A virtual router's MAC goes from port to port by right, among those that may
            // (claims.md A16).
            let moves = mac::is_virtual(eth_src)
                && (port.flags & PORT_ALLOW_VIRTUAL != 0 || is_of_several(store, from, eth_src));
            let flags = if port.kind == PORT_UPLINK { MAC_BEYOND } else { 0 };
            let holder = MacHolder { ifindex: from, flags };
            if !moves && !store.insert_mac(&self.mac, &holder) {
                ingress.counters.macs_full += 1;
            }
        }
        if self.suspicion == 0 {
            return 0;
        }
        ingress.counters.clones += 1;
        // Whatever addresses its frames name, it is one challenger.
        notification.be_of_mac(&self.mac);
        notification.key = self.key;
        notification.holder = Holder { ifindex: self.holder, mac: eth_src };
        let is_clone = self.suspicion == u32::from(EVENT_CLONE);
        notification.flags = if is_clone { 0 } else { CLAIM_RESERVED } | self.group;
        notification.kind = if is_clone { EVENT_CLONE } else { EVENT_BRIDGE_MAC };
        1
    }
}

/// Whether a binding or an exception names the MAC on the port. `taken`: it is bound to another port, of
/// which no exception makes anything.
#[inline(always)]
fn is_named<T: Tables>(tables: &T, from: u32, mac: Mac, taken: bool) -> bool {
    match tables.station(&PortMac::new(from, mac)) {
        STATION_BOUND => true,
        _ if taken => false,
        0 => tables.station(&PortMac::vendor(from, mac)) != 0,
        _ => true,
    }
}

/// Whether the MAC may be on the port as well as on others: it is bound to it, or a virtual router's that
/// the port may be.
#[inline(always)]
fn is_of_several<T: Tables>(tables: &T, from: u32, mac: Mac) -> bool {
    match tables.station(&PortMac::new(from, mac)) {
        STATION_BOUND => true,
        0 => false,
        _ => mac::is_virtual(mac),
    }
}

/// Counts the Ethernet source of a frame from an access port (claims.md L06). A BPF subprogram.
#[inline(never)]
fn count_source<S: Store>(
    store: &mut S,
    ingress: &mut Ingress<'_>,
    notification: &mut Notification,
    eth_src: &MacKey,
    now_ns: u64,
) {
    let port = ingress.port;
    let Some(state) = store.port_state_mut(port.port_slot) else { return };
    let bit = source_bit(eth_src.mac);
    let Some(word) = state.sources.get_mut((bit >> 6 & 15) as usize) else { return };
    if *word >> (bit & 63) & 1 != 0 {
        return;
    }
    *word |= 1 << (bit & 63);
    state.macs += 1;
    if state.macs <= port.quota_macs {
        return;
    }
    ingress.counters.over_budget += 1;
    notification.be_of_mac(eth_src);
    flood(store, ingress, notification, now_ns);
}

/// Whether the port may have this Ethernet source besides those that it has, or has it.
#[inline(always)]
fn is_over_mac_quota<T: Tables>(tables: &T, port: &Port, mac: Mac, most: u32) -> bool {
    let Some(state) = tables.port_state(port.port_slot) else { return false };
    if most == 0 || state.admitted_macs < most {
        return false;
    }
    let has = |bit: u64| {
        state.admitted.get((bit >> 6 & 63) as usize).is_some_and(|word| word >> (bit & 63) & 1 != 0)
    };
    !admission_bits(mac).into_iter().all(has)
}

/// The port has this Ethernet source.
#[inline(always)]
fn admit_source<S: Store>(store: &mut S, port: &Port, mac: Mac) {
    let Some(state) = store.port_state_mut(port.port_slot) else { return };
    let mut new = 0;
    for bit in admission_bits(mac) {
        if let Some(word) = state.admitted.get_mut((bit >> 6 & 63) as usize) {
            new |= !*word >> (bit & 63) & 1;
            *word |= 1 << (bit & 63);
        }
    }
    if new != 0 {
        state.admitted_macs += 1;
    }
}

/// Four of 4,096 bits.
#[inline(always)]
fn admission_bits(mac: Mac) -> [u64; 4] {
    let once = spread(mac);
    let twice = (once ^ once >> 32).wrapping_mul(SPREAD);
    [once >> 52, once >> 40 & 4095, twice >> 52, twice >> 40 & 4095]
}

/// One of 1,024 bits.
#[inline(always)]
fn source_bit(mac: Mac) -> u64 {
    spread(mac) >> 54
}

/// 2^64 divided by the golden ratio: the upper bits of a product depend on all bits of a factor.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
fn spread([a, b, c, d, e, f]: Mac) -> u64 {
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]).wrapping_mul(SPREAD)
}
