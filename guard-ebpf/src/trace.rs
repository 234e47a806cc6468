//! How a frame is decoded, and what would come of it, as a record for each of its claims: for people
//! who watch a port.

use bytemuck::{Pod, Zeroable};

use crate::{
    abi::{
        AddressKey, EVENT_LIVE, EVENT_OWNER, EVENT_PROBE, PORT_FILTERS_VLANS, Port,
        STRENGTH_TENTATIVE,
    },
    claim::{Claim, Meaning, Router},
    counters::NoClaim,
    decide::{Action, Tables, judge},
    enforce::code,
    frame::Frame,
    mac::Mac,
    ndp::{MAX_CLAIMS, next_claim},
    watch::Scratch,
};

/// What a frame is, says and would do. Numbers: the program has no room for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Traced {
    /// The segment, and the address of the claim, unspecified without one.
    pub key: AddressKey,
    /// The MAC that the claim names.
    pub mac: Mac,
    /// The Ethernet source.
    pub eth_src: Mac,
    /// The `CLAIM_*` bits of the claim.
    pub flags: u16,
    /// A [`crate::counters::FrameKind`].
    pub kind: u8,
    /// One of the `SAYS_*`.
    pub says: u8,
    /// Why, as the enum that `says` names counts it.
    pub reason: u8,
    /// The `STRENGTH_*` of the claim.
    pub strength: u8,
    /// One of the `DOES_*`.
    pub does: u8,
    /// The `EVENT_*` that would be told, or the [`crate::counters::NoClaim`]; 0 without either.
    pub event: u8,
    /// 0 where enforcement would let it pass, else the [`crate::counters::DropReason`] and one.
    pub verdict: u8,
    /// 1 for the router flag, 2 for a router's message.
    pub router: u8,
    /// Which of the frame's claims it is, from 1; 0 where it makes none.
    pub claim: u8,
    /// Keeps the layout free of padding.
    pub reserved: u8,
}

impl Traced {
    /// Makes it the record of what there is to say of a frame beside its claims.
    #[inline(always)]
    fn no_claim(&mut self) {
        self.key = AddressKey::none(self.key.segment());
        self.mac = [0; 6];
        self.flags = 0;
        self.strength = 0;
        self.does = DOES_NOTHING;
        self.event = 0;
        self.claim = 0;
    }
}

/// Nothing about an address.
pub const SAYS_NOTHING: u8 = 0;
/// Someone holds an address.
pub const SAYS_CLAIM: u8 = 1;
/// A source that nobody can hold: a [`crate::counters::NoClaim`].
pub const SAYS_NO_CLAIM: u8 = 2;
/// It cannot be read: a [`crate::counters::MalformedReason`].
pub const SAYS_MALFORMED: u8 = 3;
/// It cannot be read to its end: a [`crate::counters::OpaqueReason`].
pub const SAYS_OPAQUE: u8 = 4;

/// Nothing.
pub const DOES_NOTHING: u8 = 0;
/// The claim counts for nothing.
pub const DOES_NOT_COUNT: u8 = 1;
/// The holder was seen.
pub const DOES_REFRESH: u8 = 2;
/// The address is live from now on.
pub const DOES_LIVE: u8 = 3;
/// A challenger is reported.
pub const DOES_REPORT: u8 = 4;
/// It is over the port's quota.
pub const DOES_OVER_QUOTA: u8 = 5;

/// Where and when a frame came in. One argument, since newer kernels hold a function that has more than
/// five to what its type says, whatever became of them (`MAX_BPF_FUNC_REG_ARGS`).
pub struct Arrival<'a> {
    /// What the agent says of the port.
    pub port: &'a Port,
    /// The port's ifindex.
    pub from: u32,
    /// `CLOCK_MONOTONIC`, coarse.
    pub now_ns: u64,
}

/// Reads a frame and judges each of its claims, as [`crate::watch::watch`] would, but by what was
/// known before the frame: it changes nothing. What it has to say it hands to `tell`, once for each
/// claim, and once where there is more to say, or nothing.
#[inline(always)]
pub fn trace<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    at: &Arrival<'_>,
    scratch: &mut Scratch,
    mut tell: impl FnMut(&Traced),
) {
    let (parsed, next, further) = scratch.read(frame, at.port);
    let mut traced = Traced::zeroed();
    traced.key = AddressKey::none(parsed.segment);
    traced.eth_src = parsed.eth_src;
    traced.kind = parsed.kind as u8;
    traced.router = match parsed.router {
        Router::No => 0,
        Router::Flag => 1,
        Router::Message => 2,
    };
    let mut says = parsed.beside(at.port);
    let mut claims = parsed.claims;
    if at.port.flags & PORT_FILTERS_VLANS != 0 && !tables.is_member(at.from, parsed.segment.vlan) {
        (says, claims) = (Meaning::NoClaim(NoClaim::Vlan), false);
    }
    if claims {
        traced.says = SAYS_CLAIM;
        for _ in 0..MAX_CLAIMS {
            traced.verdict = claim(tables, at, next, &mut traced);
            tell(&traced);
            next_claim(frame, further, next);
            if further.done != 0 {
                break;
            }
        }
    }
    (traced.says, traced.reason) = match says {
        Meaning::Nothing if claims => return,
        Meaning::Nothing => (SAYS_NOTHING, 0),
        Meaning::NoClaim(reason) => (SAYS_NO_CLAIM, reason as u8),
        Meaning::Malformed(reason) => (SAYS_MALFORMED, reason as u8),
        Meaning::Opaque(reason) => (SAYS_OPAQUE, reason as u8),
    };
    if claims {
        traced.no_claim();
    }
    tell(&traced);
}

/// What a claim says, and what would be done about it. Returns the verdict. A BPF subprogram: without a
/// value to return it could end with a pointer where that is, which the verifier of older kernels refuses.
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "there are fewer reasons")]
fn claim<T: Tables>(tables: &T, at: &Arrival<'_>, claim: &Claim, traced: &mut Traced) -> u8 {
    traced.claim += 1;
    traced.key = claim.key;
    traced.mac = claim.mac;
    traced.flags = claim.flags;
    traced.strength = claim.strength;
    let decision = judge(tables, at.port, at.from, claim, at.now_ns);
    (traced.does, traced.event) = match decision.action {
        Action::Nothing | Action::Ignore => (DOES_NOTHING, 0),
        Action::NoClaim(reason) => (DOES_NOT_COUNT, reason as u8),
        Action::RefreshOwner => (DOES_REFRESH, EVENT_OWNER),
        Action::RefreshLive => (DOES_REFRESH, EVENT_LIVE),
        Action::InsertLive if claim.strength == STRENGTH_TENTATIVE => (DOES_REPORT, EVENT_PROBE),
        Action::InsertLive => (DOES_LIVE, EVENT_LIVE),
        Action::Report => (DOES_REPORT, decision.report.kind),
        Action::OverQuota => (DOES_OVER_QUOTA, 0),
    };
    code(tables, at.port, at.from, decision.reasons) as u8
}
