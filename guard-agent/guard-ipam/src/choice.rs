//! Which pools a configuration means, and which address of each a container asks for.
//!
//! `host-local` allocates from the ranges of its configuration. Here the agent's pools decide: a
//! configuration names them, or its ranges do by their subnets. What a configuration says beyond
//! that is checked, so that an address is never one that it does not allow.

use std::net::IpAddr;

use guard_api::proto::{Lease, Pool};
use ipnet::IpNet;

use crate::{
    call::Call,
    conf::{Ipam, NetConf, Range},
    error::Error,
};

/// What to ask one pool for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The pool's name.
    pub pool: String,
    /// The address, where a certain one is asked for.
    pub address: Option<IpAddr>,
}

/// The addresses that a container asks for, from all the places where it can: `CNI_ARGS`, `args`
/// and `runtimeConfig`.
///
/// # Errors
/// One is not an address.
pub(crate) fn wishes(conf: &NetConf, call: &Call) -> Result<Vec<IpAddr>, Error> {
    let args = call.args.get("IP").map(|list| list.split(',')).into_iter().flatten();
    // As in host-local, no address is no wish.
    let args = args.filter(|text| !text.is_empty());
    let others = conf.args.cni.ips.iter().chain(&conf.runtime_config.ips).map(String::as_str);
    let mut wishes = Vec::new();
    for text in args.chain(others).map(str::trim) {
        let with_length = || text.parse::<IpNet>().map(|net| net.addr());
        let address = text
            .parse()
            .or_else(|_| with_length())
            .map_err(|_| Error::Conf(format!("the address asked for, {text:?}, is none")))?;
        if !wishes.contains(&address) {
            wishes.push(address);
        }
    }
    Ok(wishes)
}

/// Whether the agent's list of pools has to be known for [`choose`].
pub(crate) fn needs_pools(ipam: &Ipam, wishes: &[IpAddr]) -> bool {
    ipam.pools().is_empty() || !ipam.ranges().is_empty() || !wishes.is_empty()
}

/// What to ask for. `known` are the agent's pools, where [`needs_pools`].
///
/// # Errors
/// The configuration names no pool, or contradicts the one that it names; an address is asked for
/// that no pool has.
pub(crate) fn choose(
    conf: &NetConf,
    ipam: &Ipam,
    wishes: &[IpAddr],
    known: &[Pool],
) -> Result<Vec<Ask>, Error> {
    let named = ipam.pools();
    let pools = if named.is_empty() { by_ranges(conf, ipam, known)? } else { named };
    let mut asks: Vec<_> = pools.into_iter().map(|pool| Ask { pool, address: None }).collect();
    let unknown = |ask: &&Ask| !known.iter().any(|pool| pool.name == ask.pool);
    if let Some(ask) = asks.iter().find(unknown).filter(|_| needs_pools(ipam, wishes)) {
        return Err(Error::Conf(format!(
            "the agent has no pool {:?}; `guardctl pools` lists them",
            ask.pool
        )));
    }
    for set in ipam.ranges() {
        let fits = |ask: &Ask| set.iter().any(|range| has(known, &ask.pool, range));
        if !asks.iter().any(fits) {
            let subnets: Vec<_> = set.iter().map(|range| range.subnet.to_string()).collect();
            return Err(Error::Conf(format!(
                "ranges: {} is the prefix of none of the pools that ipam names",
                subnets.join(", ")
            )));
        }
    }
    for pool in known.iter().filter(|pool| asks.iter().any(|ask| ask.pool == pool.name)) {
        let mut ranges = ipam.ranges().iter().flatten();
        let of_it = |range: &&Range| has(known, &pool.name, range);
        if let Some(gateway) = ranges.find(of_it).and_then(|range| range.gateway)
            && gateway.to_string() != pool.gateway
        {
            return Err(Error::Conf(format!(
                "the gateway of pool {:?} is {:?}, and the configuration says {gateway}",
                pool.name, pool.gateway
            )));
        }
    }
    for &wish in wishes {
        let holds = |ask: &&mut Ask| prefix(known, &ask.pool).is_some_and(|p| p.contains(&wish));
        let Some(ask) = asks.iter_mut().find(holds) else {
            return Err(Error::Conf(format!("{wish} is asked for, and no pool has it")));
        };
        if let Some(other) = ask.address {
            return Err(Error::Conf(format!(
                "{wish} and {other} are asked for, and pool {:?} gives one",
                ask.pool
            )));
        }
        if !allows(ipam, wish) {
            return Err(Error::Conf(format!(
                "{wish} is asked for, and is not between rangeStart and rangeEnd"
            )));
        }
        ask.address = Some(wish);
    }
    for ask in asks.iter().filter(|ask| ask.address.is_none()) {
        judge(ipam, ask, known)?;
    }
    Ok(asks)
}

/// Whether a pool gives what the configuration's ranges allow, as far as can be said before it has given
/// anything: a pool that has more addresses than they gives others too.
fn judge(ipam: &Ipam, ask: &Ask, known: &[Pool]) -> Result<(), Error> {
    let Some(pool) = known.iter().find(|pool| pool.name == ask.pool) else { return Ok(()) };
    let of_it = |range: &&Range| has(known, &pool.name, range);
    let sizes: Vec<_> = ipam.ranges().iter().flatten().filter(of_it).map(size).collect();
    let all = sizes.iter().fold(0_u128, |sum, size| sum.saturating_add(*size));
    if sizes.is_empty() || u128::from(pool.capacity) <= all {
        return Ok(());
    }
    Err(Error::Conf(format!(
        "pool {:?} has {} addresses, and rangeStart and rangeEnd allow {all}: exclude in the agent's \
         configuration what this network is not to use",
        pool.name, pool.capacity
    )))
}

/// How many addresses a range has.
fn size(range: &Range) -> u128 {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let first = range.range_start.unwrap_or_else(|| range.subnet.network());
    let last = range.range_end.unwrap_or_else(|| range.subnet.broadcast());
    number(last).saturating_sub(number(first)).saturating_add(1)
}

/// Whether what was given is what the configuration's ranges allow.
///
/// # Errors
/// It is not: the pool has more than the ranges.
pub(crate) fn verify(ipam: &Ipam, lease: &Lease) -> Result<(), Error> {
    match lease.address.parse() {
        Ok(address) if !allows(ipam, address) => Err(Error::Conf(format!(
            "pool {:?} gave {address}, which is not between rangeStart and rangeEnd: exclude in \
             the agent's configuration what this network is not to use",
            lease.pool
        ))),
        _ => Ok(()),
    }
}

/// Whether the ranges of an address' subnet, if there are any, have it.
fn allows(ipam: &Ipam, address: IpAddr) -> bool {
    let within = |range: &Range| {
        range.range_start.is_none_or(|start| address >= start)
            && range.range_end.is_none_or(|end| address <= end)
    };
    let mut ranges = ipam.ranges().iter().flatten().filter(|r| r.subnet.contains(&address));
    ranges.next().is_none_or(|first| within(first) || ranges.any(within))
}

/// The pools whose prefixes the ranges name; where two have the same, the network's bridge tells.
fn by_ranges(conf: &NetConf, ipam: &Ipam, known: &[Pool]) -> Result<Vec<String>, Error> {
    let mut pools = Vec::new();
    for set in ipam.ranges() {
        let fits = |pool: &&Pool| set.iter().any(|range| has(known, &pool.name, range));
        let on_bridge = |pool: &&Pool| conf.bridge.as_deref().is_none_or(|b| b == pool.bridge);
        let mut found = known.iter().filter(fits).filter(on_bridge);
        let subnets: Vec<_> = set.iter().map(|range| range.subnet.to_string()).collect();
        let subnets = subnets.join(", ");
        match (found.next(), found.next()) {
            (Some(pool), None) => pools.push(pool.name.clone()),
            (None, _) => {
                return Err(Error::Conf(format!(
                    "ranges: no pool of the agent has the prefix {subnets}; `guardctl pools` lists \
                     them"
                )));
            }
            (Some(one), Some(two)) => {
                return Err(Error::Conf(format!(
                    "ranges: {subnets} is the prefix of the pools {:?} and {:?}; name one with \
                     \"pool\"",
                    one.name, two.name
                )));
            }
        }
    }
    if pools.is_empty() {
        return Err(Error::Conf("ipam names no \"pool\" and no \"ranges\"".to_owned()));
    }
    Ok(pools)
}

fn has(known: &[Pool], pool: &str, range: &Range) -> bool {
    prefix(known, pool) == Some(range.subnet.trunc())
}

fn prefix(known: &[Pool], pool: &str) -> Option<IpNet> {
    known.iter().find(|known| known.name == pool)?.prefix.parse::<IpNet>().ok().map(|p| p.trunc())
}
