//! Whether bridges and pools are what they should be, and fit together.

use super::*;
use guard_ebpf::abi::MAX_BRIDGES;

pub(super) fn check_pools(
    sections: Vec<file::Pool>,
    bridges: &mut [Bridge],
) -> Result<Vec<Pool>, Fault> {
    let mut pools = Vec::with_capacity(sections.len());
    for (index, pool) in sections.into_iter().enumerate() {
        let key = |key| format!("pool.{index}.{key}");
        let name = pool.name.clone();
        let Some(on) = bridges.iter().position(|bridge| *bridge.name == *pool.bridge) else {
            let error = CheckError::BridgeUnknown { pool: name, bridge: pool.bridge };
            return Err(at(key("bridge"))(error));
        };
        if pool.vlan > 4094 {
            return Err(at(key("vlan"))(CheckError::Vlan { pool: name, vlan: pool.vlan }));
        }
        let ports: Vec<_> = pool.gateway_ports.iter().map(|port| Arc::from(&**port)).collect();
        let mut spec = pool
            .into_spec()
            .map_err(|source| CheckError::Exclusion { pool: name, source })
            .map_err(at(key("exclude")))?;
        spec.exclude.extend(taken(bridges, &spec.segment).map(Exclusion::from));
        let pool = Pool::new(spec).map_err(|error| {
            let wrong = match error {
                PoolError::Gateway { .. } => "gateway",
                PoolError::NoAttempts { .. } => "max_attempts",
                _ => "prefix",
            };
            at(key(wrong))(error)
        })?;
        if !ports.is_empty() {
            let homes = &mut bridges[on].homes;
            let wrong = |what: String| CheckError::GatewayPorts { pool: pool.name().clone(), what };
            let fault = at(key("gateway_ports"));
            let Some(address) = pool.gateway() else {
                return Err(fault(wrong("the pool has no gateway".to_owned())));
            };
            if homes.len() == MAX_HOMES {
                let what = format!("{MAX_HOMES} other pools of the bridge have some already");
                return Err(fault(wrong(what)));
            }
            homes.push(Home { vlan: pool.segment().vlan, address, ports });
        }
        pools.push(pool);
    }
    Ok(pools)
}

/// The pools whose prefixes have more than the bits of a network, which are left out.
pub(super) fn host_bits(sections: &[file::Pool]) -> Vec<String> {
    let cut = sections.iter().filter(|pool| pool.prefix != pool.prefix.trunc());
    let said = cut.map(|file::Pool { name, prefix, .. }| {
        let taken = prefix.trunc();
        format!("pool {name:?}: prefix {prefix} has host bits and is taken for {taken}")
    });
    said.collect()
}

/// Which of the two pools that do not go together is the later one, and what about it.
pub(super) fn second(pools: &[Pool], error: &PoolError) -> String {
    let last = |name: &Arc<str>| pools.iter().rposition(|pool| pool.name() == name).unwrap_or(0);
    match error {
        PoolError::Overlap { first, second, .. } => {
            format!("{}.prefix", last(first).max(last(second)))
        }
        PoolError::Name { pool } => format!("{}.name", last(pool)),
        PoolError::NotUnicast { .. } | PoolError::Gateway { .. } | PoolError::NoAttempts { .. } => {
            "0".to_owned()
        }
    }
}

pub(super) fn check_spans(conflict: &Conflict) -> Result<(), Fault> {
    let Conflict { live_window, quiet, flap_window, flap_count: _, grace: _ } = conflict;
    let spans = [("live_window", live_window), ("quiet", quiet), ("flap_window", flap_window)];
    match spans.into_iter().find(|(_, span)| span.is_zero()) {
        Some((key, _)) => Err(at(format!("conflict.{key}"))(CheckError::NoSpan { key })),
        None => Ok(()),
    }
}

/// What allow rules leave to those whom they name: no pool hands it out.
pub(super) fn taken<'a>(
    bridges: &'a [Bridge],
    segment: &'a Segment,
) -> impl Iterator<Item = IpNet> + 'a {
    let own = bridges.iter().filter(|bridge| bridge.name == segment.bridge);
    let rules = own.flat_map(|bridge| &bridge.allow);
    let rules = rules.filter(|rule| rule.vlan == segment.vlan && rule.declares());
    rules.flat_map(|rule| &rule.addresses).copied()
}

/// A gateway is everyone's: only ports that are named may claim it.
pub(super) fn check_gateways(bridges: &[Bridge], pools: &[Pool]) -> Result<(), Fault> {
    for pool in pools {
        let (segment, gateway) = (pool.segment(), pool.gateway());
        let Some(gateway) = gateway else { continue };
        let own = bridges.iter().enumerate().filter(|(_, bridge)| bridge.name == segment.bridge);
        for (at_bridge, bridge) in own {
            let open = |rule: &Allow| rule.is_open() && rule.names(segment.vlan, gateway);
            let Some(at_rule) = bridge.allow.iter().position(open) else { continue };
            let error = CheckError::Allow {
                bridge: segment.bridge.to_string(),
                kind: bridge.allow[at_rule].kind.name(),
                why: format!("{gateway} is a gateway; name the ports that may claim it"),
            };
            return Err(at(format!("bridge.{at_bridge}.allow.{at_rule}"))(error));
        }
    }
    Ok(())
}

pub(super) fn check_bridges(sections: Vec<file::Bridge>) -> Result<Vec<Bridge>, Fault> {
    match u32::try_from(sections.len()) {
        Ok(0) => return Err(at("bridge")(CheckError::NoBridge)),
        Ok(count) if count <= MAX_BRIDGES => {}
        _ => {
            let error = CheckError::TooManyBridges { count: sections.len(), most: MAX_BRIDGES };
            return Err(at(format!("bridge.{MAX_BRIDGES}"))(error));
        }
    }
    let mut bridges = Vec::<Bridge>::with_capacity(sections.len());
    for (index, section) in sections.into_iter().enumerate() {
        let file::Bridge { name, mode, strict, drop, uplinks, access, prefixes, allow } = section;
        let key = |key| format!("bridge.{index}.{key}");
        check_interface(&name).map_err(at(key("name")))?;
        for (setting, ports) in [("uplinks", &uplinks), ("access", &access)] {
            for (index, port) in ports.iter().enumerate() {
                check_interface(port).map_err(at(format!("{}.{index}", key(setting))))?;
            }
        }
        if let Some(index) = access.iter().position(|port| uplinks.contains(port)) {
            let error = CheckError::TwoKinds { bridge: name, port: access[index].clone() };
            return Err(at(format!("{}.{index}", key("access")))(error));
        }
        if bridges.iter().any(|bridge| *bridge.name == *name) {
            return Err(at(key("name"))(CheckError::BridgeTwice { bridge: name }));
        }
        let [uplinks, access] =
            [uplinks, access].map(|ports| ports.into_iter().map(Arc::from).collect());
        let allow = allow.into_iter().enumerate().map(|(index, section)| {
            let place = format!("{}.{index}", key("allow"));
            rules::allow(&name, mode, section).map_err(at(place))
        });
        let allow = allow.collect::<Result<Vec<_>, _>>()?;
        let exceptions = allow.iter().filter_map(|(_, grant)| grant.clone()).collect();
        let allow: Vec<_> = allow.into_iter().filter_map(|(rule, _)| rule).collect();
        if allow.len() > MAX_RULES {
            let error = CheckError::TooManyRules { bridge: name, count: allow.len() };
            return Err(at(format!("{}.{MAX_RULES}", key("allow")))(error));
        }
        let prefixes = prefixes.into_iter().enumerate().map(|(index, section)| {
            let place = format!("{}.{index}", key("prefixes"));
            rules::on_link(&name, section).map_err(at(place))
        });
        let prefixes = prefixes.collect::<Result<_, _>>()?;
        bridges.push(Bridge {
            name: name.into(),
            uplinks,
            access,
            prefixes,
            allow,
            exceptions,
            homes: Vec::new(),
            enforcement: Settings { mode, strict, hygiene: drop },
        });
    }
    Ok(bridges)
}

/// The kernel's own rule, `dev_valid_name` in `net/core/dev.c`.
pub(super) fn check_interface(name: &str) -> Result<(), CheckError> {
    let valid = (1..16).contains(&name.len())
        && ![".", ".."].contains(&name)
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if valid { Ok(()) } else { Err(CheckError::InterfaceName { name: name.to_owned() }) }
}
