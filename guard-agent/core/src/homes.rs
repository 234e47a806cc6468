//! Where gateways are at home that are neither the host's nor behind an uplink: routers that are guests
//! (claims.md A20). A bit for each of them in the ports that are named for it.

use std::sync::Arc;

/// The most gateways of a bridge that have ports of their own.
pub const MAX_HOMES: usize = u16::BITS as usize;

/// The bits of the gateways of a bridge, by the ports that are named for each; 0 where none are, and any
/// uplink is its home.
pub fn of_gateways<'a>(homes: impl IntoIterator<Item = &'a [Arc<str>]>) -> Vec<u16> {
    let mut named = 0_u32;
    let mut bit = |ports: &[Arc<str>]| {
        if ports.is_empty() {
            return 0;
        }
        named += 1;
        1_u16.checked_shl(named - 1).unwrap_or(0)
    };
    homes.into_iter().map(&mut bit).collect()
}

/// The bits of the gateways that are at home on a port.
pub fn of_port<'a>(homes: impl IntoIterator<Item = &'a [Arc<str>]>, interface: &str) -> u16 {
    let homes: Vec<_> = homes.into_iter().collect();
    let bits = of_gateways(homes.iter().copied());
    let own = homes.into_iter().zip(bits);
    let own = own.filter(|(ports, _)| ports.iter().any(|name| matches(name, interface)));
    own.fold(0, |all, (_, bit)| all | bit)
}

/// Whether a name fits a pattern, in which `*` stands for any text and `?` for any character.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => name.is_empty(),
        Some('*') => {
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.into_iter().any(|at| matches(rest.as_str(), &name[at..]))
        }
        Some(wanted) => {
            let mut name = name.chars();
            let fits = name.next().is_some_and(|is| wanted == '?' || wanted == is);
            fits && matches(rest.as_str(), name.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_its_pattern_and_no_other() {
        for (pattern, name, fits) in [
            ("veth-r", "veth-r", true),
            ("veth-r", "veth-router", false),
            ("veth-r*", "veth-router", true),
            ("*-r?", "veth-r1", true),
            ("*-r?", "veth-r", false),
            ("*", "", true),
            ("", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_port_has_the_bits_of_the_gateways_that_are_at_home_there() {
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>();
        let homes = [names(&["r*"]), names(&[]), names(&["s", "r2"])];
        let homes = || homes.iter().map(Vec::as_slice);
        assert_eq!(of_gateways(homes()), [1, 0, 2]);
        let ports = ["r1", "r2", "s", "t"].map(|port| of_port(homes(), port));
        assert_eq!(ports, [1, 3, 2, 0]);
    }
}
