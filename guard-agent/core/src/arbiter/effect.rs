//! Effects: what the arbiter wants done, for its caller to carry out.

use std::{net::IpAddr, time::Duration};

use guard_ebpf::abi::{self, AddressKey, ChallengerKey, Live};

use super::{CloneSuspect, Seen};
use crate::{
    evidence::Station,
    incident::{Claimant, Sighting, Target},
    mac::Mac,
    segment::Segment,
};

/// What follows from an event. Effects are carried out in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Someone has an address: it is evidence.
    Claimed(Seen),
    /// The same of one who is in a conflict: it is evidence at once. What else follows, that the
    /// program tells of the owner's next frame too, may wait until those have been told who wait for
    /// news of conflicts.
    Contested(Seen),
    /// What a port claimed is no evidence any more.
    Withdraw(Segment, IpAddr, u32),
    /// An incident: it opens, or a claimant joins it.
    Sighted(Box<Sighted>),
    /// What a port claims of an address is part of an incident about the port from now on.
    Folded(Segment, IpAddr, u32),
    /// An address has gone from one claimant to another by right: to and fro, it is an incident.
    Moved {
        /// It is off the prefixes of its segment: see [`crate::incident::Incident::mild`].
        mild: bool,
        /// The segment.
        segment: Segment,
        /// The address.
        address: IpAddr,
        /// Who had it, and who has it.
        sides: Box<(Option<Claimant>, Claimant)>,
    },
    /// The holder of a disputed address still speaks.
    Spoke(Segment, IpAddr, Box<Claimant>),
    /// The program's live claimant of an address becomes this one. With `seen_ns` 0 the program tells
    /// when that is heard next.
    HoldInKernel(AddressKey, Live),
    /// The same, if the one before is on this port.
    HoldInstead(AddressKey, u32, Live),
    /// The program tells when the live claimant of an address is heard next, if it is this one.
    Listen(AddressKey, Station),
    /// The program tells when the declared owner of an address is heard next.
    ListenToOwner(Segment, IpAddr),
    /// A claimant of an incident is gone. Where that is over with it, the answer is
    /// [`Event::Cleared`](super::Event::Cleared).
    Gone {
        /// The segment.
        segment: Segment,
        /// What the incident is about.
        target: Target,
        /// The claimant's MAC, if one is known.
        mac: Option<Mac>,
        /// Its port, if one is known.
        ifindex: Option<u32>,
    },
    /// The program forgets the live claimant of an address, if it is on this port.
    ForgetInKernel(AddressKey, u32),
    /// The program forgets a challenger: if it claims once more, that is reported at once.
    ForgetChallenger(ChallengerKey),
    /// The program holds a MAC on this port: a frame with it from any other port is reported.
    HoldMac(AddressKey, Mac, u32),
    /// The program forgets on which port a MAC lives, if it is this one.
    ForgetMac(AddressKey, Mac, u32),
    /// A station is asked for an address, out of its own port and in its own VLAN, in the name of its
    /// bridge. Where that cannot be sent, the answer is [`Event::NotAsked`](super::Event::NotAsked).
    Probe {
        /// The bridge's MAC, and the host's address there, if it has one that the station would answer.
        from: (Mac, Option<IpAddr>),
        /// Who is asked.
        to: Station,
        /// For what.
        key: AddressKey,
    },
    /// An address is held back from allocation until then, on `CLOCK_MONOTONIC` (claims.md A05, N03).
    HoldBack(Segment, IpAddr, Duration),
    /// The host asks for one of its neighbours (see [`Neighbour`](super::Neighbour)).
    HostAsks {
        /// Out of this device.
        device: u32,
        /// Whom.
        address: IpAddr,
        /// At this MAC first.
        mac: Mac,
    },
    /// Two stations probe for one address: what the second has sent, and the first.
    ProbeRace(Seen, Station),
    /// The kernel is asked; the answer is an event.
    Recheck(Question),
    /// A line in the log.
    Remark(Remark, Seen),
}

/// A frame that claims what another has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighted {
    /// What was seen.
    pub sighting: Sighting,
    /// Where the program counts the challenger's frames, if it does.
    pub counted: Option<ChallengerKey>,
    /// When the frame was seen, on `CLOCK_MONOTONIC`.
    pub seen: Duration,
}

/// What only the kernel can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether the holder of an address is there still, and was heard since. Answered by
    /// [`Event::HolderRead`](super::Event::HolderRead).
    Holder {
        /// The address.
        key: AddressKey,
        /// Who had it.
        holder: Station,
        /// Who claims it.
        challenger: Station,
    },
    /// Whether the first port of a MAC exists still and can hold it, and with `both` whether the second
    /// exists. Answered by
    /// [`Event::PortsRead`](super::Event::PortsRead).
    Ports {
        /// Who is on two.
        suspect: Box<CloneSuspect>,
        /// Whether the second is asked for as well.
        both: bool,
    },
    /// Whether the bridge takes frames of a port by now. Answered by
    /// [`Event::PortRead`](super::Event::PortRead).
    Forwards(Box<abi::Event>),
}

/// What people may want to read in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// An undeclared address has another claimant now.
    Moved,
    /// A port has changed its MAC (claims.md A33).
    MacChanged,
    /// A rule's address is at another of its ports.
    MovedByRule,
    /// A claim has aged.
    Aged,
    /// A probe for an address that another has (claims.md A04).
    Probed,
    /// A neighbour advertisement with the router flag: the guest forwards (claims.md N09).
    Forwards,
    /// A port's station speaks for another (claims.md A10).
    Relays,
    /// A MAC has left its port for another (claims.md L01b).
    MacMoved,
    /// A sandbox claims its own address with its other interface, or with another MAC.
    OneSandbox,
    /// The host's own device beside the bridge has an address of the host on the segment (claims.md A21).
    HostBeside,
    /// As much waits because of this port as may; the claim is found again when the maps are read.
    LeftOut,
}

impl Remark {
    /// The line.
    pub fn text(self) -> &'static str {
        match self {
            Self::Moved => "an address has moved",
            Self::MacChanged => "a port has changed its MAC",
            Self::MovedByRule => "an address has moved by an allow rule",
            Self::Aged => "an address is not in use any more",
            Self::Probed => "probe for an address that is in use",
            Self::Forwards => "a port says that it forwards",
            Self::Relays => "a station of this port sends for another",
            Self::MacMoved => "a MAC has moved to another port",
            Self::OneSandbox => "a sandbox has an address of its own in two places",
            Self::HostBeside => {
                "a device of the host beside the bridge speaks for an address of the host"
            }
            Self::LeftOut => {
                "too many claims of this port wait to be decided; this one is left out"
            }
        }
    }
}
