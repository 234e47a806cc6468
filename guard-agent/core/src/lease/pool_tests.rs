use proptest::prelude::*;

use super::*;

fn spec(prefix: &str) -> PoolSpec {
    PoolSpec::new("p", Segment::new("br0", 0), prefix.parse().unwrap())
}

fn pool(prefix: &str) -> Pool {
    Pool::new(spec(prefix)).unwrap()
}

#[test]
fn sizes_follow_rfc_3021_4291_and_6164() {
    for (prefix, capacity, gateway) in [
        ("10.8.64.0/24", 253, Some("10.8.64.1")),
        ("10.8.64.77/24", 253, Some("10.8.64.1")),
        ("10.8.64.0/30", 1, Some("10.8.64.1")),
        ("10.8.64.0/31", 1, Some("10.8.64.0")),
        ("10.8.64.7/32", 1, None),
        ("10.8.0.0/16", 65_533, Some("10.8.0.1")),
        ("fd00::/127", 1, Some("fd00::")),
        ("fd00::/126", 2, Some("fd00::1")),
        ("fd00::9/128", 1, None),
        ("fd00::/64", (1 << 64) - 2, Some("fd00::1")),
        ("fc00::/7", (1 << 121) - 2, Some("fc00::1")),
    ] {
        let pool = pool(prefix);
        assert_eq!(pool.capacity(), capacity, "{prefix}");
        assert_eq!(pool.gateway(), gateway.map(|g| g.parse().unwrap()), "{prefix}");
    }
}

#[test]
fn the_last_address_of_an_ipv6_prefix_is_a_host_and_the_first_is_not() {
    let pool = pool("fd00::/120");
    assert_eq!(pool.standing("fd00::ff".parse().unwrap()), Standing::Allocatable);
    assert_eq!(pool.standing("fd00::".parse().unwrap()), Standing::Reserved);
    assert_eq!(pool.standing("fd00::100".parse().unwrap()), Standing::Outside);
    assert_eq!(pool.standing("10.0.0.1".parse().unwrap()), Standing::Outside);
}

#[test]
fn where_there_is_no_gateway_the_first_host_address_is_handed_out() {
    let pool = Pool::new(PoolSpec { gateway: Gateway::None, ..spec("10.8.64.0/24") }).unwrap();
    assert_eq!((pool.gateway(), pool.capacity()), (None, 254));
    assert_eq!(pool.standing("10.8.64.1".parse().unwrap()), Standing::Allocatable);
    // Nor has it one when it is made anew from what is said of it.
    assert_eq!(Pool::new(pool.spec().clone()).unwrap(), pool);
}

#[test]
fn a_gateway_outside_the_prefix_or_on_the_network_address_is_refused() {
    for gateway in ["10.9.0.1", "10.8.64.0", "10.8.64.255", "fd00::1"] {
        let spec =
            PoolSpec { gateway: Gateway::Is(gateway.parse().unwrap()), ..spec("10.8.64.0/24") };
        assert!(matches!(Pool::new(spec), Err(PoolError::Gateway { .. })), "{gateway}");
    }
}

#[test]
fn prefixes_without_hosts_are_refused() {
    for prefix in [
        "224.0.0.0/24",
        "127.0.0.0/8",
        "0.0.0.0/0",
        "240.0.0.0/8",
        "ff02::/64",
        "fe80::/64",
        "::1/128",
        "::ffff:10.0.0.0/104",
        "::/0",
    ] {
        assert!(matches!(Pool::new(spec(prefix)), Err(PoolError::NotUnicast { .. })), "{prefix}");
    }
}

#[test]
fn exclusions_may_overlap_each_other_and_the_edges() {
    let exclude = ["10.8.64.0/28", "10.8.64.10-10.8.64.20", "10.8.64.250-10.8.65.9", "fd00::1"];
    let exclude = exclude.iter().map(|e| e.parse().unwrap()).collect();
    let pool = Pool::new(PoolSpec { exclude, ..spec("10.8.64.0/24") }).unwrap();
    assert_eq!(pool.capacity(), 250 - 21);
    assert_eq!(pool.standing("10.8.64.1".parse().unwrap()), Standing::Reserved);
    assert_eq!(pool.standing("10.8.64.12".parse().unwrap()), Standing::Excluded);
    assert_eq!(pool.standing("10.8.64.21".parse().unwrap()), Standing::Allocatable);
}

proptest! {
    #[test]
    fn standing_and_capacity_agree_address_by_address(
        base in any::<u32>(), len in 20u8..=32, gateway in prop::option::of(0u32..4096),
        holes in prop::collection::vec((0u32..4096, 0u32..64), 0..4),
    ) {
        let base = 0x0a00_0000 | (base & 0x00ff_ffff);
        let net = ipnet::Ipv4Net::new(base.into(), len).unwrap().trunc();
        let first = u32::from(net.network());
        let at = |offset: u32| IpAddr::V4(first.saturating_add(offset).into());
        let exclude = holes.iter()
            .map(|(from, width)| format!("{}-{}", at(*from), at(from + width)).parse().unwrap())
            .collect::<Vec<Exclusion>>();
        let spec = PoolSpec {
            gateway: gateway.map(at).map_or(Gateway::FirstHost, Gateway::Is), exclude: exclude.clone(), ..spec(&net.to_string())
        };
        let Ok(pool) = Pool::new(spec) else { return Ok(()) };
        let mut count = 0u128;
        for n in first..=u32::from(net.broadcast()) {
            let address = IpAddr::V4(n.into());
            let hole = exclude.iter().any(|e| (e.first()..=e.last()).contains(&address));
            let edge = len < 31 && (n == first || n == u32::from(net.broadcast()));
            let want = match () {
                () if edge || pool.gateway() == Some(address) => Standing::Reserved,
                () if hole => Standing::Excluded,
                () => Standing::Allocatable,
            };
            prop_assert_eq!(pool.standing(address), want);
            count += u128::from(want == Standing::Allocatable);
        }
        prop_assert_eq!(pool.capacity(), count);
    }
}
