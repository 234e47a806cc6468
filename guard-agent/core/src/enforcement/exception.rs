//! What a port may do besides what its bindings say, and what that comes to in the kernel's maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
    sync::Arc,
};

use guard_ebpf::{
    abi::{
        EXCEPT_OWNED, EXCEPT_PROXY, EXCEPT_UNOWNED, EXCEPT_VIRTUAL, STATION_BOUND, STATION_EXCEPTED,
    },
    counters::DropReason,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    enforcement::Class,
    homes::matches,
    mac::{Mac, MacError},
};

/// What an exception is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExceptionKind {
    /// Further addresses or prefixes, but for those that another has.
    Address,
    /// Addresses that go from port to port, with any MAC of each.
    Shared,
    /// The same with the MACs of these virtual routers.
    Vrrp,
    /// Further MACs, but for those that are bound to another port. Their addresses are judged.
    Macs,
    /// MACs that are on several ports, with the addresses that are bound to them.
    Group,
    /// A router: it advertises itself, redirects, and forwards for others.
    Router,
    /// It answers for addresses that nobody has declared.
    Proxy,
    /// A DHCP server.
    DhcpServer,
    /// A bridge: spanning tree and its kin, queries of multicast.
    Bpdu,
    /// VLAN tags.
    Tagged,
    /// Neither ARP nor IP.
    Ethertypes,
}

impl ExceptionKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Address,
        Self::Shared,
        Self::Vrrp,
        Self::Macs,
        Self::Group,
        Self::Router,
        Self::Proxy,
        Self::DhcpServer,
        Self::Bpdu,
        Self::Tagged,
        Self::Ethertypes,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Shared => "shared",
            Self::Vrrp => "vrrp",
            Self::Macs => "macs",
            Self::Group => "group",
            Self::Router => "router",
            Self::Proxy => "proxy",
            Self::DhcpServer => "dhcp_server",
            Self::Bpdu => "bpdu",
            Self::Tagged => "tagged",
            Self::Ethertypes => "ethertypes",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The class of frames that it is about.
    fn class(self) -> Option<Class> {
        match self {
            Self::Router => Some(Class::Router),
            Self::DhcpServer => Some(Class::DhcpServer),
            Self::Bpdu => Some(Class::Control),
            Self::Tagged => Some(Class::Tagged),
            Self::Ethertypes => Some(Class::Ethertype),
            _ => None,
        }
    }

    /// The `EXCEPT_*` bits of its addresses.
    fn bits(self) -> u32 {
        match self {
            Self::Address => EXCEPT_UNOWNED,
            Self::Shared => EXCEPT_UNOWNED | EXCEPT_OWNED,
            Self::Vrrp => EXCEPT_VIRTUAL,
            Self::Proxy => EXCEPT_UNOWNED | EXCEPT_PROXY,
            _ => 0,
        }
    }
}

/// A MAC, or all that begin with the same three octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Macs {
    /// One.
    One(Mac),
    /// Those of a vendor, by its three octets.
    Vendor([u8; 3]),
}

impl fmt::Display for Macs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(mac) => mac.fmt(f),
            Self::Vendor([a, b, c]) => write!(f, "{a:02x}:{b:02x}:{c:02x}"),
        }
    }
}

impl FromStr for Macs {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let error = match text.parse() {
            Ok(mac) => return Ok(Self::One(mac)),
            Err(error) => error,
        };
        let Mac([a, b, c, ..]) = format!("{text}:00:00:00").parse().map_err(|_| error)?;
        Ok(Self::Vendor([a, b, c]))
    }
}

impl Serialize for Macs {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Macs {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The most addresses, MACs and virtual routers of one exception, each.
pub const MAX_NAMED: usize = 64;
/// The most MACs of `any`.
pub const MAX_ANY: u16 = 1000;

/// What a port may do besides.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Exception {
    /// What it is for.
    pub kind: ExceptionKind,
    /// The VLAN of the addresses, 0 for untagged.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vlan: u16,
    /// Addresses or prefixes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNet>,
    /// MACs, or the first three octets of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<Macs>,
    /// So many MACs, whichever they are; 0: only those that are named.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub any: u16,
    /// Ids of virtual routers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vrids: Vec<u8>,
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

impl Exception {
    /// One of a kind that names nothing yet.
    pub fn new(kind: ExceptionKind) -> Self {
        let (addresses, macs, vrids) = Default::default();
        Self { kind, vlan: 0, addresses, macs, any: 0, vrids }
    }

    /// What is wrong with it: it has no effect, or names what has none.
    ///
    /// # Errors
    /// That, in words.
    pub fn check(&self) -> Result<(), String> {
        use ExceptionKind as K;
        let Self { kind, vlan, addresses, macs, any, vrids } = self;
        let name = kind.name();
        let wants_addresses = matches!(kind, K::Address | K::Shared | K::Vrrp | K::Proxy);
        let has_part = [
            (wants_addresses, !addresses.is_empty(), "addresses"),
            (matches!(kind, K::Macs | K::Group), !macs.is_empty(), "macs"),
            (*kind == K::Macs, *any != 0, "any"),
            (*kind == K::Vrrp, !vrids.is_empty(), "vrids"),
        ];
        for (takes, has, what) in has_part {
            if has && !takes {
                return Err(format!("{what} have no effect in an exception of kind {name:?}"));
            }
        }
        if *vlan > 4094 {
            return Err(format!("vlan = {vlan} is not a VLAN id (0, or 1 to 4094)"));
        }
        let missing = |what: &str| Err(format!("it allows nothing; name {what}"));
        match kind {
            _ if wants_addresses && addresses.is_empty() => return missing("the addresses"),
            K::Vrrp if vrids.is_empty() => return missing("the vrids"),
            K::Macs if macs.is_empty() && *any == 0 => return missing("the MACs, or how many"),
            K::Group if macs.is_empty() => return missing("the MACs"),
            K::Group if macs.iter().any(|macs| matches!(macs, Macs::Vendor(_))) => {
                return missing("each MAC of the group in full");
            }
            _ => {}
        }
        let is_station = |macs: &Macs| match macs {
            Macs::One(mac) => mac.is_host(),
            Macs::Vendor([first, ..]) => first & 1 == 0,
        };
        if let Some(macs) = macs.iter().find(|macs| !is_station(macs)) {
            return Err(format!("no host has the MAC {macs}"));
        }
        if vrids.contains(&0) {
            return Err("0 is no virtual router's id".to_owned());
        }
        if *any > MAX_ANY {
            return Err(format!("any = {any}: it can be {MAX_ANY} MACs at most"));
        }
        match [addresses.len(), macs.len(), vrids.len()].into_iter().max() {
            Some(most) if most > MAX_NAMED => {
                Err(format!("it names {most}, it can name {MAX_NAMED}"))
            }
            _ => Ok(()),
        }
    }
}

/// An exception, and the ports that have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The bridge; any if there is none.
    pub bridge: Option<Arc<str>>,
    /// Patterns of the ports' names.
    pub ports: Vec<Arc<str>>,
    /// Patterns of sandboxes that have a binding there.
    pub sandboxes: Vec<Arc<str>>,
    /// What these may do.
    pub exception: Exception,
}

impl Grant {
    /// Whether a port has it, given the sandboxes that are bound to it.
    pub fn is_for<'a>(
        &self,
        bridge: &str,
        port: &str,
        mut sandboxes: impl Iterator<Item = &'a str>,
    ) -> bool {
        let named = |patterns: &[Arc<str>], name: &str| {
            patterns.iter().any(|pattern| matches(pattern, name))
        };
        self.bridge.as_ref().is_none_or(|own| **own == *bridge)
            && (named(&self.ports, port) || sandboxes.any(|name| named(&self.sandboxes, name)))
    }
}

/// What all exceptions of a port come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// A bit for each reason for which its frames do not drop.
    pub spared: u32,
    /// A router is behind it.
    pub router: bool,
    /// How many MACs it may have, whichever; 0 for those that are named.
    pub any: u16,
    /// The MACs that are named, each with its `STATION_*`.
    pub macs: BTreeMap<Mac, u32>,
    /// The same of vendors.
    pub vendors: BTreeSet<[u8; 3]>,
    /// The addresses by VLAN, each with its `EXCEPT_*` bits, and those of all prefixes around it.
    pub addresses: BTreeMap<(u16, IpNet), u32>,
}

impl Effects {
    /// Takes one in. Of a group, only its MACs: whose addresses they are is for [`Self::share`].
    pub fn add(&mut self, exception: &Exception) {
        let Exception { kind, vlan, addresses, macs, any, vrids } = exception;
        for reason in kind.class().into_iter().flat_map(Class::reasons) {
            self.spared |= reason.bit();
        }
        if *kind == ExceptionKind::Router {
            self.router = true;
            self.spared |= DropReason::OffPrefix.bit();
        }
        if *any != 0 {
            self.any = self.any.max(*any);
            self.spared |= DropReason::Mac.bit();
        }
        for macs in macs {
            match macs {
                Macs::One(mac) => _ = self.macs.entry(*mac).or_insert(STATION_EXCEPTED),
                Macs::Vendor(vendor) => _ = self.vendors.insert(*vendor),
            }
        }
        for vrid in vrids {
            // IPv4 and IPv6 (RFC 9568 §7.3); CARP has the first.
            for family in [1, 2] {
                let mac = Mac([0, 0, 0x5e, 0, family, *vrid]);
                self.macs.entry(mac).or_insert(STATION_EXCEPTED);
            }
        }
        for net in addresses {
            *self.addresses.entry((*vlan, *net)).or_default() |= kind.bits();
        }
    }

    /// A MAC of a group is here as well as on its other ports, with these addresses.
    pub fn share(&mut self, mac: Mac, addresses: impl IntoIterator<Item = (u16, IpAddr)>) {
        self.macs.insert(mac, STATION_BOUND);
        for (vlan, address) in addresses {
            *self.addresses.entry((vlan, address.into())).or_default() |= EXCEPT_OWNED;
        }
    }

    /// Gives each prefix what is said of those around it: the kernel finds the longest.
    pub fn complete(&mut self) {
        let all = self.addresses.clone();
        for ((vlan, net), bits) in &mut self.addresses {
            let around = all.iter().filter(|((of, around), _)| of == vlan && around.contains(net));
            *bits = around.fold(0, |all, (_, bits)| all | bits);
        }
    }

    /// The bits of an address.
    pub fn of(&self, vlan: u16, address: IpAddr) -> u32 {
        let around = self.addresses.iter();
        let around = around.filter(|((of, net), _)| *of == vlan && net.contains(&address));
        around.fold(0, |all, (_, bits)| all | bits)
    }

    /// Whether it may claim what another has, with this MAC.
    pub fn allow(&self, vlan: u16, address: IpAddr, mac: Mac) -> bool {
        let bits = self.of(vlan, address);
        let is_virtual = self.macs.contains_key(&mac) && guard_ebpf::mac::is_virtual(mac.0);
        bits & (EXCEPT_OWNED | EXCEPT_PROXY) != 0 || (bits & EXCEPT_VIRTUAL != 0 && is_virtual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exception(kind: ExceptionKind, addresses: &[&str]) -> Exception {
        let addresses = addresses.iter().map(|net| net.parse().unwrap()).collect();
        Exception { addresses, ..Exception::new(kind) }
    }

    #[test]
    fn what_has_no_effect_is_said() {
        for kind in ExceptionKind::ALL {
            assert_eq!(ExceptionKind::parse(kind.name()), Some(kind));
            let alone = Exception::new(kind).check();
            let classes = kind.class().is_some();
            assert_eq!(alone.is_ok(), classes, "{kind:?}: {alone:?}");
            if classes {
                let error = exception(kind, &["10.8.64.9/32"]).check().unwrap_err();
                assert!(error.contains("no effect"), "{error}");
            }
        }
        let any = Exception { any: MAX_ANY + 1, ..Exception::new(ExceptionKind::Macs) };
        assert!(any.check().is_err());
        let group = "01:00:5e:00:00:01".parse().unwrap();
        let group = Exception { macs: vec![group], ..Exception::new(ExceptionKind::Macs) };
        assert!(group.check().unwrap_err().contains("no host"));
        assert!("02:42".parse::<Macs>().is_err());
        assert_eq!("02:42:AC".parse::<Macs>().unwrap().to_string(), "02:42:ac");
    }

    #[test]
    fn an_address_has_what_is_said_of_the_prefixes_around_it() {
        let mut effects = Effects::default();
        effects.add(&exception(ExceptionKind::Address, &["10.8.0.0/16"]));
        effects.add(&exception(ExceptionKind::Shared, &["10.8.64.5/32"]));
        effects.complete();
        let [wide, one] = ["10.8.1.1", "10.8.64.5"].map(|address| address.parse().unwrap());
        assert_eq!(effects.of(0, wide), EXCEPT_UNOWNED);
        assert_eq!(effects.of(0, one), EXCEPT_UNOWNED | EXCEPT_OWNED);
        assert_eq!(effects.of(5, one), 0);
        assert_eq!(effects.addresses[&(0, "10.8.64.5/32".parse().unwrap())], 3);
        // A wide prefix never covers what has an owner.
        assert!(!effects.allow(0, wide, Mac([2, 0, 0, 0, 0, 1])));
    }

    #[test]
    fn a_virtual_router_has_its_own_macs_and_no_others() {
        let vrrp =
            Exception { vrids: vec![7], ..exception(ExceptionKind::Vrrp, &["10.8.64.5/32"]) };
        vrrp.check().unwrap();
        let mut effects = Effects::default();
        effects.add(&vrrp);
        let address = "10.8.64.5".parse().unwrap();
        for (mac, may) in [
            ("00:00:5e:00:01:07", true),
            ("00:00:5e:00:02:07", true),
            ("00:00:5e:00:01:08", false),
            ("02:00:00:00:00:01", false),
        ] {
            assert_eq!(effects.allow(0, address, mac.parse().unwrap()), may, "{mac}");
        }
    }

    #[test]
    fn a_grant_is_for_the_ports_and_the_sandboxes_that_it_names() {
        let grant = Grant {
            bridge: Some("rt0".into()),
            ports: vec!["veth-lb-*".into()],
            sandboxes: vec!["router?".into()],
            exception: Exception::new(ExceptionKind::Router),
        };
        let is_for = |bridge, port, sandbox| grant.is_for(bridge, port, [sandbox].into_iter());
        assert!(is_for("rt0", "veth-lb-1", "a") && is_for("rt0", "veth-a", "router1"));
        assert!(!is_for("rt1", "veth-lb-1", "a") && !is_for("rt0", "veth-a", "router"));
    }
}
