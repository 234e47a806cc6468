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
    now_ns: u64,
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
        None => slow_path(&mut Work { frame, store, ingress, scratch }),
    }
}

/// The slow path: any frame, read to its end.
#[inline(always)]
pub fn slow_path(steps: &mut impl Steps) {
    if steps.read() != 0 {
        for _ in 0..MAX_CLAIMS {
            let came = steps.judge();
            if came & TELLS != 0 {
                steps.tell();
            }
            if came & MORE == 0 {
                break;
            }
        }
    }
    if steps.source() != 0 {
        steps.tell();
    }
    if steps.notice() != 0 {
        steps.tell();
    }
}

/// The steps of the slow path, in this order. What one leaves to the next is in the [`Scratch`], and
/// what it returns is a number: each may be a function of its own to the kernel's verifier, which then
/// looks at it once, and not once for each way that leads to it.
pub trait Steps {
    /// Reads the frame. Not 0 if it claims anything.
    fn read(&mut self) -> u32;
    /// Judges a claim, and turns to the next: [`TELLS`] and [`MORE`].
    fn judge(&mut self) -> u32;
    /// Looks at what there is beside the claims, and at whose MAC the source is. Not 0 if there is
    /// something to tell of that.
    fn source(&mut self) -> u32;
    /// Not 0 if there is something to tell of the frame as such.
    fn notice(&mut self) -> u32;
    /// Tells what the step before has found. Returns 1, since older kernels want a number.
    fn tell(&mut self) -> u32;
}

/// There is something to tell.
pub const TELLS: u32 = 1;
/// There is a further claim.
pub const MORE: u32 = 2;

/// What the steps work on.
pub struct Work<'a, 'port, F: ?Sized, S> {
    /// The frame.
    pub frame: &'a F,
    /// The maps.
    pub store: &'a mut S,
    /// Where it comes from.
    pub ingress: &'a mut Ingress<'port>,
    /// What is known of it so far.
    pub scratch: &'a mut Scratch,
}

impl<F: Frame + ?Sized, S: Store> Steps for Work<'_, '_, F, S> {
    #[inline(always)]
    fn read(&mut self) -> u32 {
        let Self { frame, store, ingress, scratch } = self;
        let Scratch { now_ns, parsed, claim, further, sender, .. } = scratch;
        let port = ingress.port;
        parse_into(*frame, port, parsed);
        *now_ns = store.now_ns();
        ingress.counters.frame(parsed.kind);
        sender.reset(parsed, port);
        // The bridge drops it before it learns anything of it: only whose MAC it has is looked at.
        if port.flags & PORT_FILTERS_VLANS != 0
            && !store.is_member(ingress.from, parsed.segment.vlan)
        {
            sender.dropped = 1;
            return 0;
        }
        if !parsed.claims {
            return 0;
        }
        *claim = parsed.claim;
        *further = parsed.further;
        if claim.flags & CLAIM_ODD != 0 {
            ingress.counters.odd += 1;
        }
        1
    }

    #[inline(always)]
    fn judge(&mut self) -> u32 {
        let Self { frame, store, ingress, scratch } = self;
        let Scratch { now_ns, claim: next, further, judged, sender, .. } = scratch;
        next.flags |= sender.group;
        claim(*store, ingress, next, judged, *now_ns);
        sender.take(next, judged);
        let tells = if judged.tells == 0 { 0 } else { TELLS };
        next_claim(*frame, further, next);
        if further.done == 0 { tells | MORE } else { tells }
    }

    #[inline(always)]
    fn source(&mut self) -> u32 {
        let Self { store, ingress, scratch, .. } = self;
        let Scratch { now_ns, parsed, judged, sender, .. } = scratch;
        sender.notice = 0;
        if sender.dropped == 0 {
            beside(ingress, parsed, sender);
        } else {
            ingress.counters.no_claim(NoClaim::Vlan);
            sender.drop_by(drop_no_claim(ingress.port, NoClaim::Vlan));
        }
        let tells = sender.suspect(*store, ingress, &mut judged.notification, *now_ns);
        ingress.counters.verdict(sender.verdict);
        tells
    }

    #[inline(always)]
    fn notice(&mut self) -> u32 {
        let Scratch { parsed, judged, sender, .. } = &mut *self.scratch;
        if sender.notice == 0 {
            return 0;
        }
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
            kind: sender.notice,
            strength: STRENGTH_NONE,
            once: Once::Port,
        };
        1
    }

    #[inline(always)]
    fn tell(&mut self) -> u32 {
        let Self { store, ingress, scratch, .. } = self;
        notify(*store, ingress, &scratch.judged.notification, scratch.now_ns);
        1
    }
}

/// What there is to say of a frame beside its claims.
#[inline(always)]
fn beside(ingress: &mut Ingress<'_>, parsed: &Parsed, sender: &mut Sender) {
    let port = ingress.port;
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
            sender.notice = EVENT_OPAQUE;
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
            sender.notice = EVENT_ROUTER;
            sender.drop_for(DropReason::Router);
        } else if sender.notice == 0 {
            sender.notice = EVENT_ROUTER_FLAG;
        }
    }
    if parsed.dhcp.message == DECLINE {
        sender.notice = EVENT_DECLINED;
    }
    if port.kind == PORT_ACCESS && parsed.tagged && port.flags & PORT_ALLOW_TAGGED == 0 {
        sender.drop_for(DropReason::Tagged);
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
    /// The `EVENT_*` to tell of the frame as such, once for a port; 0 without any.
    notice: u8,
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
