//! The cases of `tests/cases/*.toml`, for every runner. The format is in `tests/cases/README.md`.

mod frame;
mod outcome;

use std::{fs, net::Ipv4Addr, path::Path};

use guard_ebpf::abi::{
    AddressKey, Live, OWNED_GATEWAY, OWNED_HOST, OWNED_LEASED, OWNED_MAC, OWNED_PORT, Owned,
    PORT_ACCESS, PORT_UPLINK, Port, STRENGTH_ASSERT, STRENGTH_USE,
};
use serde::Deserialize;

pub use self::{frame::Frame, outcome::Outcome};

/// The port that the frame comes from: the loopback of any namespace, which test runs use.
pub const HERE: u32 = 1;
/// Any other port.
pub const ELSEWHERE: u32 = 77;
/// The bridge of both.
pub const BRIDGE: u32 = 9;

/// One case: a frame, what is known before it, and what comes of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The row of the rule book.
    pub row: String,
    /// Unique within the file.
    pub name: String,
    /// The case that differs little and alarms, by name, unless this one does.
    pub twin: Option<String>,
    /// Why `BPF_PROG_TEST_RUN` cannot carry the frame, where it cannot.
    pub skip_test_run: Option<String>,
    /// The frame.
    pub frame: Frame,
    /// The kind of the port that it comes from.
    #[serde(default)]
    pub port: Kind,
    /// The VLAN of the port's untagged frames.
    #[serde(default)]
    pub pvid: u16,
    /// The address that `owned` and `live` are about; default: the one that the frame names.
    pub address: Option<Ipv4Addr>,
    /// Who owns it.
    pub owned: Option<OwnedBefore>,
    /// Who is live with it.
    pub live: Option<LiveBefore>,
    /// The prefixes of the segment.
    #[serde(default = "prefixes")]
    pub prefixes: Vec<(Ipv4Addr, u8)>,
    /// What comes of it.
    #[serde(default)]
    pub expect: Outcome,
}

fn prefixes() -> Vec<(Ipv4Addr, u8)> {
    vec![(Ipv4Addr::new(10, 8, 64, 0), 24)]
}

/// The kind of a port.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A sandbox's.
    #[default]
    Access,
    /// To other hosts.
    Uplink,
}

/// A port, seen from the frame.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Where {
    /// The frame's own.
    Here,
    /// Another.
    Elsewhere,
}

impl Where {
    const fn ifindex(self) -> u32 {
        match self {
            Self::Here => HERE,
            Self::Elsewhere => ELSEWHERE,
        }
    }
}

/// An entry of the map of owners.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnedBefore {
    #[serde(default)]
    gateway: bool,
    #[serde(default)]
    host: bool,
    mac: Option<String>,
    port: Option<Where>,
    /// Absent: never.
    seen_ms_ago: Option<u64>,
}

/// An entry of the map of live addresses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveBefore {
    mac: String,
    port: Where,
    #[serde(default)]
    seen_ms_ago: u64,
    /// By default as by an ARP frame.
    #[serde(default)]
    used: bool,
}

impl Case {
    /// Every case of every file, with the file's name.
    pub fn all() -> Vec<(String, Self)> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            case: Vec<Case>,
        }
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases");
        let mut cases = Vec::new();
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).unwrap();
                let file: File = toml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
                cases.extend(file.case.into_iter().map(|case| (name.clone(), case)));
            }
        }
        assert!(!cases.is_empty(), "no cases in {}", dir.display());
        cases
    }

    /// The agent's word on the port.
    pub const fn port(&self) -> Port {
        let kind = match self.port {
            Kind::Access => PORT_ACCESS,
            Kind::Uplink => PORT_UPLINK,
        };
        let pvid = self.pvid;
        Port { bridge: BRIDGE, bridge_slot: 0, port_slot: 0, pvid, kind, reserved: 0 }
    }

    /// The key of `owned` and `live`.
    pub fn key(&self) -> AddressKey {
        let address = self.address.or_else(|| self.frame.address());
        let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        AddressKey::new(BRIDGE, self.pvid, address.into())
    }

    /// The entry of the map of owners.
    pub fn owned(&self, now_ns: u64) -> Option<Owned> {
        let OwnedBefore { gateway, host, mac, port, seen_ms_ago } = self.owned.as_ref()?;
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        let reserved = *gateway || *host;
        Some(Owned {
            generation: u64::from(!reserved),
            seen_ns: seen_ms_ago.map_or(0, |ms| now_ns - ms * 1_000_000),
            ifindex: port.map_or(0, Where::ifindex),
            mac: mac.as_deref().map_or([0; 6], frame::mac),
            flags: flag(!reserved, OWNED_LEASED)
                | flag(*gateway, OWNED_GATEWAY)
                | flag(*host, OWNED_HOST)
                | flag(mac.is_some(), OWNED_MAC)
                | flag(port.is_some(), OWNED_PORT),
            reserved: 0,
        })
    }

    /// The entry of the map of live addresses.
    pub fn live(&self, now_ns: u64) -> Option<Live> {
        let LiveBefore { mac, port, seen_ms_ago, used } = self.live.as_ref()?;
        let seen_ns = now_ns - seen_ms_ago * 1_000_000;
        Some(Live {
            first_ns: seen_ns,
            seen_ns,
            ifindex: port.ifindex(),
            mac: frame::mac(mac),
            strength: if *used { STRENGTH_USE } else { STRENGTH_ASSERT },
            reserved: [0; 5],
        })
    }
}
