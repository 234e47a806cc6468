use guard_api::proto;
use serde::Serialize;

use super::{segment, text};
use crate::{
    output::{Screen, View},
    table::{Table, cell, plain},
};

/// A pool, with how many of its addresses are in which state.
#[derive(Debug, Serialize)]
pub struct Pool {
    pub name: Option<String>,
    pub bridge: Option<String>,
    pub vlan: u32,
    pub prefix: Option<String>,
    pub gateway: Option<String>,
    pub capacity: u64,
    pub free: u64,
    pub held: u64,
    pub active: u64,
    pub releasing: u64,
    pub cooling: u64,
    pub quarantined: u64,
    pub utilisation: f64,
    pub waits_for: Vec<Awaited>,
    pub held_back: u64,
}

/// A source that addresses wait for.
#[derive(Debug, Serialize)]
pub struct Awaited {
    pub source: Option<String>,
    pub addresses: u64,
}

impl From<proto::AwaitedSource> for Awaited {
    fn from(awaited: proto::AwaitedSource) -> Self {
        Self { source: text(awaited.source), addresses: awaited.addresses }
    }
}

impl From<proto::Pool> for Pool {
    fn from(pool: proto::Pool) -> Self {
        Self {
            name: text(pool.name),
            bridge: text(pool.bridge),
            vlan: pool.vlan,
            prefix: text(pool.prefix),
            gateway: text(pool.gateway),
            capacity: pool.capacity,
            free: pool.free,
            held: pool.held,
            active: pool.active,
            releasing: pool.releasing,
            cooling: pool.cooling,
            quarantined: pool.quarantined,
            utilisation: pool.utilisation,
            waits_for: pool.waits_for.into_iter().map(Awaited::from).collect(),
            held_back: pool.held_back,
        }
    }
}

/// All pools.
#[derive(Debug, Serialize)]
pub struct Pools {
    pub pools: Vec<Pool>,
}

impl From<proto::ListPoolsResponse> for Pools {
    fn from(response: proto::ListPoolsResponse) -> Self {
        Self { pools: response.pools.into_iter().map(Pool::from).collect() }
    }
}

impl View for Pools {
    fn text(&self, screen: Screen) -> String {
        let headers = &["POOL", "BRIDGE", "PREFIX", "GATEWAY", "FREE", "OF", "USED"];
        let mut table = Table::new(headers, &["PREFIX", "GATEWAY"]);
        for pool in &self.pools {
            let cells = [
                cell(pool.name.as_deref()),
                cell(Some(&segment(pool.bridge.as_deref(), pool.vlan))),
                cell(pool.prefix.as_deref()),
                cell(pool.gateway.as_deref()),
                plain(pool.free),
                plain(pool.capacity),
                plain(bar(pool.utilisation)),
            ];
            let waits = pool.waits_for.iter().map(|Awaited { source, addresses }| {
                let source = source.as_deref().unwrap_or("-");
                format!("{addresses} wait for {source}, see `guardctl status`")
            });
            let held_back = (pool.held_back > 0).then(|| {
                format!("{} are leased on the segment that it was on before", pool.held_back)
            });
            table
                .row(cells, std::iter::once(pool.states()).chain(waits).chain(held_back).collect());
        }
        table.text(screen, "no pools")
    }
}

impl Pool {
    /// How many addresses are in which state.
    pub fn states(&self) -> String {
        format!(
            "held {}, active {}, releasing {}, cooling {}, quarantined {}",
            self.held, self.active, self.releasing, self.cooling, self.quarantined
        )
    }
}

/// Ten steps of a bar, and the number.
pub fn bar(share: f64) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let bar: String = (1..=10)
        .map(|step| if share * 10.0 + 0.5 >= f64::from(step) { '#' } else { '.' })
        .collect();
    format!("{bar} {:.0}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{golden, shown},
        *,
    };

    fn pools() -> Pools {
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
        Pools::from(proto::ListPoolsResponse { pools: vec![pool], ..Default::default() })
    }

    #[test]
    fn pools_as_json() {
        golden(
            &pools(),
            r#"{"pools":[{"name":"sandboxes","bridge":"rt0","vlan":0,"prefix":"10.8.64.0/24",
            "gateway":"10.8.64.1","capacity":253,"free":190,"held":1,"active":58,"releasing":2,
            "cooling":1,"quarantined":1,"utilisation":0.25,"waits_for":[{"source":"containerd","addresses":2}],"held_back":1}]}"#,
        );
    }

    #[test]
    fn pools_as_text() {
        assert_eq!(
            shown(&pools()),
            "\
POOL       BRIDGE  PREFIX        GATEWAY    FREE  OF   USED
sandboxes  rt0     10.8.64.0/24  10.8.64.1  190   253  ###....... 25%
  held 1, active 58, releasing 2, cooling 1, quarantined 1
  2 wait for containerd, see `guardctl status`
  1 are leased on the segment that it was on before
"
        );
        assert_eq!(bar(f64::NAN), ".......... 0%");
        assert_eq!(bar(1.0), "########## 100%");
    }
}
