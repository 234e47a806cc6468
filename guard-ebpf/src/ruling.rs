//! What the allow rules and a port's exceptions say of a claim.

use crate::{
    abi::{CLAIM_SPOOF, CLAIM_VIRTUAL, EXCEPT_VIRTUAL, OWNED_LEASED, Owned, Port, PortMac, Prefix},
    claim::Claim,
    decide::Tables,
    mac,
};

/// What the allow rules say of a claim.
#[derive(Clone, Copy)]
pub(crate) enum Ruling {
    /// Nothing.
    None,
    /// The claimant may, whoever has the address.
    Allowed,
    /// Others may, and nobody else.
    Declared,
}

/// Whether a rule lets the port claim what another has declared. Only those do that are about the
/// addresses of others: a router has its own, and a proxy answers for those who do not.
#[inline(always)]
pub(crate) fn is_open(prefix: Option<&Prefix>, port: &Port, claim: &Claim, owned: &Owned) -> bool {
    match prefix.copied() {
        Some(prefix) if owned.flags & OWNED_LEASED != 0 => {
            let (allow, allow_virtual) = (prefix.allow, prefix.allow_virtual);
            let over = prefix.over_owners;
            let prefix =
                Prefix { allow: allow & over, allow_virtual: allow_virtual & over, ..prefix };
            matches!(ruling(Some(&prefix), port, claim), Ruling::Allowed)
        }
        prefix => matches!(ruling(prefix.as_ref(), port, claim), Ruling::Allowed),
    }
}

/// What an exception of the port says of a claim: its `EXCEPT_*` bits, as far as the claim is in the name
/// of a station that may. A BPF subprogram.
#[inline(never)]
pub(crate) fn exception<T: Tables>(tables: &T, from: u32, claim: &Claim) -> u32 {
    let bits = tables.exception(&claim.key.on_port(from));
    if bits == 0 || claim.flags & CLAIM_SPOOF != 0 {
        return 0;
    }
    let named = tables.station(&PortMac::new(from, claim.mac)) != 0;
    // Whose frame it is, is looked at as such.
    if !named && !mac::same(claim.mac, claim.eth_src) {
        return 0;
    }
    let is_virtual = named && claim.flags & CLAIM_VIRTUAL != 0;
    if is_virtual { bits } else { bits & !EXCEPT_VIRTUAL }
}

#[inline(always)]
pub(crate) fn ruling(prefix: Option<&Prefix>, port: &Port, claim: &Claim) -> Ruling {
    let Some(prefix) = prefix else { return Ruling::None };
    let by_virtual = if claim.flags & CLAIM_VIRTUAL == 0 { 0 } else { prefix.allow_virtual };
    if claim.flags & CLAIM_SPOOF == 0 && (prefix.allow | by_virtual) & port.allow != 0 {
        Ruling::Allowed
    } else if prefix.declared != 0 {
        Ruling::Declared
    } else {
        Ruling::None
    }
}
