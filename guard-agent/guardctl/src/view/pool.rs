use guard_api::proto;
use ipnet::IpNet;

use super::{or_dash, quantity, segment};
use crate::{
    output::{Screen, View},
    table::{Table, cell, plain},
};

impl View for proto::ListPoolsResponse {
    fn text(&self, screen: Screen) -> String {
        let headers = &["POOL", "BRIDGE", "PREFIX", "GATEWAY", "FREE", "OF", "USED"];
        let mut table = Table::new(headers, &["GATEWAY", "BRIDGE"]);
        for pool in &self.pools {
            let cells = [
                cell(&pool.name),
                cell(&segment(&pool.bridge, pool.vlan)),
                cell(&pool.prefix),
                cell(&pool.gateway),
                plain(size(pool, pool.free)),
                plain(size(pool, pool.capacity)),
                plain(bar(pool.utilisation)),
            ];
            let waits = pool.waits_for.iter().map(|awaited| {
                let (addresses, source) = (awaited.addresses, or_dash(&awaited.source));
                format!("{addresses} wait for {source}, see `guardctl status`")
            });
            let held_back = (pool.held_back > 0).then(|| {
                format!("{} are leased on the segment that it was on before", pool.held_back)
            });
            let notes = std::iter::once(states(pool)).chain(waits).chain(held_back);
            table.row(cells, notes.collect());
        }
        table.text(screen, "no pools")
    }
}

/// So many of a pool's addresses. The API counts no further than 64 bits go: what is more is nearly
/// all of the prefix.
pub(crate) fn size(pool: &proto::Pool, count: u64) -> String {
    let prefix = pool.prefix.parse::<IpNet>().ok();
    let bits = prefix.map_or(0, |net| net.max_prefix_len() - net.prefix_len());
    match bits {
        65.. if count == u64::MAX => format!("2^{bits}"),
        _ => quantity(count),
    }
}

/// How many of a pool's addresses are in which state.
pub(crate) fn states(pool: &proto::Pool) -> String {
    let proto::Pool { held, active, releasing, cooling, quarantined, .. } = pool;
    format!(
        "held {held}, active {active}, releasing {releasing}, cooling {cooling}, \
         quarantined {quarantined}"
    )
}

/// A bar of ten steps, and the number. What is not nothing is not said to be.
pub(crate) fn bar(share: f64) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let bar: String = (1..=10)
        .map(|step| if share * 10.0 + 0.5 >= f64::from(step) { '#' } else { ' ' })
        .collect();
    match share * 100.0 {
        percent if percent > 0.0 && percent < 0.5 => format!("[{bar}] <1%"),
        percent => format!("[{bar}] {percent:.0}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::shown, *};

    fn pools() -> proto::ListPoolsResponse {
        let pool = proto::Pool {
            name: "sandboxes".to_owned(),
            bridge: "rt0".to_owned(),
            vlan: 0,
            prefix: "10.8.64.0/24".to_owned(),
            gateway: "10.8.64.1".to_owned(),
            capacity: 253,
            free: 190,
            held: 1,
            active: 58,
            releasing: 2,
            cooling: 1,
            quarantined: 1,
            utilisation: 0.25,
            waits_for: vec![proto::AwaitedSource { source: "containerd".to_owned(), addresses: 2 }],
            held_back: 1,
        };
        proto::ListPoolsResponse { pools: vec![pool], ..Default::default() }
    }

    #[test]
    fn pools_as_text() {
        assert_eq!(
            shown(&pools()),
            "\
POOL       BRIDGE  PREFIX        GATEWAY    FREE  OF   USED
sandboxes  rt0     10.8.64.0/24  10.8.64.1  190   253  [###       ] 25%
  held 1, active 58, releasing 2, cooling 1, quarantined 1
  2 wait for containerd, see `guardctl status`
  1 are leased on the segment that it was on before
"
        );
        assert_eq!(bar(f64::NAN), "[          ] 0%");
        assert_eq!(bar(f64::MIN_POSITIVE), "[          ] <1%");
        assert_eq!(bar(1.0), "[##########] 100%");
    }

    #[test]
    fn ipv6_pools_as_text() {
        let mut pools = pools();
        let pool = |prefix: &str, capacity| proto::Pool {
            name: "sandboxes6".to_owned(),
            bridge: "br0".to_owned(),
            vlan: 4094,
            prefix: prefix.to_owned(),
            gateway: "2001:db8:aaaa:bbbb::1".to_owned(),
            capacity,
            free: capacity,
            ..proto::Pool::default()
        };
        let (whole, more) =
            (pool("2001:db8:aaaa:bbbb::/64", u64::MAX - 1), pool("2001:db8:aaaa::/48", u64::MAX));
        pools.pools.extend([whole, more]);
        assert_eq!(
            shown(&pools),
            "\
POOL       BRIDGE   PREFIX                  FREE OF   USED
sandboxes  rt0      10.8.64.0/24            190  253  [###       ] 25%
  gateway: 10.8.64.1
  held 1, active 58, releasing 2, cooling 1, quarantined 1
  2 wait for containerd, see `guardctl status`
  1 are leased on the segment that it was on before
sandboxes6 br0.4094 2001:db8:aaaa:bbbb::/64 2^64 2^64 [          ] 0%
  gateway: 2001:db8:aaaa:bbbb::1
  held 0, active 0, releasing 0, cooling 0, quarantined 0
sandboxes6 br0.4094 2001:db8:aaaa::/48      2^80 2^80 [          ] 0%
  gateway: 2001:db8:aaaa:bbbb::1
  held 0, active 0, releasing 0, cooling 0, quarantined 0
"
        );
    }
}
