//! What a reason for dropping frames rests on, and what would allow them.

use std::net::IpAddr;

use guard_ebpf::counters::DropReason;

use crate::mac::Mac;

/// The row of the rule book that a reason is from.
pub fn rule(reason: DropReason) -> &'static str {
    match reason.name() {
        "malformed" => "claims.md A22",
        "martian" => "claims.md A13",
        "unspecified" => "claims.md D02",
        "off_prefix" => "claims.md D05",
        "no_host_mac" => "claims.md A12",
        "violation" => "claims.md A03",
        "mismatch" => "claims.md A10",
        "snap" => "claims.md A26",
        "rarp" => "claims.md A23",
        "opaque" => "claims.md N13",
        "clone" => "claims.md L01",
        "bridge_mac" => "claims.md L02",
        "router" => "claims.md N09",
        "tagged" | "vlan" => "claims.md A27",
        "control" => "claims.md L04",
        "mac" => "claims.md A33",
        "mac_quota" => "claims.md L06",
        "ethertype" => "claims.md L05",
        "dhcp_server" => "claims.md D11",
        "probe" => "claims.md A04",
        "unowned" => "claims.md D01",
        "quota" => "claims.md N17",
        _ => "",
    }
}

/// What would allow the frames of a port that are dropped for a reason: a line of the configuration, or
/// a call. Empty where nothing does.
pub fn allowed_by(
    reason: DropReason,
    port: &str,
    mac: Option<Mac>,
    address: Option<IpAddr>,
) -> String {
    let class = |class: &str| format!("[[bridge]] drop without {class:?}");
    let on_port = |kind: &str| format!("[[bridge.allow]] kind = {kind:?}, ports = [{port:?}]");
    match (reason.name(), address) {
        ("violation", Some(address)) => format!(
            "[[bridge.allow]] kind = \"shared\", addresses = [\"{address}\"], ports = [{port:?}, …], \
             or a lease of the address that is bound to the port"
        ),
        ("off_prefix", _) => {
            format!(
                "[[bridge]] prefixes, or [[bridge.allow]] kind = \"router\", ports = [{port:?}]"
            )
        }
        ("unowned" | "quota", Some(address)) => {
            format!(
                "a lease of {address} that is bound to the port, or {}, addresses = [\"{address}\"]",
                on_port("address")
            )
        }
        ("mac", _) => {
            let mac = mac.map(|mac| format!(", macs = [\"{mac}\"]")).unwrap_or_default();
            format!("Bind, with the MAC that the port has now, or {}{mac}", on_port("macs"))
        }
        ("probe", Some(address)) => format!("a word of the owner of {address} since it was bound"),
        ("mac_quota", _) => format!("[quota] macs_per_port, or {}, any = …", on_port("macs")),
        ("router" | "dhcp_server", _) => on_port(reason.name()),
        ("control", _) => on_port("bpdu"),
        ("ethertype", _) => on_port("ethertypes"),
        ("malformed" | "martian" | "unspecified" | "snap" | "rarp", _) => class("malformed"),
        ("tagged" | "vlan", _) => on_port("tagged"),
        ("opaque", _) => class("opaque"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_an_address_says_who_could_have_it_and_a_clone_is_allowed_by_nothing() {
        let of = |reason| allowed_by(reason, "veth-a", None, Some([10, 8, 64, 2].into()));
        assert!(of(DropReason::Violation).contains("\"10.8.64.2\"], ports = [\"veth-a\", …]"));
        assert_eq!(of(DropReason::Clone), "");
        assert_eq!(
            of(DropReason::Control),
            "[[bridge.allow]] kind = \"bpdu\", ports = [\"veth-a\"]"
        );
        let mac = Some(Mac([2, 0, 0, 0, 0, 9]));
        let macs = allowed_by(DropReason::Mac, "veth-a", mac, None);
        assert!(macs.ends_with("ports = [\"veth-a\"], macs = [\"02:00:00:00:00:09\"]"), "{macs}");
    }
}
