//! Tables fit eighty columns, whatever the names in them: the longest of everything.

use guard_api::proto;

use super::{testing::shown, *};

const IPV6: &str = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff";

/// Sandboxes and identifiers have 1 to 253 characters.
fn long() -> String {
    "n".repeat(253)
}

/// IFNAMSIZ, less the end of the string.
fn interface() -> String {
    "veth3f2a90c1d4e".to_owned()
}

fn evidence() -> proto::Evidence {
    proto::Evidence {
        source: proto::Source::Inventory.into(),
        detail: long(),
        mac: "02:00:00:00:00:0a".to_owned(),
        interface: interface(),
        ..proto::Evidence::default()
    }
}

fn lease() -> proto::Lease {
    proto::Lease {
        address: IPV6.to_owned(),
        pool: long(),
        bridge: interface(),
        vlan: 4094,
        state: proto::LeaseState::Quarantined.into(),
        sandbox: long(),
        lifecycle: long(),
        key: long(),
        generation: u64::MAX,
        mac: "02:00:00:00:00:0a".to_owned(),
        interface: interface(),
        reason: long(),
        evidence: vec![evidence(); 4],
        holds: vec![long(), long()],
        ..proto::Lease::default()
    }
}

fn conflict() -> proto::Conflict {
    let claimant = proto::Claimant {
        role: proto::Role::Impostor.into(),
        mac: "02:00:00:00:00:0a".to_owned(),
        interface: interface(),
        sandbox: long(),
        frames: u64::MAX,
        ..proto::Claimant::default()
    };
    proto::Conflict {
        id: u64::MAX.to_string(),
        bridge: interface(),
        vlan: 4094,
        address: IPV6.to_owned(),
        kind: proto::ConflictKind::Duplicate.into(),
        severity: proto::Severity::Critical.into(),
        claimants: vec![claimant; 4],
        ..proto::Conflict::default()
    }
}

fn subnet() -> proto::Subnet {
    proto::Subnet {
        prefix: format!("{IPV6}/128"),
        id: long(),
        pool: long(),
        bridge: interface(),
        vlan: 4094,
        created_at: None,
        maker: None,
    }
}

fn source() -> proto::SourceStatus {
    proto::SourceStatus { name: "inventory".to_owned(), why: long(), ..Default::default() }
}

#[test]
fn leases_and_what_becomes_of_them_fit() {
    let leases = || vec![lease(); 2];
    shown(&proto::ListLeasesResponse { leases: leases(), ..Default::default() });
    let outcome = proto::Outcome::Releasing.into();
    shown(&proto::ReleaseResponse { outcome, leases: leases(), total_size: 2 });
    shown(&proto::ConfirmResponse { outcome, lease: Some(lease()) });
    shown(&Answer {
        dry_run: true,
        response: proto::ReleaseResponse { outcome, leases: leases(), total_size: 2 },
    });
    shown(&Answer {
        dry_run: false,
        response: proto::QuarantineResponse { outcome, leases: leases(), ..Default::default() },
    });
    let released = leases();
    shown(&Answer {
        dry_run: true,
        response: proto::GcResponse { released, unverifiable: leases(), ..Default::default() },
    });
    shown(&Holds::from(proto::ListLeasesResponse { leases: leases(), ..Default::default() }));
    let refused = proto::NotAdopted {
        address: IPV6.to_owned(),
        sandbox: long(),
        key: long(),
        reason: "ADDRESS_QUARANTINED".to_owned(),
        message: long(),
    };
    let adopted =
        proto::AdoptResponse { adopted: leases(), refused: vec![refused], ..Default::default() };
    shown(&Answer { dry_run: false, response: adopted });
    let pass = proto::ReconcileResponse {
        result: proto::PassResult::Blocked.into(),
        why: long(),
        silent: leases(),
        reaped: leases(),
        unverifiable: leases(),
        blocked: leases(),
        consent: "0badcafe".to_owned(),
        ..Default::default()
    };
    shown(&Answer { dry_run: true, response: pass });
}

#[test]
fn what_is_seen_fits() {
    // The one name that an administrator chooses; columns never wrap it.
    let pool = proto::Pool {
        name: "p".repeat(63),
        bridge: interface(),
        vlan: 4094,
        prefix: format!("{IPV6}/64"),
        gateway: IPV6.to_owned(),
        capacity: u64::MAX,
        free: u64::MAX,
        ..proto::Pool::default()
    };
    shown(&proto::ListPoolsResponse { pools: vec![pool], ..Default::default() });
    let port = proto::Port {
        interface: interface(),
        ifindex: u32::MAX,
        bridge: interface(),
        kind: proto::PortKind::Uplink.into(),
        covered: true,
        attach: proto::Attach::Clsact.into(),
        program_id: u32::MAX,
        frames: u64::MAX,
        addresses: u32::MAX,
        ..proto::Port::default()
    };
    shown(&proto::PortsResponse { ports: vec![port], ..Default::default() });
    let live = proto::LiveAddress {
        address: IPV6.to_owned(),
        bridge: interface(),
        vlan: 4094,
        mac: "02:00:00:00:00:0a".to_owned(),
        interface: interface(),
        evidence: vec![evidence(); 4],
        lease: Some(u64::MAX),
        sandbox: "3f2a90c1d4e5".repeat(3),
        inner_vlan: 4094,
    };
    shown(&proto::LiveResponse { live: vec![live], ..Default::default() });
    shown(&proto::ConflictsResponse { conflicts: vec![conflict()], ..Default::default() });
    let explanation = proto::Explanation {
        address: IPV6.to_owned(),
        pool: long(),
        bridge: interface(),
        vlan: 4094,
        lease: Some(lease()),
        evidence: vec![evidence()],
        next: long(),
        inner_vlan: 4094,
    };
    let (explanations, sources) = (vec![explanation], vec![source()]);
    shown(&proto::WhyResponse { explanations, sources, ..Default::default() });
}

#[test]
fn how_it_is_fits() {
    let degraded = proto::Degraded { what: long(), since: None, why: long() };
    let bridge = proto::BridgeStatus { name: interface(), ..Default::default() };
    shown(&proto::StatusResponse {
        degraded: vec![degraded],
        store: long(),
        sources: vec![source()],
        bridges: vec![bridge],
        ..proto::StatusResponse::default()
    });
    let disagreement = proto::Disagreement {
        between: "store".to_owned(),
        address: IPV6.to_owned(),
        bridge: interface(),
        vlan: 4094,
        what: long(),
    };
    shown(&proto::CheckResponse { disagreements: vec![disagreement], ..Default::default() });
    let recovered = proto::RecoverResponse {
        quarantined: vec![IPV6.to_owned(); 40],
        lost: vec![long()],
        moved_to: "/var/lib/guard/damaged-1866435632857088".to_owned(),
        ..proto::RecoverResponse::default()
    };
    shown(&Answer { dry_run: false, response: recovered });
    let name = proto::InterfaceName { name: interface(), id: long(), ..Default::default() };
    shown(&proto::ListInterfacesResponse { interfaces: vec![name], ..Default::default() });
    shown(&proto::ListSubnetsResponse { subnets: vec![subnet()], ..Default::default() });
}
