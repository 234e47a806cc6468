//! What a claim means, given who holds the address.

use bytemuck::Zeroable;

use crate::{
    abi::{
        AddressKey, CLAIM_LINK_LOCAL, CLAIM_MISMATCH, CLAIM_RESERVED, CLAIM_SPOOF, CLAIM_VIRTUAL,
        CLOSED_BOUND, CLOSED_IPV4, CLOSED_IPV6, CLOSED_OTHERS, Challenger, EVENT_ALLOWED,
        EVENT_CONTEST, EVENT_PROBE, EVENT_VIOLATION, EXCEPT_OWNED, EXCEPT_PROXY, EXCEPT_VIRTUAL,
        FIRST_COME, GOVERNED, Live, MacHolder, MacKey, Mode, OFF_LINK, ON_LINK, OWNED_GATEWAY,
        OWNED_HOST, OWNED_MAC, OWNED_PORT, Owned, PORT_ALLOW_ROUTER, PORT_ALLOW_VIRTUAL,
        PORT_UPLINK, Policy, Port, PortMac, PortState, Prefix, REFRESH_NS, STRENGTH_TENTATIVE,
        STRENGTH_USE,
    },
    claim::Claim,
    counters::{DropReason, NoClaim},
    enforce::policy,
    mac::{self, Mac},
    ruling::{Ruling, exception, is_open, ruling},
};

/// What is known of addresses: the maps in the kernel, something simpler in tests. Read lazily, so
/// that a frame costs no look-up that its decision does not rest on.
pub trait Tables {
    /// Who owns the address.
    fn owned(&self, key: &AddressKey) -> Option<&Owned>;
    /// Who is live with it.
    fn live(&self, key: &AddressKey) -> Option<&Live>;
    /// The longest prefix of its segment that covers it.
    fn prefix(&self, key: &AddressKey) -> Option<&Prefix>;
    /// Whether a port of a bridge that filters VLANs is in this one.
    fn is_member(&self, ifindex: u32, vlan: u16) -> bool;
    /// The port that the MAC is bound to or live on.
    fn mac_holder(&self, key: &MacKey) -> Option<&MacHolder>;
    /// What a port has used of its quota, by its slot.
    fn port_state(&self, slot: u32) -> Option<&PortState>;
    /// What enforcement does on a port, by its slot.
    fn policy(&self, slot: u32) -> Option<&Policy>;
    /// Whether a bridge's ports are enforced, by its slot.
    fn mode(&self, slot: u32) -> Option<&Mode>;
    /// Whether a declared binding names the MAC and the port, or an exception does: one of the `STATION_*`
    /// constants, or 0.
    fn station(&self, key: &PortMac) -> u32;
    /// What a port may claim besides its bindings, by [`AddressKey::on_port`]: the `EXCEPT_*` bits.
    fn exception(&self, key: &AddressKey) -> u32;
    /// The count of the agent's changes to what owners may do.
    fn changes(&self) -> u32;
}

/// What is to be done about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to write and to report.
    pub action: Action,
    /// A bit for each reason to drop its frame ([`DropReason::bit`]); which of them count is the port's
    /// policy.
    pub reasons: u32,
    /// It is about an address that nobody owns, and may use up the port's quota.
    pub stranger: bool,
    /// What to tell, with [`Action::Report`]. Beside the action and not in it: where the compiler merges
    /// the paths of several, the verifier sees a payload read that was never written.
    pub report: Report,
}

impl Decision {
    /// A decision that no quota has a part in.
    #[inline(always)]
    const fn plain(action: Action, reasons: u32) -> Self {
        Self { action, reasons, stranger: false, report: Report::NONE }
    }
}

/// What to write and to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Nothing, and the claim counts for nothing either.
    Ignore,
    /// Count a claim that counts for nothing.
    NoClaim(NoClaim),
    /// Store that the declared owner was seen, and tell if it is the first time.
    RefreshOwner,
    /// Store that the live claimant was seen.
    RefreshLive,
    /// Nobody has the address. It is live from now on; tell. If another CPU was first, judge again. A
    /// probe for it makes nothing live, and is told as of a challenger: one action for both, because the
    /// verifier would see the fields of a [`Report`] read where a further one has none.
    InsertLive,
    /// Tell of a challenger, by [`Decision::report`], once and then at most every [`REFRESH_NS`].
    Report,
    /// Count a claim over the port's quota.
    OverQuota,
}

/// A claim, or a probe, against a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
pub struct Report {
    /// One of the `EVENT_*` constants.
    pub kind: u8,
    /// The claim's `CLAIM_*` bits, with those that only the holder's MAC shows.
    pub flags: u16,
    /// The holder.
    pub holder: Holder,
}

impl Report {
    /// Nothing to tell.
    pub const NONE: Self = Self { kind: 0, flags: 0, holder: Holder::NONE };
}

/// Who holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
pub struct Holder {
    /// Its port, 0 if none is known.
    pub ifindex: u32,
    /// Its MAC, zero if none is known.
    pub mac: Mac,
}

impl Holder {
    /// Nobody.
    pub const NONE: Self = Self { ifindex: 0, mac: [0; 6] };

    /// The declared holder.
    #[inline(always)]
    #[must_use]
    pub fn declared(owned: &Owned) -> Self {
        let ifindex = if owned.flags & OWNED_PORT == 0 { 0 } else { owned.ifindex };
        let mac = if owned.flags & OWNED_MAC == 0 { [0; 6] } else { owned.mac };
        Self { ifindex, mac }
    }
}

/// No reason to drop a frame.
pub(crate) const PASS: u32 = 0;

/// Judges a claim in a frame that came from the port with ifindex `from` at `now_ns`.
#[inline(always)]
#[must_use]
pub fn judge<T: Tables>(
    tables: &T,
    port: &Port,
    from: u32,
    claim: &Claim,
    now_ns: u64,
) -> Decision {
    // Without a bit nobody owns it.
    match tables.owned(&claim.key).filter(|owned| owned.flags != 0) {
        Some(owned) if is_declared(port, claim, owned) => {
            against_owner(tables, port, from, claim, owned, now_ns)
        }
        owned => {
            let decision = against_live(tables, port, from, claim, owned.is_some(), now_ns);
            // Where it is not at home, the gateway is no port's; where it is, nobody need declare it.
            let is_gateway = owned.is_some_and(|owned| owned.flags & OWNED_GATEWAY != 0);
            let reasons = if is_gateway { PASS } else { undeclared(tables, port, from, claim) };
            Decision { reasons: decision.reasons | reasons, ..decision }
        }
    }
}

/// The reason to drop a claim on what nobody has declared, whoever is live with it: being live vouches for
/// nobody.
#[inline(always)]
fn undeclared<T: Tables>(tables: &T, port: &Port, from: u32, claim: &Claim) -> u32 {
    let (drops, closed) =
        policy(tables, port, from).map_or((PASS, 0), |policy| (policy.drops, policy.closed));
    let unowned = DropReason::Unowned.bit();
    let off_prefix = DropReason::OffPrefix.bit();
    if claim.strength == STRENGTH_TENTATIVE
        || claim.flags & CLAIM_LINK_LOCAL != 0
        || drops & (unowned | off_prefix) == PASS
    {
        return PASS;
    }
    let prefix = tables.prefix(&claim.key);
    if matches!(ruling(prefix, port, claim), Ruling::Allowed) || exception(tables, from, claim) != 0
    {
        return PASS;
    }
    match prefix.map_or(0, |prefix| prefix.governed) {
        GOVERNED => return unowned,
        FIRST_COME => return PASS,
        _ => {}
    }
    // A router forwards what is from elsewhere (claims.md D05).
    let family = if claim.key.is_v4() { CLOSED_IPV4 } else { CLOSED_IPV6 };
    match closed {
        _ if port.flags & PORT_ALLOW_ROUTER != 0 => PASS,
        closed if closed & family != 0 => off_prefix,
        closed if closed & CLOSED_OTHERS != 0 => unowned,
        _ => PASS,
    }
}

/// Whether a challenger is to be told now, given what is remembered of it.
#[inline(always)]
#[must_use]
pub fn is_due(challenger: &Challenger, now_ns: u64) -> bool {
    is_stale(challenger.told_ns, now_ns)
}

/// Whether the owned entry decides by itself: it names a holder, or nobody can be the holder that
/// the claim names. A lease without a binding is judged by who is live, and so is a gateway on an
/// uplink whose MAC nobody declared.
#[inline(always)]
fn is_declared(port: &Port, claim: &Claim, owned: &Owned) -> bool {
    owned.flags & (OWNED_MAC | OWNED_PORT) != 0
        || claim.flags & CLAIM_SPOOF != 0
        || is_reserved(port, owned)
}

/// Whether the port may not claim the address, whoever has it (claims.md A20, D07).
#[inline(always)]
fn is_reserved(port: &Port, owned: &Owned) -> bool {
    let bits = if is_home(port, owned) { OWNED_HOST } else { OWNED_HOST | OWNED_GATEWAY };
    owned.flags & bits != 0
}

/// Whether a gateway that is not the host's is at home there: on the ports that are named for it, or
/// else on any uplink.
#[inline(always)]
fn is_home(port: &Port, owned: &Owned) -> bool {
    match owned.homes {
        0 => port.kind == PORT_UPLINK,
        homes => homes & u32::from(port.homes) != 0,
    }
}

#[inline(always)]
fn against_owner<T: Tables>(
    tables: &T,
    port: &Port,
    from: u32,
    claim: &Claim,
    owned: &Owned,
    now_ns: u64,
) -> Decision {
    let own_mac = owned.flags & OWNED_MAC == 0
        || mac::same(claim.mac, owned.mac)
        || (owned.flags & OWNED_PORT != 0 && is_own_virtual(tables, port, from, claim));
    let matches = !is_reserved(port, owned)
        && claim.flags & CLAIM_SPOOF == 0
        && own_mac
        && (owned.flags & OWNED_PORT == 0 || from == owned.ifindex);
    if !matches {
        // No rule gives away an address of the host.
        let open = owned.flags & OWNED_HOST == 0;
        if open && is_open(tables.prefix(&claim.key), port, claim, owned) {
            return allowed(claim);
        }
        // Nor does an exception one of a gateway.
        if !is_reserved(port, owned)
            && exception(tables, from, claim) & (EXCEPT_OWNED | EXCEPT_VIRTUAL) != 0
        {
            return allowed(claim);
        }
        let claims = claim.strength != STRENGTH_TENTATIVE;
        let more = if claims && is_reserved(port, owned) { CLAIM_RESERVED } else { 0 };
        let decision = report(claim, more, Holder::declared(owned), EVENT_VIOLATION);
        let reasons = match decision.reasons {
            PASS if is_untimely(tables, port, from, owned, now_ns) => DropReason::Probe.bit(),
            // What the host takes from a port that was given it is the host's fault.
            _ if is_own(from, claim, owned) => PASS,
            reasons => reasons,
        };
        return Decision { reasons, ..decision };
    }
    let mismatch = claim.flags & CLAIM_MISMATCH != 0;
    let reasons = if mismatch { DropReason::Mismatch.bit() } else { PASS };
    if claim.strength == STRENGTH_TENTATIVE {
        return Decision::plain(Action::Nothing, reasons);
    }
    let stale = is_stale(owned.seen_ns, now_ns);
    let action = if stale { Action::RefreshOwner } else { Action::Nothing };
    Decision::plain(action, reasons)
}

/// Whether the claim is by the station that a declared binding names with both its port and its MAC.
#[inline(always)]
fn is_own(from: u32, claim: &Claim, owned: &Owned) -> bool {
    let both = OWNED_MAC | OWNED_PORT;
    owned.flags & both == both
        && from == owned.ifindex
        && mac::same(claim.mac, owned.mac)
        && claim.flags & (CLAIM_MISMATCH | CLAIM_SPOOF) == 0
}

/// Whether a probe for what another has is not to pass: one frame of it keeps a host from using its own
/// address that is just about to (claims.md A04). A port that nothing is declared of may ask once a second,
/// and not before the owner was heard.
#[inline(always)]
fn is_untimely<T: Tables>(tables: &T, port: &Port, from: u32, owned: &Owned, now_ns: u64) -> bool {
    let bound = policy(tables, port, from).is_some_and(|p| p.closed & CLOSED_BOUND != 0);
    let heard = owned.seen_ns != 0 || owned.flags & (OWNED_GATEWAY | OWNED_HOST) != 0;
    let recent = tables.port_state(port.port_slot).is_some_and(|s| !is_stale(s.probe_ns, now_ns));
    bound || !heard || recent
}

/// A claim by a rule is reported, since the address is in use, and is no conflict.
#[inline(always)]
fn allowed(claim: &Claim) -> Decision {
    let report = Report { kind: EVENT_ALLOWED, flags: claim.flags, holder: Holder::NONE };
    let tentative = claim.strength == STRENGTH_TENTATIVE;
    if tentative { Decision::plain(Action::Nothing, PASS) } else { told(report, PASS) }
}

#[inline(always)]
const fn told(report: Report, reasons: u32) -> Decision {
    Decision { action: Action::Report, reasons, stranger: false, report }
}

/// Whether the claim is in the name of a virtual router that the port may be: its station speaks with
/// that MAC for its own address too (RFC 9568 §7.3).
#[inline(always)]
fn is_own_virtual<T: Tables>(tables: &T, port: &Port, from: u32, claim: &Claim) -> bool {
    claim.flags & CLAIM_VIRTUAL != 0
        && (port.flags & PORT_ALLOW_VIRTUAL != 0
            || tables.station(&PortMac::new(from, claim.mac)) != 0)
}

/// Judges a claim on an address without a declared holder. `owned`: a lease or a gateway holds it.
#[inline(always)]
#[must_use]
pub fn against_live<T: Tables>(
    tables: &T,
    port: &Port,
    from: u32,
    claim: &Claim,
    owned: bool,
    now_ns: u64,
) -> Decision {
    let tentative = claim.strength == STRENGTH_TENTATIVE;
    let live = tables.live(&claim.key);
    if let Some(live) = live
        && from == live.ifindex
        && (mac::same(claim.mac, live.mac) || is_own_virtual(tables, port, from, claim))
    {
        // Judged anew after each of the agent's changes, it has the fast path again.
        let stale = is_stale(live.seen_ns, now_ns)
            || claim.strength > live.strength
            || live.passed != tables.changes();
        let action = if stale && !tentative { Action::RefreshLive } else { Action::Nothing };
        return Decision::plain(action, PASS);
    }
    let prefix = tables.prefix(&claim.key);
    let holder = live.map_or(Holder::NONE, |live| Holder { ifindex: live.ifindex, mac: live.mac });
    let beside = EXCEPT_OWNED | EXCEPT_VIRTUAL | EXCEPT_PROXY;
    let ruling = match ruling(prefix, port, claim) {
        Ruling::Allowed => Ruling::Allowed,
        _ if exception(tables, from, claim) & beside != 0 => Ruling::Allowed,
        ruling => ruling,
    };
    let decision = match ruling {
        // The first of them has the fast path from then on; one beside another's owner has not.
        Ruling::Allowed => {
            let declared = prefix.is_some_and(|prefix| prefix.declared != 0);
            return if declared && live.is_none() && !tentative {
                Decision::plain(Action::InsertLive, PASS)
            } else {
                allowed(claim)
            };
        }
        Ruling::Declared if !tentative => return report(claim, 0, holder, EVENT_VIOLATION),
        _ if claim.strength == STRENGTH_USE && !owned && !is_on_link(prefix, claim) => {
            return routed(prefix);
        }
        _ if live.is_some() => report(claim, 0, holder, EVENT_CONTEST),
        _ if claim.flags & CLAIM_SPOOF != 0 => {
            let action = Action::NoClaim(NoClaim::NoHostMac);
            return Decision::plain(action, DropReason::NoHostMac.bit());
        }
        // Who says where an address is has it, wherever the address lies (claims.md A14), and who probes
        // for it means to use it (claims.md A05, N03).
        _ => Decision::plain(Action::InsertLive, PASS),
    };
    // An owned address is judged whatever the port has used up.
    if owned {
        return decision;
    }
    let new = matches!(decision.action, Action::InsertLive);
    if let Some(state) = tables.port_state(port.port_slot)
        && is_over_quota(port, state, claim, new, now_ns)
    {
        // Where nobody governs what is claimed, it only does not count.
        let governed = prefix.is_some_and(|prefix| prefix.governed != 0);
        let passes = tentative || claim.flags & CLAIM_LINK_LOCAL != 0 || !governed;
        let quota = if passes { PASS } else { DropReason::Quota.bit() };
        return Decision::plain(Action::OverQuota, decision.reasons | quota);
    }
    Decision { stranger: true, ..decision }
}

/// Whether an address is claimed by being used: link-local ones are on every link.
#[inline(always)]
fn is_on_link(prefix: Option<&Prefix>, claim: &Claim) -> bool {
    claim.flags & CLAIM_LINK_LOCAL != 0 || prefix.is_some_and(|prefix| prefix.on_link == ON_LINK)
}

/// The source of a packet that is off the link: from elsewhere where the segment has prefixes of the
/// family (claims.md D04, D05), and where it has none nothing can be said of it.
#[inline(always)]
fn routed(prefix: Option<&Prefix>) -> Decision {
    let off_link = prefix.is_some_and(|prefix| prefix.on_link == OFF_LINK);
    let action = if off_link { Action::NoClaim(NoClaim::OffPrefix) } else { Action::Ignore };
    Decision::plain(action, PASS)
}

/// Whether the port has used up what it may say about addresses that nobody owns. `new`: the address
/// would become live.
#[inline(always)]
fn is_over_quota(port: &Port, state: &PortState, claim: &Claim, new: bool, now_ns: u64) -> bool {
    // From an uplink link-local addresses, which nobody hands out, leave half of the room to others.
    let spare = port.kind == PORT_UPLINK && claim.flags & CLAIM_LINK_LOCAL != 0;
    let most = port.quota_addresses >> u32::from(spare);
    let addresses = new && port.quota_addresses != 0 && state.addresses >= most;
    let frames = claim.limited
        && port.quota_frames != 0
        && state.frames >= port.quota_frames
        && !is_stale(state.window_ns, now_ns);
    addresses || frames
}

/// A claim against a holder, or a probe for what it holds. A probe passes (claims.md A04), and so
/// does a claim against a holder that nobody declared; a MAC that no host can have passes never
/// (claims.md A12). `more` are further `CLAIM_*` bits.
#[inline(always)]
fn report(claim: &Claim, more: u16, holder: Holder, kind: u8) -> Decision {
    let mut flags = claim.flags | more;
    // claims.md A11: sent as if by the holder, and naming another. An unknown MAC is zero, which is
    // no frame's source here (claims.md L03).
    if flags & CLAIM_MISMATCH != 0 && mac::same(claim.eth_src, holder.mac) {
        flags |= CLAIM_SPOOF;
    }
    let kind = if claim.strength == STRENGTH_TENTATIVE { EVENT_PROBE } else { kind };
    let reasons = if claim.flags & CLAIM_SPOOF != 0 {
        DropReason::NoHostMac.bit()
    } else if kind == EVENT_VIOLATION {
        DropReason::Violation.bit()
    } else {
        PASS
    };
    told(Report { kind, flags, holder }, reasons)
}

/// Whether a stamp is due for a store. The coarse clock of another CPU may be a tick behind.
#[inline(always)]
pub(crate) fn is_stale(stamp_ns: u64, now_ns: u64) -> bool {
    stamp_ns == 0 || now_ns.saturating_sub(stamp_ns) >= REFRESH_NS
}
