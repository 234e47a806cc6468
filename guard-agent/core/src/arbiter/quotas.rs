//! Which of its quotas a port has used up, for people (claims.md, "Quotas" and "Budgets").

use std::{fmt::Write as _, net::IpAddr, sync::Arc};

use guard_ebpf::abi::{CHALLENGERS_PER_EVENT, PORT_UPLINK, Port, PortState};

/// What a port has used of its quotas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortUse {
    /// What was refused since it came.
    pub refused: u64,
    uplink: bool,
    /// Each: what it has, and what it may have. 0 is no bound.
    addresses: (u32, u32),
    frames: (u32, u32),
    events: (u32, u32),
    challengers: (u32, u32),
    macs: (u32, u32),
}

impl PortUse {
    /// From what the program counts of a port.
    pub fn new(port: &Port, state: &PortState) -> Self {
        let most = port.quota_events.saturating_mul(CHALLENGERS_PER_EVENT);
        Self {
            refused: state.refused,
            uplink: port.kind == PORT_UPLINK,
            addresses: (state.addresses, port.quota_addresses),
            frames: (state.frames, port.quota_frames),
            events: (state.events, port.quota_events),
            challengers: (state.challengers, most),
            macs: (state.macs, port.quota_macs),
        }
    }

    /// Which of them are used up, by their names in the configuration where they have one, and for which
    /// address that was found.
    pub(super) fn describe(&self, last: IpAddr) -> Arc<str> {
        let addresses = if self.uplink { "uplink_addresses" } else { "addresses_per_port" };
        let all = [
            (addresses, self.addresses),
            ("nd_per_second", self.frames),
            ("events a second", self.events),
            ("claims on what others have", self.challengers),
            ("macs_per_port", self.macs),
        ];
        let over = all.iter().filter(|(_, (has, most))| *most != 0 && has >= most);
        let over: Vec<_> =
            over.map(|(name, (has, most))| format!("{name} ({has} of {most})")).collect();
        let mut text = match &over[..] {
            [] => String::new(),
            over => format!("over {}: ", over.join(", ")),
        };
        let _ = write!(text, "{} frames were more than it may send", self.refused);
        if !last.is_unspecified() {
            let _ = write!(text, ", about {last} among others");
        }
        let _ = write!(text, "; {} source MACs", self.macs.0);
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;

    #[test]
    fn l06_a_flood_names_the_quotas_that_are_used_up() {
        let port = Port { quota_addresses: 16, quota_frames: 50, quota_macs: 64, ..Port::zeroed() };
        let address = IpAddr::from([10, 0, 0, 9]);
        let many = PortState { addresses: 16, refused: 4, macs: 2, ..PortState::default() };
        assert_eq!(
            &*PortUse::new(&port, &many).describe(address),
            "over addresses_per_port (16 of 16): 4 frames were more than it may send, about 10.0.0.9 \
             among others; 2 source MACs"
        );
        let macs = PortState { macs: 70, ..PortState::default() };
        let none = IpAddr::from([0; 16]);
        assert_eq!(
            &*PortUse::new(&port, &macs).describe(none),
            "over macs_per_port (70 of 64): 0 frames were more than it may send; 70 source MACs"
        );
    }
}
