//! Carries out a decision about a claim: writes the maps, sends the event.

use bytemuck::Zeroable;

use crate::{
    abi::{
        AddressKey, CHALLENGERS_PER_EVENT, CLAIM_GROUP, CLAIM_RESERVED, Challenger, ChallengerKey,
        EVENT_ALLOWED, EVENT_CLONE, EVENT_FLOOD, EVENT_LIVE, EVENT_OWNER, EVENT_PROBE, Event, Live,
        MAX_MACS_TOLD, MAX_RESERVED_TOLD, PORT_UPLINK, Port, STRENGTH_TENTATIVE,
    },
    claim::Claim,
    decide::{Action, Holder, Report, against_live, is_due, is_stale, judge},
    enforce::{DROPPED, PASSES},
    notification::{NOTHING, Notification, Once},
    watch::{Ingress, Store},
};

/// Judges a claim.
#[inline(always)]
pub(crate) fn judge_claim<S: Store>(
    store: &mut S,
    ingress: &mut Ingress<'_>,
    claim: &Claim,
    judged: &mut Judged,
    now_ns: u64,
) {
    let decision = judge(store, ingress.port, ingress.from, claim, now_ns);
    judged.reasons = decision.reasons;
    judged.stranger = u32::from(decision.stranger);
    judged.counts = 1;
    judged.lives = 0;
    judged.does = DO_NOTHING;
    judged.report = decision.report;
    match decision.action {
        Action::Nothing => {}
        Action::Ignore => judged.counts = 0,
        Action::NoClaim(reason) => {
            judged.counts = 0;
            ingress.counters.no_claim(reason);
        }
        Action::RefreshOwner => {
            judged.lives = 1;
            judged.does = DO_REFRESH_OWNER;
        }
        Action::RefreshLive => {
            judged.lives = 1;
            judged.does = DO_REFRESH_LIVE;
        }
        Action::InsertLive => {
            judged.lives = u32::from(claim.strength != STRENGTH_TENTATIVE);
            judged.does = DO_INSERT_LIVE;
        }
        Action::Report => judged.does = DO_REPORT,
        Action::OverQuota => {
            judged.counts = 0;
            judged.does = DO_REFUSE;
            ingress.counters.over_quota += 1;
        }
    }
}

/// Carries out what was decided about a claim: writes what it shows, unless its frame is dropped, and
/// finds what is to be told.
#[inline(always)]
pub(crate) fn carry_out<S: Store>(
    store: &mut S,
    ingress: &mut Ingress<'_>,
    claim: &Claim,
    judged: &Judged,
    outcome: &mut Outcome,
    now_ns: u64,
) {
    let writes = outcome.fate != DROPPED;
    outcome.tells = 0;
    if judged.stranger != 0 && claim.limited {
        spend(store, ingress.port.port_slot, now_ns);
    }
    if judged.does == DO_NOTHING {
        return;
    }
    let (fate, passed) = (outcome.fate, outcome.passed);
    // In place, and before the ways part: the verifier is to see all of it written.
    let told = &mut outcome.notification;
    told.be_of_claim(claim);
    match judged.does {
        DO_REFRESH_OWNER if writes => {
            if let Some(owned) = store.owned_mut(&claim.key) {
                if owned.seen_ns == 0 {
                    told.kind = EVENT_OWNER;
                    told.holder = Holder::declared(owned);
                }
                owned.seen_ns = now_ns;
            }
        }
        DO_REFRESH_LIVE if writes => {
            if let Some(live) = store.live_mut(&claim.key) {
                if live.seen_ns == 0 {
                    told.kind = EVENT_LIVE;
                }
                live.seen_ns = now_ns;
                live.passed = passed;
                if claim.strength > live.strength {
                    live.strength = claim.strength;
                }
            }
        }
        DO_INSERT_LIVE if writes => {
            let live = Live::new(now_ns, ingress.from, claim.mac, claim.strength, passed);
            insert(store, ingress, claim, &live, judged.stranger != 0, told);
        }
        DO_REPORT => {
            told.be(&judged.report);
            // So often it may: see `is_untimely`.
            if judged.report.kind == EVENT_PROBE
                && fate == PASSES
                && let Some(state) = store.port_state_mut(ingress.port.port_slot)
            {
                state.probe_ns = now_ns;
            }
        }
        DO_REFUSE if refuse(store, ingress.port.port_slot, now_ns) => {
            told.kind = EVENT_FLOOD;
            told.key = AddressKey::none(claim.key.segment());
            told.of = told.key;
        }
        _ => {}
    }
    outcome.tells = u32::from(outcome.notification.kind != NOTHING);
}

/// What is to be done about a claim, as [`Action`] has it: numbers, because the verifier follows each
/// value that is returned along each path that it may have come.
const DO_NOTHING: u32 = 0;
const DO_REFRESH_OWNER: u32 = 1;
const DO_REFRESH_LIVE: u32 = 2;
const DO_INSERT_LIVE: u32 = 3;
const DO_REPORT: u32 = 4;
const DO_REFUSE: u32 = 5;

/// A claim that was judged. All claims of a frame are, before the first is carried out.
#[derive(Zeroable)]
pub(crate) struct Judged {
    /// A bit for each reason to drop its frame.
    pub(crate) reasons: u32,
    /// One of the `DO_*`.
    does: u32,
    /// What to tell, with [`DO_REPORT`].
    report: Report,
    /// 1 if it is about an address that nobody owns.
    stranger: u32,
    /// 1 if the claim counts, whether it is its holder's or not.
    pub(crate) counts: u32,
    /// 1 if the claimant is live with the address.
    pub(crate) lives: u32,
}

impl Judged {
    /// What is to be told of it, if that is all that comes of it.
    #[inline(always)]
    pub(crate) fn only_tells(&self) -> Option<&Report> {
        (self.does == DO_REPORT && self.stranger == 0).then_some(&self.report)
    }
}

/// What comes of a frame, and of one of its claims after the other.
#[derive(Zeroable)]
pub(crate) struct Outcome {
    /// What is done with it: a number of [`crate::enforce`].
    pub(crate) fate: u32,
    /// The count of the agent's changes, if it passes all that enforcement asks for; else 0.
    pub(crate) passed: u32,
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
    live: &Live,
    stranger: bool,
    told: &mut Notification,
) {
    if claim.strength == STRENGTH_TENTATIVE {
        told.kind = EVENT_PROBE;
        told.once = Once::Mac;
        return;
    }
    if store.insert_live(&claim.key, live) {
        if stranger && let Some(state) = store.port_state_mut(ingress.port.port_slot) {
            state.addresses += 1;
        }
        told.kind = EVENT_LIVE;
        return;
    }
    let again = against_live(store, ingress.port, ingress.from, claim, true, live.first_ns);
    match again.action {
        Action::Report => told.be(&again.report),
        // Still nobody: there is no room.
        Action::InsertLive => ingress.counters.live_full += 1,
        _ => {}
    }
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

/// Sends an event about something: the first time, and while it goes on. All of that comes out of the
/// port's own budget, but for what is the gateway's or the host's.
#[inline(always)]
pub(crate) fn notify<S: Store>(
    store: &mut S,
    ingress: &mut Ingress<'_>,
    notification: &Notification,
    now_ns: u64,
) {
    if notification.once == Once::Always {
        if !emit(store, notification, &notification.key, notification.kind, ingress.from) {
            ingress.counters.events_lost += 1;
        }
        return;
    }
    let of_mac = u32::from(notification.once == Once::Mac);
    if again(store, ingress, notification, of_mac, now_ns) != 0 {
        return;
    }
    // Older kernels bound the stack over all functions that wait for one another, so this one calls
    // what `first` finds is to be done.
    match first(store, ingress, notification, now_ns) {
        IN_CROWD => {
            again(store, ingress, notification, 0, now_ns);
        }
        OVER_BUDGET => flood(store, ingress, notification, now_ns),
        _ => {}
    }
}

/// What [`first`] has done.
const REPORTED: u32 = 0;
/// Nothing: the port has an entry for all of its MACs.
const IN_CROWD: u32 = 1;
/// It has counted what is a flood.
const OVER_BUDGET: u32 = 2;

/// Counts a challenger that is known: the MAC, or with 0 the port. Not 0 if it is. A BPF subprogram.
#[inline(never)]
fn again<S: Store>(
    store: &mut S,
    ingress: &mut Ingress<'_>,
    notification: &Notification,
    of_mac: u32,
    now_ns: u64,
) -> u32 {
    let Notification { of, mac, kind, .. } = notification;
    let mac = if of_mac == 0 { [0; 6] } else { *mac };
    let key = ChallengerKey::new(of, ingress.from, mac, *kind);
    let Some(known) = store.challenger_mut(&key) else { return 0 };
    known.frames += 1;
    known.seen_ns = now_ns;
    // From an uplink, what is sent to a group may come back from a loop; what is sent to a station alone
    // does not, and is told though the other was just now (claims.md L01b).
    let alone =
        ingress.port.kind == PORT_UPLINK && known.flags & !notification.flags & CLAIM_GROUP != 0;
    known.flags = notification.flags;
    known.strength = notification.strength;
    let due = alone || is_due(known, now_ns);
    // Until it is reported, the map has it.
    if due && (is_reserved(notification) || spend_event(store, ingress.port, now_ns)) {
        if !emit(store, notification, &notification.key, notification.kind, ingress.from) {
            ingress.counters.events_lost += 1;
        } else if let Some(known) = store.challenger_mut(&key) {
            known.told_ns = now_ns;
        }
    }
    1
}

/// Reports a challenger for the first time, if the port's budget lets it. A port that speaks for one
/// address in the name of MAC after MAC has so many of them told apart, and those that follow are
/// reported as one. One MAC on two ports is reported for each, since there are no more of them than
/// hosts. A BPF subprogram.
#[inline(never)]
fn first<S: Store>(
    store: &mut S,
    ingress: &mut Ingress<'_>,
    notification: &Notification,
    now_ns: u64,
) -> u32 {
    let Notification { of, key: about, mac, kind, once, .. } = notification;
    let reserved = is_reserved(notification);
    let of_mac = *once == Once::Mac;
    let crowds = of_mac && *kind != EVENT_CLONE;
    let mut key = ChallengerKey::new(of, ingress.from, [0; 6], *kind);
    let mut macs = 0;
    if crowds {
        macs = store.challenger_mut(&key).map_or(0, |port| port.macs);
        if macs >= if reserved { 1 } else { MAX_MACS_TOLD } {
            return IN_CROWD;
        }
    }
    let new = u32::from(crowds && macs == 0);
    if !admit(store, ingress.port, reserved, new, now_ns) {
        ingress.counters.over_budget += 1;
        // One who may claim what it claims is told of when there is room again.
        return if *kind == EVENT_ALLOWED { REPORTED } else { OVER_BUDGET };
    }
    if new != 0 {
        enter_crowd(store, &key, now_ns);
    } else if crowds && let Some(port) = store.challenger_mut(&key) {
        port.macs += 1;
    }
    let heard = emit(store, notification, about, *kind, ingress.from);
    if !heard {
        ingress.counters.events_lost += 1;
    }
    if of_mac {
        key = ChallengerKey::new(of, ingress.from, *mac, *kind);
    }
    enter(store, notification, &key, u32::from(heard), now_ns);
    REPORTED
}

/// Remembers a challenger. If there is no room, its next frame is reported as if it were the first. A
/// BPF subprogram.
#[inline(never)]
fn enter<S: Store>(
    store: &mut S,
    notification: &Notification,
    key: &ChallengerKey,
    heard: u32,
    now_ns: u64,
) {
    let Notification { key: about, flags, strength, .. } = notification;
    let told_ns = if heard == 0 { 0 } else { now_ns };
    store.insert_challenger(key, &Challenger::new(now_ns, told_ns, *flags, *strength, about));
}

/// Remembers that a port has spoken for an address. A BPF subprogram.
#[inline(never)]
fn enter_crowd<S: Store>(store: &mut S, key: &ChallengerKey, now_ns: u64) {
    store.insert_challenger(key, &Challenger::of_port(now_ns));
}

/// Counts what is over a budget, and tells of it, as with what is over a quota. A BPF subprogram.
#[inline(never)]
pub(crate) fn flood<S: Store>(
    store: &mut S,
    ingress: &mut Ingress<'_>,
    notification: &Notification,
    now_ns: u64,
) {
    if refuse(store, ingress.port.port_slot, now_ns) {
        let none = AddressKey::none(notification.key.segment());
        emit(store, notification, &none, EVENT_FLOOD, ingress.from);
    }
}

/// Whether it is about the gateway or the host.
#[inline(always)]
fn is_reserved(notification: &Notification) -> bool {
    notification.flags & CLAIM_RESERVED != 0
}

/// Whether the port may have one challenger more, and with `new` the entry for all of its MACs.
#[inline(always)]
fn admit<S: Store>(store: &mut S, port: &Port, reserved: bool, new: u32, now_ns: u64) -> bool {
    if reserved {
        let Some(state) = store.port_state_mut(port.port_slot) else { return false };
        let room = new == 0 || state.reserved < MAX_RESERVED_TOLD;
        if room {
            state.reserved += new;
        }
        return room;
    }
    let most = port.quota_events.saturating_mul(CHALLENGERS_PER_EVENT);
    let has = store.port_state(port.port_slot).map_or(0, |state| state.challengers);
    if (port.quota_events != 0 && has >= most) || !spend_event(store, port, now_ns) {
        return false;
    }
    if let Some(state) = store.port_state_mut(port.port_slot) {
        state.challengers += 1 + new;
    }
    true
}

/// One more event of the port in this second, if it may have one.
#[inline(always)]
fn spend_event<S: Store>(store: &mut S, port: &Port, now_ns: u64) -> bool {
    let Some(state) = store.port_state_mut(port.port_slot) else { return false };
    if is_stale(state.events_ns, now_ns) {
        state.events_ns = now_ns;
        state.events = 0;
    }
    let may = port.quota_events == 0 || state.events < port.quota_events;
    if may {
        state.events += 1;
    }
    may
}

/// Whether the ring had room. A BPF subprogram.
#[inline(never)]
fn emit<S: Store>(
    store: &mut S,
    notification: &Notification,
    key: &AddressKey,
    kind: u8,
    from: u32,
) -> bool {
    let time_ns = store.event_ns();
    store.emit(|| Event {
        time_ns,
        key: *key,
        ifindex: from,
        holder_ifindex: notification.holder.ifindex,
        mac: notification.mac,
        eth_src: notification.eth_src,
        holder_mac: notification.holder.mac,
        kind,
        strength: notification.strength,
        flags: notification.flags,
        reserved: [0; 2],
    })
}
