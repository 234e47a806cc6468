//! What speaks against enforcing on a bridge, each finding with what settles it.

use std::{fmt::Write as _, net::IpAddr, sync::Arc};

use guard_ebpf::counters::DropReason;

use super::advice::allowed_by;
use crate::policy::{Allow, AllowKind};

/// Something that speaks against enforcing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// It has to be mended before; else an operator can pass over it.
    pub error: bool,
    /// What it is.
    pub what: String,
    /// What settles it.
    pub advice: String,
}

impl Finding {
    fn new(error: bool, what: String, advice: impl Into<String>) -> Self {
        Self { error, what, advice: advice.into() }
    }
}

/// What is kept of the frames of a port that break one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which rule.
    pub reason: DropReason,
    /// How many there were.
    pub frames: u64,
    /// The address that the first of them claims.
    pub address: Option<IpAddr>,
}

/// What is known of a port.
#[derive(Clone, Debug, Default)]
pub struct PortFacts {
    /// Its name.
    pub name: Arc<str>,
    /// Nobody has said what it leads to; what it is.
    pub unknown: Option<Arc<str>>,
    /// The program does not see every frame of it; why.
    pub uncovered: Option<Arc<str>>,
    /// The sandbox whose lease is bound to it.
    pub sandbox: Option<Arc<str>>,
    /// The addresses that are bound to it.
    pub addresses: Vec<IpAddr>,
    /// What of its frames breaks the rules of late.
    pub kept: Vec<Kept>,
}

/// What is known of a bridge.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Its rules.
    pub allow: &'a [Allow],
    /// Its ports.
    pub ports: &'a [PortFacts],
    /// Addresses of the host that are leased.
    pub leased_hosts: &'a [IpAddr],
    /// Why the leases are not known, where they are not.
    pub store: Option<&'a str>,
    /// The host takes its routes from router advertisements on the bridge.
    pub accepts_ra: bool,
    /// The bridge.
    pub bridge: &'a str,
    /// The ports that answer for many addresses.
    pub proxies: &'a [Arc<str>],
}

/// What speaks against enforcing: errors first.
pub fn preflight(facts: &Facts<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(why) = facts.store {
        found.push(Finding::new(
            true,
            format!("the leases are not known: {why}"),
            "guardctl recover",
        ));
    }
    for rule in facts.allow {
        if rule.is_open() && matches!(rule.kind, AllowKind::Shared | AllowKind::Vrrp) {
            let what = format!(
                "a rule of kind {:?} without ports opens its addresses to all",
                rule.kind.name()
            );
            found.push(Finding::new(true, what, "name its ports"));
        }
    }
    for address in facts.leased_hosts {
        let what = format!("{address} is the host's, and it is leased");
        found.push(Finding::new(true, what, format!("[[pool]] exclude = [\"{address}\"]")));
    }
    if facts.accepts_ra {
        let bridge = facts.bridge;
        let what = format!("the host takes routes from router advertisements on {bridge}");
        let advice = format!("sysctl net.ipv6.conf.{bridge}.accept_ra=0");
        found.push(Finding::new(false, what, advice));
    }
    for port in facts.proxies {
        let what = format!("port {port} answers for many addresses");
        let advice = format!("[[bridge.allow]] kind = \"proxy\", ports = [{port:?}]");
        found.push(Finding::new(false, what, advice));
    }
    for port in facts.ports {
        of_port(port, &mut found);
    }
    found.sort_by_key(|finding| !finding.error);
    found
}

fn of_port(port: &PortFacts, found: &mut Vec<Finding>) {
    let PortFacts { name, unknown, uncovered, sandbox, addresses, kept } = port;
    if let Some(what) = unknown {
        let what = format!("port {name}: {what}; nothing is dropped on it");
        let advice = format!("uplinks = [{name:?}], or access = [{name:?}]");
        found.push(Finding::new(false, what, advice));
    }
    if let Some(why) = uncovered {
        let what = format!("port {name}: its frames pass unjudged: {why}");
        found.push(Finding::new(false, what, "guardctl ports"));
    }
    // Whoever is behind it: one of these serves its neighbours.
    let serves = |reason| matches!(reason, DropReason::Router | DropReason::DhcpServer);
    let kept = kept.iter().filter(|kept| sandbox.is_some() || serves(kept.reason));
    let kept = kept.filter(|kept| !takes(kept, addresses));
    let of = sandbox.as_ref().map(|sandbox| format!(" of {sandbox}")).unwrap_or_default();
    for Kept { reason, frames, address } in kept {
        let mut what =
            format!("port {name}{of}: {frames} frames would be dropped for {}", reason.name());
        if let Some(address) = address {
            // Writing to a string does not fail.
            let _ = write!(what, ", of {address}");
        }
        found.push(Finding::new(false, what, allowed_by(*reason, name, None, *address)));
    }
}

/// Whether the frames take what is another's. That they drop is what enforcement is for: else whoever
/// steals could keep it from being switched on.
fn takes(Kept { reason, address, .. }: &Kept, own: &[IpAddr]) -> bool {
    match reason {
        DropReason::Clone | DropReason::BridgeMac => true,
        DropReason::Violation | DropReason::Mismatch | DropReason::Probe => {
            address.is_none_or(|address| !own.contains(&address))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Facts<'_> = Facts {
        allow: &[],
        ports: &[],
        leased_hosts: &[],
        store: None,
        accepts_ra: false,
        bridge: "rt0",
        proxies: &[],
    };

    #[test]
    fn each_finding_says_what_settles_it_and_errors_come_first() {
        let port = |name: &str| PortFacts { name: name.into(), ..PortFacts::default() };
        let unknown = PortFacts { unknown: Some("it is a physical device".into()), ..port("eth1") };
        let kept = Kept { reason: DropReason::Router, frames: 3, address: None };
        let bound =
            PortFacts { sandbox: Some("web-1".into()), kept: vec![kept], ..port("veth-web-1") };
        let other = Kept { reason: DropReason::Unowned, ..kept };
        let stranger = PortFacts { kept: vec![kept, other], ..port("veth-x") };
        let ports = [unknown, bound, stranger];
        let allow = |kind, ports: &[&str]| Allow {
            kind,
            vlan: 0,
            addresses: vec!["10.8.64.9/32".parse().unwrap()],
            ports: ports.iter().map(|port| Arc::from(*port)).collect(),
            by_exception: false,
        };
        let rules = [allow(AllowKind::Shared, &[]), allow(AllowKind::Vrrp, &["a"])];
        let hosts = [IpAddr::from([10, 8, 64, 1])];
        let facts = Facts { allow: &rules, ports: &ports, leased_hosts: &hosts, ..NOTHING };
        let found = preflight(&facts);
        let lines: Vec<_> = found.iter().map(|f| (f.error, &*f.what, &*f.advice)).collect();
        assert_eq!(
            lines,
            [
                (
                    true,
                    "a rule of kind \"shared\" without ports opens its addresses to all",
                    "name its ports"
                ),
                (
                    true,
                    "10.8.64.1 is the host's, and it is leased",
                    "[[pool]] exclude = [\"10.8.64.1\"]"
                ),
                (
                    false,
                    "port eth1: it is a physical device; nothing is dropped on it",
                    "uplinks = [\"eth1\"], or access = [\"eth1\"]"
                ),
                (
                    false,
                    "port veth-web-1 of web-1: 3 frames would be dropped for router",
                    "[[bridge.allow]] kind = \"router\", ports = [\"veth-web-1\"]"
                ),
                (
                    false,
                    "port veth-x: 3 frames would be dropped for router",
                    "[[bridge.allow]] kind = \"router\", ports = [\"veth-x\"]"
                ),
            ]
        );
    }

    #[test]
    fn a_host_that_hears_routers_and_a_port_that_answers_for_others_are_named() {
        let proxies = ["veth-p".into()];
        let found = preflight(&Facts { accepts_ra: true, proxies: &proxies, ..NOTHING });
        let advice: Vec<_> = found.iter().map(|finding| &*finding.advice).collect();
        assert_eq!(
            advice,
            [
                "sysctl net.ipv6.conf.rt0.accept_ra=0",
                "[[bridge.allow]] kind = \"proxy\", ports = [\"veth-p\"]"
            ]
        );
    }

    #[test]
    fn what_a_bound_port_takes_from_others_does_not_speak_against_enforcing() {
        let [own, other] = [2, 3].map(|last| IpAddr::from([10, 8, 64, last]));
        let kept = |reason, address| Kept { reason, frames: 1, address };
        let found = |kept: Vec<Kept>| {
            let (name, sandbox) = ("veth-a".into(), Some("a".into()));
            let ports =
                [PortFacts { name, sandbox, addresses: vec![own], kept, ..PortFacts::default() }];
            preflight(&Facts { ports: &ports, ..NOTHING }).len()
        };
        let thefts = [
            (DropReason::Violation, Some(other)),
            (DropReason::Violation, None),
            (DropReason::Clone, Some(own)),
            (DropReason::BridgeMac, None),
            (DropReason::Probe, Some(other)),
        ];
        assert_eq!(found(thefts.map(|(reason, address)| kept(reason, address)).into()), 0);
        // Its own address, with another MAC than its binding's.
        assert_eq!(found(vec![kept(DropReason::Violation, Some(own))]), 1);
        assert_eq!(found(vec![kept(DropReason::Unowned, Some(other))]), 1);
    }

    #[test]
    fn where_all_is_well_nothing_is_found_and_without_leases_nothing_is_enforced() {
        assert_eq!(preflight(&NOTHING), []);
        let found = preflight(&Facts { store: Some("it is damaged"), ..NOTHING });
        assert!(found[0].error && found[0].what.contains("damaged"));
    }
}
