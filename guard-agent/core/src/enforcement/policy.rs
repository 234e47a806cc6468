//! For which reasons a port's frames drop.

use guard_ebpf::counters::DropReason;

use super::{Class, Settings};

/// What drops whatever an operator sets.
const ALWAYS: [DropReason; 6] = [
    DropReason::BridgeMac,
    DropReason::Clone,
    DropReason::NoHostMac,
    DropReason::Violation,
    DropReason::Mismatch,
    DropReason::OffPrefix,
];

impl Class {
    /// The reasons for which its frames drop.
    fn reasons(self) -> &'static [DropReason] {
        use DropReason as R;
        match self {
            Self::Router => &[R::Router],
            Self::Control => &[R::Control],
            Self::Tagged => &[R::Tagged, R::Vlan],
            Self::Opaque => &[R::Opaque],
            Self::Malformed => &[R::Malformed, R::Martian, R::Unspecified, R::Snap, R::Rarp],
            Self::DhcpServer | Self::Ethertype => &[],
        }
    }
}

/// A bit for each reason for which frames of a port drop; none where it is no access port.
pub fn drops(is_access: bool, settings: &Settings) -> u32 {
    let hygiene = settings.hygiene.iter().flat_map(Class::reasons);
    let reasons = ALWAYS.iter().chain(hygiene).filter(|_| is_access);
    reasons.fold(0, |bits, reason| bits | reason.bit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_drops_on_what_is_no_access_port() {
        assert_eq!(drops(false, &Settings::default()), 0);
    }

    #[test]
    fn all_reasons_count_on_an_access_port_by_default() {
        let all = DropReason::ALL.iter().fold(0, |bits, reason| bits | reason.bit());
        assert_eq!(drops(true, &Settings::default()), all);
    }

    #[test]
    fn a_class_that_is_not_named_does_not_drop() {
        let hygiene = [Class::Opaque].into_iter().collect();
        let drops = drops(true, &Settings { hygiene, ..Settings::default() });
        assert_ne!(drops & DropReason::Opaque.bit(), 0);
        assert_eq!(drops & DropReason::Router.bit(), 0);
        assert_ne!(drops & DropReason::Violation.bit(), 0);
    }
}
