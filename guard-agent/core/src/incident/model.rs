//! What an incident is.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Kind, Severity, Target};
use crate::{evidence::Station, mac::Mac, owner::Owner, segment::Segment, time::Now};

/// An incident about a port, or about an address that was declined, closes after so long without such
/// a frame.
const PORT_QUIET: Duration = Duration::from_secs(600);

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
    /// Its frames in this incident, as far as they are counted: an owner's are not.
    pub frames: u64,
    /// Of those, the ones that were dropped.
    #[serde(default)]
    pub dropped: u64,
    /// Its frames are dropped where they claim what another has.
    #[serde(default)]
    pub is_dropped: bool,
    /// What the kernel's own count of its frames was when it was last read: that goes on from one
    /// incident to the next.
    #[serde(default)]
    pub counter: u64,
    /// Its port is gone, it was asked and did not answer, or the address was handed over to another.
    pub gone: bool,
}

impl Claimant {
    /// A side that appears now, of whom no frame counts yet.
    pub fn new(role: Role, now: Now) -> Self {
        Self {
            role,
            mac: None,
            interface: None,
            ifindex: None,
            owner: None,
            first_seen: now.wall,
            last_seen: now.wall,
            last: now.boot,
            frames: 0,
            dropped: 0,
            is_dropped: false,
            counter: 0,
            gone: false,
        }
    }

    /// Only a source tells of it.
    pub fn is_listed(&self) -> bool {
        let Self { owner, mac, ifindex, interface, .. } = self;
        owner.is_some() && mac.is_none() && ifindex.is_none() && interface.is_none()
    }

    /// Who it is on the wire.
    pub fn station(&self) -> Option<Station> {
        let Self { mac, interface, ifindex, .. } = self;
        Some(Station { mac: (*mac)?, interface: interface.clone()?, ifindex: (*ifindex)? })
    }

    /// Takes in the kernel's count, which begins anew when the kernel forgets whom it counts.
    fn count(&mut self, counter: u64) {
        if counter != 0 {
            let before = if counter < self.counter { 0 } else { self.counter };
            self.add(counter - before);
            self.counter = counter;
        }
    }

    fn add(&mut self, frames: u64) {
        self.frames = self.frames.saturating_add(frames);
        if self.is_dropped {
            self.dropped = self.dropped.saturating_add(frames);
        }
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
    /// It hurts everyone: see [`Incident::critical`].
    pub critical: bool,
    /// Who has it; none for the gateway and the host, who have no port.
    pub holder: Option<Claimant>,
    /// Who sent the frame.
    pub challenger: Claimant,
    /// What is wrong, as in [`Incident::detail`]; none where it is as before.
    pub detail: Option<Arc<str>>,
    /// The holder was asked for it and does not answer, though it was heard of late (claims.md A34).
    pub unanswered: bool,
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
    /// The MAC that is on two ports is the gateway's (claims.md L01).
    #[serde(default)]
    pub critical: bool,
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
    /// The same on `CLOCK_BOOTTIME`; none if an earlier boot wrote it.
    #[serde(default)]
    pub closed: Option<Duration>,
    /// The first of the claimants was asked and has not answered since: it has probably left.
    #[serde(default)]
    pub unanswered: bool,
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
            critical: false,
            claimants: Vec::new(),
            flaps: 0,
            first_seen: now.wall,
            last_seen: now.wall,
            closed_at: None,
            closed: None,
            unanswered: false,
            silenced_until: None,
            silence_ends: None,
            told: true,
        }
    }

    /// Takes in how bad a sighting is. True if that is worse than what was known.
    pub(super) fn worsen(&mut self, kind: Kind, mild: bool, critical: bool) -> bool {
        let worse = kind > self.kind || (self.mild && !mild) || (critical && !self.critical);
        self.kind = self.kind.max(kind);
        self.mild &= mild;
        self.critical |= critical;
        worse
    }

    /// It is silenced no more.
    pub(super) fn speak(&mut self) {
        (self.silenced_until, self.silence_ends) = (None, None);
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        let severity = match self.kind {
            Kind::Duplicate | Kind::Flap if self.mild || self.unanswered => Severity::Info,
            Kind::Clone if self.critical => Severity::Critical,
            kind => kind.severity(),
        };
        // Nobody is hurt by what does not arrive; that somebody wants to be the gateway stays as bad.
        let less = self.is_dropped() && self.kind != Kind::Gateway;
        if less { severity.less() } else { severity }
    }

    /// The frames of all who claim what another has are dropped.
    pub fn is_dropped(&self) -> bool {
        let impostors = || self.claimants.iter().filter(|known| known.role == Role::Impostor);
        impostors().next().is_some() && impostors().all(|known| known.is_dropped)
    }

    /// Counts a claimant's frame. True if it is new here.
    pub(super) fn join(&mut self, claimant: Claimant, now: Now) -> bool {
        self.last_seen = now.wall;
        if self.spoke(&claimant).is_some() {
            return false;
        }
        // A port that tries MAC after MAC fills nothing: the last of its MACs stands for all that
        // come after it.
        let of_port = |known: &&Claimant| known.ifindex == claimant.ifindex;
        let full = self.claimants.len() >= Self::MAX_CLAIMANTS;
        let many = full || self.claimants.iter().filter(of_port).count() >= Self::MAX_MACS;
        // Those that are gone make room.
        let over = |known: &Claimant| known.gone && (full || of_port(&known));
        let over = self.claimants.iter().position(over).filter(|_| many);
        if let Some(over) = over {
            self.claimants.remove(over);
        }
        if !many || over.is_some() {
            let dropped = if claimant.is_dropped { claimant.frames } else { 0 };
            self.claimants.push(Claimant { dropped, ..claimant });
            self.answered(self.claimants.len() > 2);
            return true;
        }
        let of_port =
            |known: &&mut Claimant| known.ifindex == claimant.ifindex && known.role != Role::Owner;
        if let Some(known) = self.claimants.iter_mut().rfind(of_port) {
            known.last_seen = claimant.last_seen;
            known.last = claimant.last;
            known.is_dropped = claimant.is_dropped;
            known.add(claimant.frames);
            known.gone = false;
        }
        false
    }

    pub(super) fn knows(&self, claimant: &Claimant) -> bool {
        self.claimants.iter().any(|known| known.is(claimant))
    }

    /// Notes that a claimant was seen again. None if it is not one of the known, else whether the
    /// incident is worse for it: whoever was believed to have left is there.
    pub(super) fn spoke(&mut self, claimant: &Claimant) -> Option<bool> {
        let (at, known) =
            self.claimants.iter_mut().enumerate().find(|(_, known)| known.is(claimant))?;
        known.is_dropped = claimant.is_dropped;
        known.count(claimant.frames);
        let later = claimant.last > known.last;
        if later {
            if known.gone {
                // What it was may be over: an owner that comes back is none any more.
                (known.role, known.owner) = (claimant.role, claimant.owner.clone());
            }
            known.last_seen = claimant.last_seen;
            known.last = claimant.last;
            known.gone = false;
        }
        Some(self.answered(at == 0 && later))
    }

    /// Whether one who has the address is a side of it, since nobody has it by right.
    pub(super) fn is_open_to(&self, claimant: &Claimant) -> bool {
        let owned = self.claimants.iter().any(|known| known.role == Role::Owner && !known.gone);
        claimant.role == Role::Claimant
            && matches!(self.kind, Kind::Flap | Kind::Duplicate)
            && !owned
    }

    /// What is disputed is not in doubt any more, if `so`. True if it was.
    fn answered(&mut self, so: bool) -> bool {
        let was = self.unanswered && so;
        if was {
            self.unanswered = false;
            self.detail = Arc::from("");
        }
        was
    }

    /// It begins anew, with those who come now. Of those whom it knew it goes on counting.
    pub(super) fn reopen(&mut self, claimants: impl IntoIterator<Item = Claimant>, now: Now) {
        (self.closed_at, self.closed) = (None, None);
        self.claimants.iter_mut().for_each(|known| known.gone = true);
        for claimant in claimants {
            match self.claimants.iter_mut().find(|known| known.is(&claimant)) {
                Some(known) => {
                    known.is_dropped = claimant.is_dropped;
                    known.count(claimant.frames);
                    let Claimant { role, owner, last_seen, last, .. } = claimant;
                    (known.role, known.owner, known.gone) = (role, owner, false);
                    (known.last_seen, known.last) = (last_seen, last);
                }
                None => drop(self.join(claimant, now)),
            }
        }
        self.last_seen = now.wall;
    }

    /// The one that is left of those who disputed it.
    pub fn left(&self) -> Option<Station> {
        let mut there = self.claimants.iter().filter(|known| !known.gone);
        let one = there.next().filter(|one| one.role != Role::Owner)?;
        if there.next().is_some() { None } else { one.station() }
    }

    /// The most claimants that are told apart.
    const MAX_CLAIMANTS: usize = 8;
    /// And those of them that are behind one port, or behind none.
    pub(super) const MAX_MACS: usize = 4;

    /// Whether the dispute is over. An owner is a side of it as long as its port exists, and so are
    /// those who are not listed: the gateway and the host. What a source lists lasts as long as it does,
    /// and is no side of its own where it is on the wire as well. What is live and nobody's ends with its
    /// quarantine, or with its claimant's port; what cannot be read, when its source says so; and what
    /// a port does, by its silence.
    pub(super) fn is_over(&self, now: Now) -> bool {
        let mut there = self.claimants.iter().filter(|known| !known.gone);
        match self.kind {
            Kind::Inventory => return false,
            Kind::Unowned => return there.next().is_none(),
            kind if kind.lasts_as_told() => {
                return there.all(|known| now.boot.saturating_sub(known.last) >= PORT_QUIET);
            }
            _ => {}
        }
        let (listed, seen): (Vec<_>, Vec<_>) = there.partition(|known| known.is_listed());
        let unseen = |known: &&&Claimant| seen.iter().all(|seen| seen.owner != known.owner);
        let sides: Vec<_> = seen.iter().chain(listed.iter().filter(unseen)).collect();
        // Those who have it by right do not dispute it among themselves.
        let owners = sides.iter().filter(|side| side.role == Role::Owner).count();
        let unnamed = owners == 0 && self.kind == Kind::Gateway;
        sides.len() - owners.saturating_sub(1) + usize::from(unnamed) < 2
    }

    /// Those whose frames are dropped and who have not tried for so long are gone: what they would answer
    /// is dropped too, so that nobody asks them.
    pub(super) fn give_up(&mut self, quiet: Duration, now: Now) {
        for known in self.claimants.iter_mut().filter(|known| known.is_dropped) {
            known.gone |= now.boot.saturating_sub(known.last) >= quiet;
        }
    }

    /// Those of whom it is to be found out whether they are still there: an owner is, and what lasts
    /// for as long as something else says so need not be asked for.
    pub(super) fn silent(&self, quiet: Duration, now: Now) -> impl Iterator<Item = Silent> + '_ {
        let lasts =
            self.kind.lasts_as_told() || matches!(self.kind, Kind::Inventory | Kind::Unowned);
        let silent = move |known: &&Claimant| {
            let stays = lasts || known.gone || known.role == Role::Owner || known.is_listed();
            !stays && !known.is_dropped && now.boot.saturating_sub(known.last) >= quiet
        };
        self.claimants.iter().filter(silent).map(move |known| Silent {
            segment: self.segment.clone(),
            target: self.target.clone(),
            mac: known.mac,
            interface: known.interface.clone(),
            ifindex: known.ifindex,
            silence: now.boot.saturating_sub(known.last),
        })
    }
}

/// A claimant of an open incident that has not been heard for long enough to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    /// The segment.
    pub segment: Segment,
    /// What it claims.
    pub target: Target,
    /// Its MAC, if one is known.
    pub mac: Option<Mac>,
    /// Its port, if one is known.
    pub interface: Option<Arc<str>>,
    /// That port's ifindex.
    pub ifindex: Option<u32>,
    /// For how long.
    pub silence: Duration,
}
