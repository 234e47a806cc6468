//! Everything that is done with a frame: parse, judge, write, count, notify.
//!
//! The kernel's program and the tests on the host run this same code; they differ in the [`Store`].

use bytemuck::Zeroable;

use crate::{
    abi::{
        AddressKey, BridgeCounters, CLAIM_GROUP, CLAIM_ODD, CLAIM_RESERVED, Challenger,
        ChallengerKey, EVENT_BRIDGE_MAC, EVENT_CLONE, EVENT_DECLINED, EVENT_OPAQUE, EVENT_ROUTER,
        EVENT_ROUTER_FLAG, Event, Live, MAC_BEYOND, MacHolder, MacKey, NO_VLAN, Owned, PORT_ACCESS,
        PORT_ALLOW_ROUTER, PORT_ALLOW_TAGGED, PORT_ALLOW_VIRTUAL, PORT_FILTERS_VLANS, PORT_UPLINK,
        Port, PortState, STRENGTH_NONE,
    },
    address::Segment,
    apply::{Judged, Notification, Once, claim, count_source, notify},
    claim::{Claim, Further, Meaning, Parsed, Router},
    counters::{DropReason, NoClaim},
    decide::{Holder, PASS, Tables, Verdict, drop_no_claim, drop_on_access},
    dhcp::DECLINE,
    fast_path::fast_path,
    frame::{Frame, parse_into},
    mac,
    ndp::{MAX_CLAIMS, next_claim},
};

/// Tables that can be written.
pub trait Store: Tables {
    /// `CLOCK_MONOTONIC`, coarse.
    fn now_ns(&self) -> u64;
    /// `CLOCK_MONOTONIC`, for events.
    fn event_ns(&self) -> u64;
    /// The entry of an owner, to write in.
    fn owned_mut(&mut self, key: &AddressKey) -> Option<&mut Owned>;
    /// The entry of a live claimant, to write in.
    fn live_mut(&mut self, key: &AddressKey) -> Option<&mut Live>;
    /// Inserts a live claimant unless there is one. False if there is, or if there is no room.
    fn insert_live(&mut self, key: &AddressKey, live: &Live) -> bool;
    /// Inserts the port of a MAC unless there is one. False as above.
    fn insert_mac(&mut self, key: &MacKey, holder: &MacHolder) -> bool;
    /// What a port has used of its quota, to write in.
    fn port_state_mut(&mut self, slot: u32) -> Option<&mut PortState>;
    /// The entry of a challenger, to write in.
    fn challenger_mut(&mut self, key: &ChallengerKey) -> Option<&mut Challenger>;
    /// Inserts a challenger, if there is room.
    fn insert_challenger(&mut self, key: &ChallengerKey, challenger: &Challenger);
    /// Sends an event. False if there is no room.
    fn emit(&mut self, event: impl FnOnce() -> Event) -> bool;
}

/// Where a frame comes from: the port, what the agent says of it, and the bridge's counters.
pub struct Ingress<'a> {
    /// What the agent says of the port.
    pub port: &'a Port,
    /// The port's ifindex.
    pub from: u32,
    /// The counters of its bridge.
    pub counters: &'a mut BridgeCounters,
}

/// Where a frame is worked on. The kernel's stack is too small for it, and the verifier need not
/// follow what is written here. What it holds of an earlier frame means nothing.
#[derive(Zeroable)]
pub struct Scratch {
    parsed: Parsed,
    claim: Claim,
    further: Further,
    judged: Judged,
    sender: Sender,
}

impl Scratch {
    /// Reads a frame, and does nothing about it: what it is, its first claim, and where the further
    /// ones are.
    #[inline(always)]
    pub(crate) fn read<F: Frame + ?Sized>(
        &mut self,
        frame: &F,
        port: &Port,
    ) -> (&Parsed, &mut Claim, &mut Further) {
        let Self { parsed, claim, further, .. } = self;
        parse_into(frame, port, parsed);
        (*claim, *further) = (parsed.claim, parsed.further);
        (parsed, claim, further)
    }
}

/// Carries out everything that comes of a frame.
#[inline(always)]
pub fn watch<F: Frame + ?Sized, S: Store>(
    frame: &F,
    store: &mut S,
    ingress: &mut Ingress<'_>,
    scratch: &mut Scratch,
) {
    match fast_path(frame, store, ingress.port, ingress.from, || store.now_ns()) {
        Some(kind) => ingress.counters.frame(kind),
        None => slow_path(frame, store, ingress, scratch),
    }
}

/// The slow path: any frame, read to its end.
#[inline(always)]
pub fn slow_path<F: Frame + ?Sized, S: Store>(
    frame: &F,
    store: &mut S,
    ingress: &mut Ingress<'_>,
    scratch: &mut Scratch,
) {
    let Scratch { parsed, claim, further, judged, sender } = scratch;
    parse_into(frame, ingress.port, parsed);
    let now_ns = store.now_ns();
    let port = ingress.port;
    ingress.counters.frame(parsed.kind);
    sender.reset(parsed, port);
    // The bridge drops it before it learns anything of it: only whose MAC it has is looked at.
    if port.flags & PORT_FILTERS_VLANS != 0 && !store.is_member(ingress.from, parsed.segment.vlan) {
        ingress.counters.no_claim(NoClaim::Vlan);
        sender.drop_by(drop_no_claim(port, NoClaim::Vlan));
        sender.dropped = 1;
        if sender.suspect(store, ingress, &mut judged.notification, now_ns) != 0 {
            notify(store, ingress, &judged.notification, now_ns);
        }
        ingress.counters.verdict(sender.verdict);
        return;
    }
    if parsed.claims {
        *claim = parsed.claim;
        *further = parsed.further;
        claims(frame, store, ingress, claim, further, judged, sender, now_ns);
    }
    let mut notice = Notice::No;
    match parsed.beside(port) {
        Meaning::Nothing => {}
        Meaning::NoClaim(reason) => {
            ingress.counters.no_claim(reason);
            sender.drop_by(drop_no_claim(port, reason));
        }
        Meaning::Malformed(reason) => {
            ingress.counters.malformed(reason);
            sender.drop_by(drop_on_access(port, DropReason::Malformed));
        }
        Meaning::Opaque(reason) => {
            ingress.counters.opaque(reason);
            notice = Notice::Opaque;
            sender.drop_by(drop_on_access(port, DropReason::Opaque));
        }
    }
    // A router is what an access port is not, unless it is allowed to be one (claims.md N09).
    if port.kind == PORT_ACCESS
        && port.flags & PORT_ALLOW_ROUTER == 0
        && !matches!(parsed.router, Router::No)
    {
        ingress.counters.routers += 1;
        if matches!(parsed.router, Router::Message) {
            notice = Notice::Router;
            sender.drop_for(DropReason::Router);
        } else if matches!(notice, Notice::No) {
            notice = Notice::RouterFlag;
        }
    }
    if parsed.dhcp.message == DECLINE {
        notice = Notice::Declined;
    }
    if port.kind == PORT_ACCESS && parsed.tagged && port.flags & PORT_ALLOW_TAGGED == 0 {
        sender.drop_for(DropReason::Tagged);
    }
    if sender.suspect(store, ingress, &mut judged.notification, now_ns) != 0 {
        notify(store, ingress, &judged.notification, now_ns);
    }
    ingress.counters.verdict(sender.verdict);
    let kind = match notice {
        Notice::No => return,
        Notice::Opaque => EVENT_OPAQUE,
        Notice::Router => EVENT_ROUTER,
        Notice::RouterFlag => EVENT_ROUTER_FLAG,
        Notice::Declined => EVENT_DECLINED,
    };
    let notification = &mut judged.notification;
    let key = AddressKey::none(parsed.segment);
    let key = match parsed.dhcp.address {
        0 => key,
        address => AddressKey::v4(parsed.segment, address.to_ne_bytes()),
    };
    *notification = Notification {
        key,
        of: key,
        mac: parsed.eth_src,
        eth_src: parsed.eth_src,
        holder: Holder::NONE,
        flags: 0,
        kind,
        strength: STRENGTH_NONE,
        once: Once::Port,
    };
    notify(store, ingress, notification, now_ns);
}

/// What is reported about a frame as such, once for a port.
enum Notice {
    No,
    Opaque,
    Router,
    RouterFlag,
    Declined,
}

/// Judges the claims of a frame one after the other.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "each is a place of its own, for the verifier")]
fn claims<F: Frame + ?Sized, S: Store>(
    frame: &F,
    store: &mut S,
    ingress: &mut Ingress<'_>,
    next: &mut Claim,
    further: &mut Further,
    judged: &mut Judged,
    sender: &mut Sender,
    now_ns: u64,
) {
    if next.flags & CLAIM_ODD != 0 {
        ingress.counters.odd += 1;
    }
    for _ in 0..MAX_CLAIMS {
        next.flags |= sender.group;
        claim(store, ingress, next, judged, now_ns);
        sender.take(next, judged);
        if judged.tells != 0 {
            notify(store, ingress, &judged.notification, now_ns);
        }
        next_claim(frame, further, next);
        if further.done != 0 {
            break;
        }
    }
}

/// The Ethernet source of a frame.
#[derive(Zeroable)]
struct Sender {
    /// The first address that it claims, unspecified if it claims none that counts.
    key: AddressKey,
    /// The MAC.
    mac: MacKey,
    /// Not 0 if it is live with an address in its own name.
    lives: u32,
    /// [`CLAIM_GROUP`] if the frame is to a group, else 0.
    group: u16,
    /// The code of the frame's verdict: of the first reason to drop it.
    verdict: u32,
    /// Not 0 if the bridge drops the frame, so that its source is not learned.
    dropped: u32,
}

impl Sender {
    #[inline(always)]
    fn reset(&mut self, parsed: &Parsed, port: &Port) {
        let Parsed { segment, eth_src, .. } = *parsed;
        // Without an address it is about the MAC alone. Where that is on one port in all VLANs, an
        // event for each of them would be a flood.
        let none = port.flags & PORT_FILTERS_VLANS == 0 || segment.vlan == NO_VLAN;
        let vlan = if none { 0 } else { segment.vlan };
        self.key = AddressKey::none(Segment { vlan, inner_vlan: 0, ..segment });
        self.mac = MacKey::new(segment.bridge, vlan, eth_src);
        self.lives = 0;
        self.group = if parsed.group { CLAIM_GROUP } else { 0 };
        self.verdict = PASS;
        self.dropped = 0;
    }

    /// Takes in what came of one of its claims.
    #[inline(never)]
    fn take(&mut self, claim: &Claim, judged: &Judged) {
        if self.verdict == PASS {
            self.verdict = judged.verdict;
        }
        if judged.counts != 0 && self.key.address == [0; 16] {
            self.key = claim.key;
        }
        if mac::same(claim.mac, claim.eth_src) {
            self.lives |= judged.lives;
        }
    }

    #[inline(always)]
    fn drop_for(&mut self, reason: DropReason) {
        self.drop_by(Verdict::Drop(reason));
    }

    /// The first reason to drop a frame is the one that counts.
    #[inline(always)]
    fn drop_by(&mut self, verdict: Verdict) {
        if self.verdict == PASS {
            self.verdict = verdict.code();
        }
    }

    /// Whether the MAC is another port's (claims.md L01) or the bridge's (claims.md L02): then not 0, and
    /// the notification is written. A BPF subprogram.
    #[inline(never)]
    fn suspect<S: Store>(
        &mut self,
        store: &mut S,
        ingress: &mut Ingress<'_>,
        notification: &mut Notification,
        now_ns: u64,
    ) -> u32 {
        let Ingress { port, from, .. } = *ingress;
        let eth_src = self.mac.mac;
        if !mac::is_host(eth_src) {
            return 0; // Malformed, and counted as such (claims.md L03).
        }
        if port.quota_macs != 0 && self.dropped == 0 {
            count_source(store, ingress, notification, &self.mac, now_ns);
        }
        let mut kind = EVENT_CLONE;
        let (mut ifindex, flags) =
            store.mac_holder(&self.mac).map_or((0, 0), |holder| (holder.ifindex, holder.flags));
        if mac::same(eth_src, port.bridge_mac) {
            kind = EVENT_BRIDGE_MAC;
            ifindex = port.bridge;
        } else if ifindex == 0 {
            // A virtual router's MAC goes from port to port by right, among those that may
            // (claims.md A16).
            let moves = port.flags & PORT_ALLOW_VIRTUAL != 0 && mac::is_virtual(eth_src);
            let lives = self.lives != 0 && !moves;
            let flags = if port.kind == PORT_UPLINK { MAC_BEYOND } else { 0 };
            let holder = MacHolder { ifindex: from, flags };
            if lives && !store.insert_mac(&self.mac, &holder) {
                ingress.counters.macs_full += 1;
            }
            return 0;
        } else if ifindex == from || (port.kind == PORT_UPLINK && flags & MAC_BEYOND != 0) {
            return 0;
        }
        ingress.counters.clones += 1;
        // Whatever addresses its frames name, it is one challenger.
        notification.be_of_mac(&self.mac);
        notification.key = self.key;
        notification.holder = Holder { ifindex, mac: eth_src };
        notification.flags = if kind == EVENT_CLONE { 0 } else { CLAIM_RESERVED } | self.group;
        notification.kind = kind;
        let reason = if kind == EVENT_CLONE { DropReason::Clone } else { DropReason::BridgeMac };
        if port.kind != PORT_UPLINK {
            self.drop_for(reason);
        }
        1
    }
}
