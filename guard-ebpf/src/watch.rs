//! Everything that is done with a frame: parse, judge, write, count, notify.
//!
//! The kernel's program and the tests on the host run this same code; they differ in the [`Store`].

use bytemuck::Zeroable;

use crate::{
    abi::{
        AddressKey, BridgeCounters, CLAIM_DROPPED, CLAIM_ODD, Challenger, ChallengerKey, DropKey,
        Drops, EVENT_DECLINED, EVENT_OPAQUE, EVENT_ROUTER, EVENT_ROUTER_FLAG, Event, Live,
        MacHolder, MacKey, OPEN_ROUTER, Owned, PORT_ACCESS, PORT_ALLOW_ROUTER, PORT_ALLOW_TAGGED,
        PORT_FILTERS_VLANS, Port, PortState, STRENGTH_NONE,
    },
    apply::{Judged, Outcome, carry_out, judge_claim, notify},
    claim::{Claim, Further, Meaning, Parsed, Router},
    counters::{DropReason, NoClaim},
    decide::{Holder, Report, Tables},
    dhcp::DECLINE,
    enforce::{DROPPED, PASSES, policy, settle},
    fast_path::fast_path,
    frame::{Frame, parse_into},
    ndp::{MAX_CLAIMS, next_claim},
    notification::{Notification, Once},
    sender::Sender,
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
    /// What was dropped, to write in.
    fn drops_mut(&mut self, key: &DropKey) -> Option<&mut Drops>;
    /// Inserts an entry in which nothing is counted, if there is room.
    fn insert_drops(&mut self, key: &DropKey);
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
    judged: [(Claim, Judged); MAX_CLAIMS],
    outcome: Outcome,
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

    /// Of a frame with one claim that was dropped, what was told of the claim, and the reasons, if nothing
    /// else came of it.
    #[inline(always)]
    pub(crate) fn dropped(&self) -> Option<(&Report, u32)> {
        let Self { judged: [(_, judged), ..], outcome, sender, .. } = self;
        let report = judged.only_tells()?;
        let alone = sender.claims == 1 && sender.notice == 0 && !sender.is_suspect();
        (outcome.fate == DROPPED && alone).then_some((report, sender.reasons))
    }

    /// Whether this is still the count of the agent's changes.
    #[inline(always)]
    pub(crate) fn judged_at(&self, changes: u64) -> bool {
        u64::from(self.sender.changes) == changes & u64::from(u32::MAX)
    }
}

/// Carries out everything that comes of a frame. Returns whether it is dropped.
#[inline(always)]
pub fn watch<F: Frame + ?Sized, S: Store>(
    frame: &F,
    store: &mut S,
    ingress: &mut Ingress<'_>,
    scratch: &mut Scratch,
) -> bool {
    match fast_path(frame, store, ingress.port, ingress.from, || store.now_ns()) {
        Some(kind) => {
            ingress.counters.frame(kind);
            false
        }
        None => slow_path(&mut Work { frame, store, ingress, scratch }),
    }
}

/// The slow path: any frame, read to its end. First all that may be a reason to drop it, then whether it
/// is dropped, and only then what it changes: a frame that is dropped shows nothing. Returns whether it is
/// dropped.
#[inline(always)]
pub fn slow_path(steps: &mut impl Steps) -> bool {
    let mut came = steps.read();
    for _ in 0..MAX_CLAIMS {
        if came & MORE == 0 {
            break;
        }
        came = steps.judge();
    }
    let fate = steps.settle();
    for _ in 0..MAX_CLAIMS {
        came = steps.carry_out();
        if came & TELLS != 0 {
            steps.tell();
        }
        if came & MORE == 0 {
            break;
        }
    }
    if steps.source() != 0 {
        steps.tell();
    }
    if steps.notice() != 0 {
        steps.tell();
    }
    fate == DROPPED
}

/// The steps of the slow path, in this order. What one leaves to the next is in the [`Scratch`], and
/// what it returns is a number: each may be a function of its own to the kernel's verifier, which then
/// looks at it once, and not once for each way that leads to it.
pub trait Steps {
    /// Reads the frame: [`MORE`] if it claims anything.
    fn read(&mut self) -> u32;
    /// Judges a claim, and turns to the next: [`MORE`].
    fn judge(&mut self) -> u32;
    /// Looks at what there is beside the claims, and at whose MAC the source is, and settles what is
    /// done with the frame.
    fn settle(&mut self) -> u32;
    /// Carries out what was decided about a claim: [`TELLS`] and [`MORE`].
    fn carry_out(&mut self) -> u32;
    /// Notes where the source is. Not 0 if there is something to tell of it.
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
        let Scratch { now_ns, parsed, claim, further, sender, .. } = &mut **scratch;
        let port = ingress.port;
        parse_into(*frame, port, parsed);
        *now_ns = store.now_ns();
        // Before the first look at what the agent has written.
        sender.changes = store.changes();
        ingress.counters.frame(parsed.kind);
        sender.reset(parsed, port);
        // The bridge drops it before it learns anything of it: only whose MAC it has is looked at.
        if port.flags & PORT_FILTERS_VLANS != 0
            && !store.is_member(ingress.from, parsed.segment.vlan)
        {
            sender.unlearned = 1;
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
        MORE
    }

    #[inline(always)]
    fn judge(&mut self) -> u32 {
        let Self { frame, store, ingress, scratch } = self;
        let Scratch { now_ns, claim: next, further, judged, sender, .. } = &mut **scratch;
        let Some((claim, judged)) = judged.get_mut(sender.claims as usize) else { return 0 };
        next.flags |= sender.group;
        *claim = *next;
        judge_claim(*store, ingress, claim, judged, *now_ns);
        sender.take(claim, judged);
        next_claim(*frame, further, next);
        if further.done == 0 { MORE } else { 0 }
    }

    #[inline(always)]
    fn settle(&mut self) -> u32 {
        let Self { frame, store, ingress, scratch } = self;
        let Scratch { now_ns, parsed, outcome, sender, .. } = &mut **scratch;
        if sender.unlearned == 0 {
            beside(*store, ingress, parsed, sender);
        } else {
            ingress.counters.no_claim(NoClaim::Vlan);
            sender.reasons |= DropReason::Vlan.bit();
        }
        sender.identify(*store, ingress);
        outcome.fate = settle(*frame, *store, ingress, sender.reasons, *now_ns);
        outcome.passed = if outcome.fate == PASSES { sender.changes } else { 0 };
        outcome.fate
    }

    #[inline(always)]
    fn carry_out(&mut self) -> u32 {
        let Self { store, ingress, scratch, .. } = self;
        let Scratch { now_ns, judged, outcome, sender, .. } = &mut **scratch;
        if sender.carried >= sender.claims {
            return 0;
        }
        let Some((claim, judged)) = judged.get(sender.carried as usize) else { return 0 };
        sender.carried += 1;
        carry_out(*store, ingress, claim, judged, outcome, *now_ns);
        MORE | if outcome.tells == 0 { 0 } else { TELLS }
    }

    #[inline(always)]
    fn source(&mut self) -> u32 {
        let Self { store, ingress, scratch, .. } = self;
        let Scratch { now_ns, outcome, sender, .. } = &mut **scratch;
        sender.conclude(*store, ingress, outcome, *now_ns)
    }

    #[inline(always)]
    fn notice(&mut self) -> u32 {
        let Scratch { parsed, outcome, sender, .. } = &mut *self.scratch;
        if sender.notice == 0 {
            return 0;
        }
        let key = AddressKey::none(parsed.segment);
        let key = match parsed.dhcp.address {
            0 => key,
            address => AddressKey::v4(parsed.segment, address.to_ne_bytes()),
        };
        outcome.notification = Notification {
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
        let Scratch { now_ns, outcome, .. } = &mut **scratch;
        if outcome.fate == DROPPED {
            outcome.notification.flags |= CLAIM_DROPPED;
        }
        notify(*store, ingress, &outcome.notification, *now_ns);
        1
    }
}

/// Takes in what there is to say of a frame beside its claims.
#[inline(always)]
fn beside<S: Store>(store: &S, ingress: &mut Ingress<'_>, parsed: &Parsed, sender: &mut Sender) {
    let port = ingress.port;
    match parsed.beside(port) {
        Meaning::Nothing => {}
        Meaning::NoClaim(reason) => {
            ingress.counters.no_claim(reason);
            sender.reasons |= DropReason::from(reason).bit();
        }
        Meaning::Malformed(reason) => {
            ingress.counters.malformed(reason);
            sender.reasons |= DropReason::Malformed.bit();
        }
        Meaning::Opaque(reason) => {
            ingress.counters.opaque(reason);
            sender.notice = EVENT_OPAQUE;
            sender.reasons |= DropReason::Opaque.bit();
        }
    }
    // A router is what an access port is not, unless it is allowed to be one (claims.md N09).
    if port.kind == PORT_ACCESS
        && port.flags & PORT_ALLOW_ROUTER == 0
        && !matches!(parsed.router, Router::No)
        && policy(store, port, ingress.from).is_none_or(|p| p.closed & OPEN_ROUTER == 0)
    {
        ingress.counters.routers += 1;
        if matches!(parsed.router, Router::Message) {
            sender.notice = EVENT_ROUTER;
            sender.reasons |= DropReason::Router.bit();
        } else if sender.notice == 0 {
            sender.notice = EVENT_ROUTER_FLAG;
        }
    }
    if parsed.dhcp.message == DECLINE {
        sender.notice = EVENT_DECLINED;
    }
    if parsed.tagged && port.flags & PORT_ALLOW_TAGGED == 0 {
        sender.reasons |= DropReason::Tagged.bit();
    }
    if parsed.foreign {
        sender.reasons |= DropReason::Ethertype.bit();
    }
    if parsed.packet.server != 0 {
        sender.reasons |= DropReason::DhcpServer.bit();
    }
}
