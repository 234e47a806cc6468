//! What an incident is.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Target;
use crate::{mac::Mac, owner::Owner, segment::Segment, time::Now};

/// An incident about a port closes after so long without such a frame.
const PORT_QUIET: Duration = Duration::from_secs(600);

/// The kinds, the worst last: an incident has the worst that it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// An address in a pool is live and nobody's.
    Unowned,
    /// A port says more about addresses that nobody owns than its quota lets it.
    Flood,
    /// An entry of a source cannot be read.
    Inventory,
    /// A port claims the addresses of many (claims.md A19b).
    Proxy,
    /// A port sends what cannot be read to its end (claims.md A29, N12, N13).
    Opaque,
    /// A port that is no router's advertises one, or redirects (claims.md N09).
    Router,
    /// Another program is before guard's on a port.
    Coverage,
    /// An address went back and forth (claims.md A35).
    Flap,
    /// Two claimants of one address.
    Duplicate,
    /// One MAC on two ports.
    Clone,
    /// A claim on the gateway's or another host address.
    Gateway,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Unowned,
        Self::Flood,
        Self::Inventory,
        Self::Proxy,
        Self::Opaque,
        Self::Router,
        Self::Coverage,
        Self::Flap,
        Self::Duplicate,
        Self::Clone,
        Self::Gateway,
    ];

    /// Those that are about a bridge, or about none.
    pub fn about(bridge: &str) -> impl Iterator<Item = Self> {
        let none = bridge.is_empty();
        Self::ALL.into_iter().filter(move |kind| (*kind == Self::Inventory) == none)
    }

    /// The word for it in JSON, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::Flood => "flood",
            Self::Proxy => "proxy",
            Self::Opaque => "opaque",
            Self::Router => "router",
            Self::Coverage => "coverage",
            Self::Unowned => "unowned",
            Self::Flap => "flap",
            Self::Duplicate => "duplicate",
            Self::Clone => "clone",
            Self::Gateway => "gateway",
        }
    }

    /// Whether it is about a port, whatever the address.
    pub fn is_of_port(self) -> bool {
        matches!(
            self,
            Self::Flood | Self::Proxy | Self::Opaque | Self::Router | Self::Coverage
        )
    }

    /// How bad it is, unless it is [`Incident::mild`].
    pub fn severity(self) -> Severity {
        match self {
            Self::Unowned => Severity::Info,
            Self::Inventory
            | Self::Flood
            | Self::Proxy
            | Self::Opaque
            | Self::Router
            | Self::Coverage
            | Self::Flap
            | Self::Duplicate
            | Self::Clone => Severity::Warning,
            Self::Gateway => Severity::Critical,
        }
    }
}

/// How bad an incident is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nobody is hurt yet.
    Info,
    /// One address is at risk, or one port is hostile.
    Warning,
    /// Every sandbox on the segment is.
    Critical,
}

impl Severity {
    /// The word for it in JSON and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What a claimant is in an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The declared owner, the gateway or the host.
    Owner,
    /// Claims what a declared owner, the gateway or the host has.
    Impostor,
    /// Claims an address without a declared owner.
    Claimant,
}

impl Role {
    /// The word for it in JSON and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Impostor => "impostor",
            Self::Claimant => "claimant",
        }
    }
}

/// One side of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimant {
    /// What it is.
    pub role: Role,
    /// Its MAC; an owner may have declared none.
    pub mac: Option<Mac>,
    /// Its port; an owner may have declared none.
    pub interface: Option<Arc<str>>,
    /// Its port's ifindex.
    pub ifindex: Option<u32>,
    /// Who is known to be behind the port.
    pub owner: Option<Owner>,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// On `CLOCK_BOOTTIME`, when it was last seen.
    pub last: Duration,
    /// Frames that the kernel counted; 0 for an owner, who is not counted.
    pub frames: u64,
    /// Its port is gone.
    pub gone: bool,
}

impl Claimant {
    /// Only a source tells of it.
    pub fn is_listed(&self) -> bool {
        let Self { owner, mac, ifindex, interface, .. } = self;
        owner.is_some() && mac.is_none() && ifindex.is_none() && interface.is_none()
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        // Of whom only the inventory tells, only the name is known.
        let seen = self.mac.is_some() || self.ifindex.is_some();
        self.mac == other.mac
            && self.ifindex == other.ifindex
            && (seen || self.owner == other.owner)
    }
}

/// A frame that claims what another has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The segment.
    pub segment: Segment,
    /// What is claimed.
    pub target: Target,
    /// How bad.
    pub kind: Kind,
    /// It hurts nobody: see [`Incident::mild`].
    pub mild: bool,
    /// Who has it; none for the gateway and the host, who have no port.
    pub holder: Option<Claimant>,
    /// Who sent the frame.
    pub challenger: Claimant,
    /// What is wrong, as in [`Incident::detail`]; none where it is as before.
    pub detail: Option<Arc<str>>,
}

/// An incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Grows with every incident of this agent.
    pub id: u64,
    /// The segment.
    pub segment: Segment,
    /// What is claimed.
    pub target: Target,
    /// What is wrong, where that is not said by the kind and the claimants.
    #[serde(default)]
    pub detail: Arc<str>,
    /// The worst that was seen.
    pub kind: Kind,
    /// Two have an address that is off the segment's prefixes, and so nobody's here (claims.md A14).
    #[serde(default)]
    pub mild: bool,
    /// All sides, who had the address first.
    pub claimants: Vec<Claimant>,
    /// How often the address went back to one who had had it.
    pub flaps: u32,
    /// When it opened.
    pub first_seen: Timestamp,
    /// The last frame of a challenger.
    pub last_seen: Timestamp,
    /// When it closed.
    pub closed_at: Option<Timestamp>,
    /// Until when nobody is to be alerted of it.
    pub silenced_until: Option<Timestamp>,
    /// The same on `CLOCK_BOOTTIME`; none if an earlier boot wrote it.
    #[serde(default)]
    pub silence_ends: Option<Duration>,
    /// Somebody was notified of it. What opens under a silence is reported when that ends, if it lasts.
    #[serde(default = "told")]
    pub told: bool,
}

/// Before there were silences, everything was.
fn told() -> bool {
    true
}

impl Incident {
    pub(super) fn new(id: u64, (segment, target): (Segment, Target), kind: Kind, now: Now) -> Self {
        Self {
            id,
            segment,
            target,
            detail: Arc::from(""),
            kind,
            mild: false,
            claimants: Vec::new(),
            flaps: 0,
            first_seen: now.wall,
            last_seen: now.wall,
            closed_at: None,
            silenced_until: None,
            silence_ends: None,
            told: true,
        }
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self.kind {
            Kind::Duplicate | Kind::Flap if self.mild => Severity::Info,
            kind => kind.severity(),
        }
    }

    /// Takes in how bad a sighting is. True if that is worse than what was known.
    pub(super) fn worsen(&mut self, kind: Kind, mild: bool) -> bool {
        let worse = kind > self.kind || (self.mild && !mild);
        self.kind = self.kind.max(kind);
        self.mild &= mild;
        worse
    }

    /// It is silenced no more.
    pub(super) fn speak(&mut self) {
        (self.silenced_until, self.silence_ends) = (None, None);
    }

    /// Counts a claimant's frame. True if it is new here.
    pub(super) fn join(&mut self, claimant: Claimant, now: Now) -> bool {
        self.last_seen = now.wall;
        if self.spoke(&claimant) {
            return false;
        }
        // A port that tries MAC after MAC fills nothing: the last of its MACs stands for all that
        // come after it.
        let of_port = |known: &&mut Claimant| known.ifindex == claimant.ifindex;
        let many = self.claimants.len() >= Self::MAX_CLAIMANTS
            || self.claimants.iter_mut().filter(of_port).count() >= Self::MAX_MACS;
        if !many {
            self.claimants.push(claimant);
        } else if let Some(known) = self.claimants.iter_mut().rfind(of_port) {
            known.last_seen = claimant.last_seen;
            known.last = claimant.last;
            known.frames = known.frames.saturating_add(claimant.frames);
            known.gone = false;
        }
        !many
    }

    /// Notes that a claimant was seen again. False if it is not one of the known.
    pub(super) fn spoke(&mut self, claimant: &Claimant) -> bool {
        let known = self.claimants.iter_mut().find(|known| known.is(claimant));
        if let Some(known) = known {
            known.last_seen = claimant.last_seen;
            known.last = claimant.last;
            known.frames = known.frames.max(claimant.frames);
            known.gone = false;
            return true;
        }
        false
    }

    /// The most claimants that are told apart.
    const MAX_CLAIMANTS: usize = 8;
    /// And those of them that are behind one port, or behind none.
    pub(super) const MAX_MACS: usize = 4;

    /// How many sides the dispute still has. An owner is one as long as its port exists, one that a
    /// source lists as long as it does, unless it is on the wire as well, and those who are not listed
    /// always are: the gateway and the host, and everyone else on the bridge of a port that floods it.
    /// What is live and nobody's ends with its quarantine, or with its claimant's port, and not by
    /// silence; what cannot be read ends when its source says so.
    pub(super) fn disputants(&self, quiet: Duration, now: Now) -> usize {
        if self.kind == Kind::Inventory {
            return 2;
        }
        let quiet = if self.kind.is_of_port() { PORT_QUIET } else { quiet };
        let unowned = self.kind == Kind::Unowned;
        let lasts = |claimant: &&Claimant| {
            let silent = now.boot.saturating_sub(claimant.last) >= quiet;
            let stays = unowned || claimant.role == Role::Owner || claimant.is_listed();
            !claimant.gone && (stays || !silent)
        };
        let (listed, seen): (Vec<_>, Vec<_>) =
            self.claimants.iter().filter(lasts).partition(|claimant| claimant.is_listed());
        let unseen = |claimant: &&&Claimant| seen.iter().all(|seen| seen.owner != claimant.owner);
        seen.len()
            + listed.iter().filter(unseen).count()
            + usize::from(
                self.kind.is_of_port() || matches!(self.kind, Kind::Unowned | Kind::Gateway),
            )
    }
}
