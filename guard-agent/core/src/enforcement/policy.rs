//! For which reasons a port's frames drop.

use guard_ebpf::{
    abi::{CLOSED_IPV4, CLOSED_IPV6, CLOSED_OTHERS, OPEN_ROUTER, Policy},
    counters::DropReason,
};

use super::{Class, Effects, Settings, Strict};

/// What the declared bindings of a port name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// An IPv4 address.
    pub ipv4: bool,
    /// An IPv6 address.
    pub ipv6: bool,
    /// The port, and no MAC: any may use the address.
    pub any_mac: bool,
}

/// What drops whatever an operator sets: what another has, and what goes beyond a quota.
const ALWAYS: [DropReason; 8] = [
    DropReason::BridgeMac,
    DropReason::Clone,
    DropReason::MacQuota,
    DropReason::NoHostMac,
    DropReason::Violation,
    DropReason::Mismatch,
    DropReason::Probe,
    DropReason::Quota,
];

impl Class {
    /// The reasons for which its frames drop.
    pub(super) fn reasons(self) -> &'static [DropReason] {
        use DropReason as R;
        match self {
            Self::Router => &[R::Router],
            Self::DhcpServer => &[R::DhcpServer],
            Self::Control => &[R::Control],
            Self::Ethertype => &[R::Ethertype],
            Self::Tagged => &[R::Tagged, R::Vlan],
            Self::Opaque => &[R::Opaque],
            Self::Malformed => &[R::Malformed, R::Martian, R::Unspecified, R::Snap, R::Rarp],
        }
    }
}

/// What enforcement does on a port, but for its ifindex and its mode (enforce.md, "The decision on an
/// access port"), given what its exceptions come to. Where it is no access port, nothing.
pub fn policy(is_access: bool, settings: &Settings, bound: Bound, except: &Effects) -> Policy {
    if !is_access {
        return Policy::default();
    }
    let hygiene = settings.hygiene.iter().flat_map(Class::reasons);
    let mut drops = ALWAYS.iter().chain(hygiene).fold(0, |bits, reason| bits | reason.bit());
    let mut closed = 0;
    for (is_closed, bit) in [(bound.ipv4, CLOSED_IPV4), (bound.ipv6, CLOSED_IPV6)] {
        closed |= if is_closed { bit } else { 0 };
    }
    let is_bound = closed != 0;
    if settings.strict == Strict::All {
        drops |= DropReason::Unowned.bit() | DropReason::Ethertype.bit();
        closed |= if is_bound { 0 } else { CLOSED_OTHERS };
    }
    if is_bound && settings.strict != Strict::None {
        drops |= DropReason::Unowned.bit() | DropReason::OffPrefix.bit();
        drops |= if bound.any_mac { 0 } else { DropReason::Mac.bit() };
    }
    drops &= !except.spared;
    if except.router {
        // What is from elsewhere is what it forwards.
        closed = closed & !CLOSED_OTHERS | OPEN_ROUTER;
    }
    Policy { drops, closed, macs: except.any, ..Policy::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Bound = Bound { ipv4: false, ipv6: false, any_mac: false };
    const BOUND: Bound = Bound { ipv4: true, ..FREE };

    fn has(strict: Strict, bound: Bound, reason: DropReason) -> bool {
        let settings = Settings { strict, ..Settings::default() };
        policy(true, &settings, bound, &Effects::default()).drops & reason.bit() != 0
    }

    /// The columns of the table: free at `none`, `bound` and `all`, bound at the same.
    fn columns(reason: DropReason) -> [bool; 6] {
        let strict = [Strict::None, Strict::Bound, Strict::All];
        let [a, b, c] = strict.map(|strict| has(strict, FREE, reason));
        let [d, e, f] = strict.map(|strict| has(strict, BOUND, reason));
        [a, b, c, d, e, f]
    }

    #[test]
    fn the_table_is_as_the_book_has_it() {
        for reason in DropReason::ALL {
            let expected = match reason {
                DropReason::Mac | DropReason::OffPrefix => [false, false, false, false, true, true],
                DropReason::Unowned => [false, false, true, false, true, true],
                DropReason::Ethertype => [false, false, true, false, false, true],
                _ => [true; 6],
            };
            assert_eq!(columns(*reason), expected, "{}", reason.name());
        }
    }

    #[test]
    fn nothing_drops_on_what_is_no_access_port() {
        let settings = Settings { strict: Strict::All, ..Settings::default() };
        assert_eq!(policy(false, &settings, BOUND, &Effects::default()), Policy::default());
    }

    #[test]
    fn a_class_that_is_not_named_does_not_drop() {
        let hygiene = [Class::Opaque].into_iter().collect();
        let Policy { drops, .. } =
            policy(true, &Settings { hygiene, ..Settings::default() }, FREE, &Effects::default());
        assert_ne!(drops & DropReason::Opaque.bit(), 0);
        assert_eq!(drops & DropReason::Router.bit(), 0);
        assert_ne!(drops & DropReason::Violation.bit(), 0);
    }

    #[test]
    fn a_family_is_closed_where_a_binding_names_an_address_of_it() {
        let settings = Settings::default();
        let closed = |bound| policy(true, &settings, bound, &Effects::default()).closed;
        assert_eq!(closed(FREE), 0);
        assert_eq!(closed(BOUND), CLOSED_IPV4);
        assert_eq!(closed(Bound { ipv6: true, ..BOUND }), CLOSED_IPV4 | CLOSED_IPV6);
        let settings = Settings { strict: Strict::All, ..settings };
        assert_eq!(policy(true, &settings, FREE, &Effects::default()).closed, CLOSED_OTHERS);
        assert_eq!(policy(true, &settings, BOUND, &Effects::default()).closed, CLOSED_IPV4);
    }

    #[test]
    fn a_binding_that_names_no_mac_leaves_them_open() {
        assert!(!has(Strict::Bound, Bound { any_mac: true, ..BOUND }, DropReason::Mac));
    }
}
