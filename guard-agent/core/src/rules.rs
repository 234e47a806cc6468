//! The allow rules, as the program reads them: a bit for each in a port, and the same bit in the
//! prefixes that it is about.

use std::{collections::BTreeSet, net::IpAddr};

use guard_ebpf::{
    abi::{OFF_LINK, ON_LINK, PORT_ALLOW_ROUTER, PORT_ALLOW_VIRTUAL, Prefix},
    mac,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    evidence::Station,
    policy::{Allow, AllowKind},
};

/// The bits of the rules that a port is in, and what they let it do besides.
pub fn of_port(rules: &[Allow], interface: &str) -> (u32, u8) {
    let own = rules.iter().zip(0..).filter(|(rule, _)| rule.is_for(interface));
    own.fold((0, 0), |(allow, flags), (rule, number)| {
        let flag = match rule.kind {
            AllowKind::Vrrp => PORT_ALLOW_VIRTUAL,
            AllowKind::Router => PORT_ALLOW_ROUTER,
            AllowKind::Shared | AllowKind::Proxy => 0,
        };
        (allow | 1 << number, flags | flag)
    })
}

/// What is known of each prefix of a bridge, by VLAN, given those on the link and those of which addresses
/// are handed out (`GOVERNED`, `FIRST_COME`). The kernel finds the longest that covers an
/// address, so each has what is said of those around it too.
pub fn prefixes(
    rules: &[Allow],
    on_link: &[(u16, IpNet)],
    governed: &[(u16, IpNet, u32)],
) -> Vec<(u16, IpNet, Prefix)> {
    let named = rules.iter().flat_map(|rule| rule.addresses.iter().map(|net| (rule.vlan, *net)));
    let vlans = on_link.iter().map(|(vlan, _)| *vlan);
    // IPv4 lies within IPv6 there: it has an entry of its own wherever that has one.
    let all = [IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())];
    let families = vlans.flat_map(|vlan| all.map(|all| (vlan, all)));
    let all: BTreeSet<_> = on_link.iter().copied().chain(named).chain(families).collect();
    let prefix = |vlan, net| Prefix {
        governed: governed_as(governed, vlan, net),
        ..prefix(rules, on_link, vlan, net)
    };
    all.into_iter().map(|(vlan, net)| (vlan, net, prefix(vlan, net))).collect()
}

/// How the addresses of a prefix are handed out: by the longest around it that says so.
fn governed_as(governed: &[(u16, IpNet, u32)], vlan: u16, net: IpNet) -> u32 {
    let around = governed.iter().filter(|(of, prefix, _)| *of == vlan && prefix.contains(&net));
    around.max_by_key(|(_, prefix, _)| prefix.prefix_len()).map_or(0, |(.., how)| *how)
}

fn prefix(rules: &[Allow], on_link: &[(u16, IpNet)], vlan: u16, net: IpNet) -> Prefix {
    let here = || on_link.iter().filter(|(of, _)| *of == vlan).map(|(_, net)| net);
    let on_link = if here().any(|around| around.contains(&net)) {
        ON_LINK
    } else if here().any(|other| other.addr().is_ipv4() == net.addr().is_ipv4()) {
        OFF_LINK
    } else {
        0
    };
    let mut prefix = Prefix { on_link, ..Prefix::default() };
    for (rule, number) in rules.iter().zip(0..) {
        if rule.vlan != vlan || !rule.addresses.iter().any(|around| around.contains(&net)) {
            continue;
        }
        let bit = 1 << number;
        match rule.kind {
            AllowKind::Vrrp => prefix.allow_virtual |= bit,
            AllowKind::Shared | AllowKind::Router | AllowKind::Proxy => prefix.allow |= bit,
        }
        // A router has its own addresses, and a proxy answers for those who do not.
        if matches!(rule.kind, AllowKind::Vrrp | AllowKind::Shared) {
            prefix.over_owners |= bit;
        }
        if rule.declares() {
            prefix.declared |= bit;
        }
    }
    prefix
}

/// The rule that leaves an address to those whom it names.
pub fn declared(rules: &[Allow], vlan: u16, address: IpAddr) -> Option<&Allow> {
    rules.iter().find(|rule| rule.declares() && rule.names(vlan, address))
}

/// Whether a station may claim an address by one of them, as the program has it.
pub fn allow(rules: &[Allow], vlan: u16, address: IpAddr, station: &Station) -> bool {
    rules.iter().any(|rule| {
        let kind = rule.kind != AllowKind::Vrrp || mac::is_virtual(station.mac.0);
        kind && rule.names(vlan, address) && rule.is_for(&station.interface)
    })
}

/// Whether a MAC may go from one of two ports to the other: a rule names both as places of the same
/// addresses (claims.md A17).
pub fn are_one_group(rules: &[Allow], one: &str, other: &str) -> bool {
    rules.iter().any(|rule| {
        let kind = matches!(rule.kind, AllowKind::Vrrp | AllowKind::Shared);
        kind && !rule.is_open() && rule.is_for(one) && rule.is_for(other)
    })
}

#[cfg(test)]
mod tests {
    use guard_ebpf::abi::{FIRST_COME, GOVERNED};

    use super::*;

    fn rule(kind: AllowKind, net: &str, ports: &[&str]) -> Allow {
        let ports = ports.iter().map(|port| (*port).into()).collect();
        let addresses = vec![net.parse().unwrap()];
        Allow { kind, vlan: 0, addresses, ports, by_exception: false }
    }

    #[test]
    fn a_prefix_has_what_is_said_of_those_around_it() {
        let rules = [
            rule(AllowKind::Proxy, "10.8.64.0/28", &["p"]),
            rule(AllowKind::Vrrp, "10.8.64.5/32", &[]),
            rule(AllowKind::Shared, "192.0.2.1/32", &["a", "b"]),
        ];
        let all = prefixes(&rules, &[(0, "10.8.64.0/24".parse().unwrap())], &[]);
        let of_net = |net: &str| {
            let net: IpNet = net.parse().unwrap();
            all.iter().find(|(_, known, _)| *known == net).map(|(_, _, prefix)| *prefix).unwrap()
        };
        let on_link = Prefix { on_link: ON_LINK, ..Prefix::default() };
        let off_link = Prefix { on_link: OFF_LINK, ..Prefix::default() };
        assert_eq!(of_net("10.8.64.0/24"), on_link);
        assert_eq!(of_net("10.8.64.0/28"), Prefix { allow: 1, ..on_link });
        assert_eq!(
            of_net("10.8.64.5/32"),
            Prefix { allow: 1, allow_virtual: 2, declared: 2, over_owners: 2, ..on_link }
        );
        assert_eq!(
            of_net("192.0.2.1/32"),
            Prefix { allow: 4, declared: 4, over_owners: 4, ..off_link }
        );
        // claims.md A14: what the segment has prefixes of, and what it has none of.
        assert_eq!((of_net("0.0.0.0/0"), of_net("::/0")), (off_link, Prefix::default()));
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn ipv4_is_not_taken_for_the_ipv6_that_it_lies_within() {
        let all = prefixes(&[], &[(5, "2001:db8::/64".parse().unwrap())], &[]);
        let known: Vec<_> = all
            .iter()
            .map(|(vlan, net, prefix)| (*vlan, net.to_string(), prefix.on_link))
            .collect();
        let expected = [("0.0.0.0/0", 0), ("::/0", OFF_LINK), ("2001:db8::/64", ON_LINK)];
        assert_eq!(known, expected.map(|(net, on_link)| (5, net.to_owned(), on_link)));
    }

    #[test]
    fn what_is_handed_out_is_governed_within_its_vlan() {
        let [pool, guests] = ["10.8.64.0/24", "10.8.0.0/16"].map(|net| net.parse().unwrap());
        let rules = [rule(AllowKind::Shared, "10.8.64.5/32", &[])];
        let governed = [(0, pool, GOVERNED), (0, guests, FIRST_COME)];
        let known: Vec<_> = prefixes(&rules, &[(0, pool), (0, guests), (5, pool)], &governed)
            .iter()
            .filter(|(_, net, _)| net.prefix_len() > 0)
            .map(|(vlan, net, prefix)| (*vlan, net.prefix_len(), prefix.governed))
            .collect();
        let expected = [(0, 16, FIRST_COME), (0, 24, GOVERNED), (0, 32, GOVERNED), (5, 24, 0)];
        assert_eq!(known, expected);
    }

    #[test]
    fn a_port_is_in_the_rules_that_name_it_or_none() {
        let rules = [
            rule(AllowKind::Router, "10.8.64.1/32", &["r"]),
            rule(AllowKind::Vrrp, "10.8.64.5/32", &[]),
        ];
        assert_eq!(of_port(&rules, "r"), (3, PORT_ALLOW_ROUTER | PORT_ALLOW_VIRTUAL));
        assert_eq!(of_port(&rules, "a"), (2, PORT_ALLOW_VIRTUAL));
    }

    #[test]
    fn a17_only_ports_that_are_named_are_a_group() {
        let rules = [
            rule(AllowKind::Shared, "10.8.64.5/32", &["a", "b"]),
            rule(AllowKind::Shared, "10.8.64.6/32", &[]),
            rule(AllowKind::Proxy, "10.8.64.6/32", &["a", "c"]),
        ];
        assert!(are_one_group(&rules, "a", "b"));
        assert!(!are_one_group(&rules, "a", "c"));
    }
}
