//! Carries out a decision about a claim: writes the maps, sends the event.

use bytemuck::Zeroable;

use crate::{
    abi::{
        AddressKey, BridgeCounters, Challenger, ChallengerKey, EVENT_CLONE, EVENT_FLOOD,
        EVENT_LIVE, EVENT_OWNER, Event, Live, MAX_MACS_TOLD,
    },
    claim::Claim,
    decide::{Action, Holder, Report, against_live, is_due, is_stale, judge},
    mac::Mac,
    watch::{Ingress, Store},
};

/// What an event says.
#[derive(Zeroable)]
pub(crate) struct Notification {
    pub(crate) key: AddressKey,
    pub(crate) mac: Mac,
    pub(crate) eth_src: Mac,
    pub(crate) holder: Holder,
    pub(crate) flags: u16,
    pub(crate) kind: u8,
    pub(crate) strength: u8,
    pub(crate) once: Once,
}

/// For whom it is reported once, and again every second while it goes on.
#[derive(Clone, Copy, PartialEq, Eq, Zeroable)]
#[repr(u8)]
pub(crate) enum Once {
    /// It is a change, reported whenever it happens.
    Always,
    /// For the MAC.
    Mac,
    /// For the port.
    Port,
}

/// Judges a claim and carries out the decision. A BPF subprogram (the verifier bounds the stack per
/// function).
#[inline(never)]
pub(crate) fn claim<S: Store>(
    store: &mut S,
    ingress: &mut Ingress<'_>,
    claim: &Claim,
    judged: &mut Judged,
    now_ns: u64,
) {
    let decision = judge(store, ingress.port, ingress.from, claim, now_ns);
    judged.verdict = decision.verdict.code();
    judged.counts = 0;
    judged.lives = 0;
    judged.tells = 0;
    if decision.stranger && claim.limited {
        spend(store, ingress.port.port_slot, now_ns);
    }
    let mut report = Report { kind: NOTHING, flags: claim.flags, holder: Holder::NONE };
    let mut once = Once::Always;
    match decision.action {
        Action::Nothing => judged.counts = 1,
        Action::Ignore => {}
        Action::NoClaim(reason) => ingress.counters.no_claim(reason),
        Action::RefreshOwner => {
            judged.counts = 1;
            judged.lives = 1;
            if let Some(owned) = store.owned_mut(&claim.key) {
                if owned.seen_ns == 0 {
                    report.kind = EVENT_OWNER;
                    report.holder = Holder::declared(owned);
                }
                owned.seen_ns = now_ns;
            }
        }
        Action::RefreshLive => {
            judged.counts = 1;
            judged.lives = 1;
            if let Some(live) = store.live_mut(&claim.key) {
                if live.seen_ns == 0 {
                    report.kind = EVENT_LIVE;
                }
                live.seen_ns = now_ns;
                if claim.strength > live.strength {
                    live.strength = claim.strength;
                }
            }
        }
        Action::InsertLive => {
            judged.counts = 1;
            judged.lives = 1;
            report = insert(store, ingress, claim, decision.stranger, now_ns);
            if report.kind != EVENT_LIVE {
                once = Once::Mac;
            }
        }
        Action::Report(challenge) => {
            judged.counts = 1;
            report = challenge;
            once = Once::Mac;
        }
        Action::OverQuota => {
            ingress.counters.over_quota += 1;
            if refuse(store, ingress.port.port_slot, now_ns) {
                report.kind = EVENT_FLOOD;
            }
        }
    }
    if report.kind != NOTHING {
        let Report { kind, flags, holder } = report;
        let Claim { key, mac, eth_src, strength, .. } = *claim;
        let key = if kind == EVENT_FLOOD { AddressKey::none(key.segment()) } else { key };
        judged.notification =
            Notification { key, mac, eth_src, holder, flags, kind, strength, once };
        judged.tells = 1;
    }
}

/// No event.
const NOTHING: u8 = 0;

/// What comes of a claim for its frame: left where the caller says, and numbers, because the verifier
/// follows each value that is returned along each path that it may have come.
#[derive(Zeroable)]
pub(crate) struct Judged {
    /// The verdict's code.
    pub(crate) verdict: u32,
    /// 1 if the claim counts, whether it is its holder's or not.
    pub(crate) counts: u32,
    /// 1 if the claimant is live with the address.
    pub(crate) lives: u32,
    /// 1 if there is something to report: then it has been written.
    pub(crate) tells: u32,
    pub(crate) notification: Notification,
}

/// The first claimant on any CPU gets the address; one that came second is judged against it.
#[inline(always)]
fn insert<S: Store>(
    store: &mut S,
    ingress: &mut Ingress<'_>,
    claim: &Claim,
    stranger: bool,
    now_ns: u64,
) -> Report {
    let Claim { key, mac, strength, .. } = *claim;
    let ifindex = ingress.from;
    let live = Live { first_ns: now_ns, seen_ns: now_ns, ifindex, mac, strength, reserved: [0; 5] };
    if store.insert_live(&key, &live) {
        if stranger && let Some(state) = store.port_state_mut(ingress.port.port_slot) {
            state.addresses += 1;
        }
        return Report { kind: EVENT_LIVE, flags: claim.flags, holder: Holder::NONE };
    }
    let again = against_live(store, ingress.port, ifindex, claim, true, now_ns);
    match again.action {
        Action::Report(report) => return report,
        // Still nobody: there is no room.
        Action::InsertLive => ingress.counters.live_full += 1,
        _ => {}
    }
    Report { kind: NOTHING, flags: 0, holder: Holder::NONE }
}

/// One more frame about an address that nobody owns, in this second.
#[inline(always)]
fn spend<S: Store>(store: &mut S, slot: u32, now_ns: u64) {
    let Some(state) = store.port_state_mut(slot) else { return };
    if is_stale(state.window_ns, now_ns) {
        state.window_ns = now_ns;
        state.frames = 0;
    }
    state.frames += 1;
}

/// A claim over quota. Whether to tell: once, and again every second while it goes on.
#[inline(always)]
fn refuse<S: Store>(store: &mut S, slot: u32, now_ns: u64) -> bool {
    let Some(state) = store.port_state_mut(slot) else { return false };
    state.refused += 1;
    let due = is_stale(state.told_ns, now_ns);
    if due {
        state.told_ns = now_ns;
    }
    due
}

/// Sends an event about something: the first time, and while it goes on. A BPF subprogram (the
/// verifier bounds the stack per function).
#[inline(never)]
pub(crate) fn notify<S: Store>(
    store: &mut S,
    counters: &mut BridgeCounters,
    notification: &Notification,
    from: u32,
    now_ns: u64,
) {
    let of_port = notification.once == Once::Port || is_crowd(store, notification, from) != 0;
    let mac = if of_port { [0; 6] } else { notification.mac };
    let key = ChallengerKey::new(&notification.key, from, mac, notification.kind);
    let once = notification.once != Once::Always;
    let known = if once { store.challenger_mut(&key) } else { None };
    let new = known.is_none();
    let mut due = true;
    if let Some(known) = known {
        known.frames += 1;
        known.seen_ns = now_ns;
        known.flags = notification.flags;
        known.strength = notification.strength;
        due = is_due(known, now_ns);
    }
    let heard = due && emit(store, notification, from);
    if due && !heard {
        counters.events_lost += 1;
    }
    if !once {
    } else if new {
        let told_ns = if heard { now_ns } else { 0 };
        let challenger =
            Challenger::new(now_ns, told_ns, notification.flags, notification.strength);
        // If there is no room even in an LRU, the next frame is reported as if it were the first.
        store.insert_challenger(&key, &challenger);
    } else if heard && let Some(known) = store.challenger_mut(&key) {
        known.told_ns = now_ns;
    }
}

/// Not 0 if a port has spoken for the address in the name of as many MACs as are told apart: those
/// that follow are reported as one, so that none can flood the events. One MAC on two ports is
/// reported for each, since there are no more of them than hosts.
#[inline(never)]
fn is_crowd<S: Store>(store: &mut S, notification: &Notification, from: u32) -> u32 {
    if notification.once != Once::Mac || notification.kind == EVENT_CLONE {
        return 0;
    }
    let mut key = ChallengerKey::new(&notification.key, from, notification.mac, notification.kind);
    if store.challenger_mut(&key).is_some() {
        return 0;
    }
    key = ChallengerKey::new(&notification.key, from, [0; 6], notification.kind);
    match store.challenger_mut(&key) {
        Some(port) if port.macs >= MAX_MACS_TOLD => return 1,
        Some(port) => port.macs += 1,
        None => store.insert_challenger(&key, &Challenger::of_port()),
    }
    0
}

/// Whether the ring had room.
#[inline(always)]
fn emit<S: Store>(store: &mut S, notification: &Notification, from: u32) -> bool {
    let time_ns = store.event_ns();
    store.emit(|| Event {
        time_ns,
        key: notification.key,
        ifindex: from,
        holder_ifindex: notification.holder.ifindex,
        mac: notification.mac,
        eth_src: notification.eth_src,
        holder_mac: notification.holder.mac,
        kind: notification.kind,
        strength: notification.strength,
        flags: notification.flags,
        reserved: [0; 2],
    })
}
