use std::cmp::Reverse;

use guard_api::proto;
use jiff::Timestamp;
use serde::Serialize;

use super::{ago, inner_segment, moment, or_dash, quantity};
use crate::{
    output::{Screen, View, printable},
    table::{Table, cell, plain, short, signal},
};

/// `impostor 02:00:00:00:00:0b@veth-b web-2`
fn brief(claimant: &proto::Claimant) -> String {
    let proto::Claimant { mac, interface, sandbox, .. } = claimant;
    let who = match (mac.is_empty() && interface.is_empty(), sandbox.is_empty()) {
        (true, true) => "not known".to_owned(),
        // Only a source tells of it.
        (true, false) => short(sandbox).to_owned(),
        (false, _) => format!("{}@{} {}", or_dash(mac), or_dash(interface), short(sandbox)),
    };
    format!("{:<8} {}", or_dash(claimant.role().word()), who.trim_end())
}

/// As above, with how often and how long ago.
pub(crate) fn note(claimant: &proto::Claimant, now: Timestamp) -> String {
    // An owner's frames are not counted, and it need not have spoken.
    let said = match (claimant.frames, claimant.last_seen) {
        (0, None) => "not heard".to_owned(),
        (0, last) => format!("heard {}", ago(last, now)),
        (frames, last) => {
            let dropped = match claimant.dropped {
                0 => String::new(),
                all if all == frames => ", dropped".to_owned(),
                some => format!(", {} dropped", quantity(some)),
            };
            format!("{}{dropped}, last {}", counted(frames), ago(last, now))
        }
    };
    format!("{}: {said}", brief(claimant))
}

fn counted(frames: u64) -> String {
    match frames {
        0 => "no frames".to_owned(),
        1 => "1 frame".to_owned(),
        frames => format!("{} frames", quantity(frames)),
    }
}

/// Puts those first that somebody has to look at first: open, not silenced, severe, and of the kind that
/// says most. Among their like the oldest is first, as in the agent's list.
pub(crate) fn worst_first(conflicts: &mut [proto::Conflict]) {
    use proto::ConflictKind::*;
    const KINDS: [proto::ConflictKind; 12] = [
        Gateway, Clone, Duplicate, Flap, Declined, Router, Opaque, Coverage, Proxy, Loop,
        Inventory, Flood,
    ];
    conflicts.sort_by_key(|conflict| {
        let kind = KINDS.iter().position(|kind| *kind == conflict.kind()).unwrap_or(KINDS.len());
        let severity = Reverse(conflict.severity);
        (!conflict.open, conflict.silenced_until.is_some(), severity, kind)
    });
}

/// Of all claimants.
pub(crate) fn frames(conflict: &proto::Conflict) -> u64 {
    conflict.claimants.iter().fold(0, |sum, claimant| sum.saturating_add(claimant.frames))
}

/// Where it is.
pub(crate) fn segment(conflict: &proto::Conflict) -> String {
    inner_segment(&conflict.bridge, conflict.vlan, conflict.inner_vlan)
}

fn silence(conflict: &proto::Conflict) -> Option<String> {
    conflict.silenced_until.map(|until| format!("silenced until {}", moment(Some(until), 0)))
}

/// All of it in one line, without the time.
pub(crate) fn line(conflict: &proto::Conflict) -> String {
    let (severity, kind) = (conflict.severity().word(), conflict.kind().word());
    let silenced = silence(conflict).map(|note| format!("; {note}")).unwrap_or_default();
    let said = if conflict.source.is_empty() {
        let words = |claimant| brief(claimant).split_whitespace().collect::<Vec<_>>().join(" ");
        let claimants: Vec<String> = conflict.claimants.iter().map(words).collect();
        format!(
            "{} on {}: {}; {}",
            or_dash(&conflict.address),
            segment(conflict),
            claimants.join(", "),
            counted(frames(conflict))
        )
    } else {
        format!("{}: {}", conflict.source, or_dash(&conflict.detail))
    };
    printable(&format!("{} {} {said}{silenced}", or_dash(severity), or_dash(kind)))
}

/// One line, as `conflicts --follow` prints it.
impl View for proto::Conflict {
    fn text(&self, _: Screen) -> String {
        let state = if self.open { "open" } else { "closed" };
        format!("{} {state:<6} {}", moment(self.last_seen, 3), line(self))
    }
}

/// The incident that was silenced.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Silenced(pub proto::Conflict);

impl View for Silenced {
    fn text(&self, screen: Screen) -> String {
        table(std::slice::from_ref(&self.0), screen)
    }
}

impl View for proto::ConflictsResponse {
    fn text(&self, screen: Screen) -> String {
        table(&self.conflicts, screen)
    }
}

/// The incidents, each with its claimants beneath it.
pub(crate) fn table(conflicts: &[proto::Conflict], screen: Screen) -> String {
    let headers = &["ADDRESS", "KIND", "SEVERITY", "BRIDGE", "SINCE", "FRAMES", "OPEN", "ID"];
    let mut table = Table::new(headers, &["BRIDGE", "ID"]);
    for conflict in conflicts {
        let cells = [
            cell(&conflict.address),
            cell(conflict.kind().word()),
            signal(conflict.severity().word()),
            cell(&segment(conflict)),
            plain(ago(conflict.first_seen, screen.now)),
            plain(quantity(frames(conflict))),
            plain(if conflict.open { "yes" } else { "no" }),
            cell(&conflict.id),
        ];
        let proto::Conflict { source, detail, .. } = conflict;
        let mut notes: Vec<_> = match (source.is_empty(), detail.is_empty()) {
            (true, _) => conflict.claimants.iter().map(|one| note(one, screen.now)).collect(),
            (false, true) => vec![],
            (false, false) => vec![printable(&format!("{source}: {detail}"))],
        };
        notes.extend(silence(conflict));
        table.row(cells, notes);
    }
    table.text(screen, "no conflicts")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{
        super::testing::{shown, stamp},
        *,
    };

    pub(crate) fn duplicate() -> proto::Conflict {
        let claimant = |role: proto::Role, last: u8, name: &str| proto::Claimant {
            role: role.into(),
            mac: format!("02:00:00:00:00:{last:02x}"),
            interface: format!("veth-{name}"),
            ifindex: last.into(),
            sandbox: name.to_owned(),
            lifecycle: String::new(),
            first_seen: stamp(10),
            last_seen: stamp(58),
            frames: last.into(),
            dropped: 0,
        };
        proto::Conflict {
            id: "c1".to_owned(),
            bridge: "rt0".to_owned(),
            vlan: 0,
            address: "10.8.64.2".to_owned(),
            kind: proto::ConflictKind::Duplicate.into(),
            severity: proto::Severity::Critical.into(),
            claimants: vec![
                claimant(proto::Role::Owner, 10, "web-1"),
                claimant(proto::Role::Impostor, 11, "web-2"),
            ],
            flaps: 1,
            first_seen: stamp(10),
            last_seen: stamp(58),
            open: true,
            silenced_until: None,
            source: String::new(),
            entry: String::new(),
            detail: String::new(),
            inner_vlan: 0,
            action: proto::Action::Passed.into(),
        }
    }

    #[test]
    fn conflicts_name_every_claimant() {
        let list = proto::ConflictsResponse { conflicts: vec![duplicate()], ..Default::default() };
        assert_eq!(
            shown(&list),
            "\
ADDRESS    KIND       SEVERITY  BRIDGE  SINCE    FRAMES  OPEN  ID
10.8.64.2  duplicate  critical  rt0     50s ago  21      yes   c1
  owner    02:00:00:00:00:0a@veth-web-1 web-1: 10 frames, last 2s ago
  impostor 02:00:00:00:00:0b@veth-web-2 web-2: 11 frames, last 2s ago
"
        );
    }

    #[test]
    fn a_claimant_of_whom_only_a_name_is_known_is_shown_by_that() {
        let mut conflict = duplicate();
        for claimant in &mut conflict.claimants {
            (claimant.mac, claimant.interface) = Default::default();
        }
        conflict.claimants[1].sandbox = String::new();
        let list = proto::ConflictsResponse { conflicts: vec![conflict], ..Default::default() };
        let text = shown(&list);
        assert!(text.contains("\n  owner    web-1: 10 frames"), "{text}");
        assert!(text.contains("\n  impostor not known: 11 frames"), "{text}");
        let mut conflict = duplicate();
        conflict.claimants[0].mac = String::new();
        assert!(line(&conflict).contains("owner -@veth-web-1 web-1"), "{}", line(&conflict));
    }

    #[test]
    fn of_an_owner_it_is_said_whether_it_was_heard() {
        for (last_seen, said) in [(stamp(58), "heard 2s ago"), (None, "not heard")] {
            let mut conflict = duplicate();
            (conflict.claimants[0].frames, conflict.claimants[0].last_seen) = (0, last_seen);
            conflict.claimants[1].frames = 1;
            let conflicts = vec![conflict];
            let list = proto::ConflictsResponse { conflicts, ..Default::default() };
            let text = shown(&list);
            assert!(text.contains(&format!("veth-web-1 web-1: {said}\n")), "{text}");
            assert!(text.contains("veth-web-2 web-2: 1 frame, last 2s ago\n"), "{text}");
        }
    }

    #[test]
    fn of_an_impostor_it_is_said_how_many_of_its_frames_were_dropped() {
        for (dropped, said) in [(11, "11 frames, dropped,"), (3, "11 frames, 3 dropped,")] {
            let mut conflict = duplicate();
            conflict.claimants[1].dropped = dropped;
            let list = proto::ConflictsResponse { conflicts: vec![conflict], ..Default::default() };
            assert!(shown(&list).contains(said), "{}", shown(&list));
        }
    }

    #[test]
    fn the_worst_is_first_and_what_is_silenced_or_closed_is_last() {
        use proto::{ConflictKind::*, Severity::*};
        let conflict = |id: &str, kind: proto::ConflictKind, severity: proto::Severity| {
            let (id, kind, severity) = (id.to_owned(), kind.into(), severity.into());
            proto::Conflict { id, kind, severity, open: true, ..Default::default() }
        };
        let mut all = [
            proto::Conflict { open: false, ..conflict("closed", Gateway, Critical) },
            conflict("unowned", Unowned, Info),
            proto::Conflict { silenced_until: stamp(9), ..conflict("silenced", Gateway, Critical) },
            conflict("flood", Flood, Warning),
            conflict("duplicate", Duplicate, Warning),
            conflict("gateway", Gateway, Critical),
            conflict("second", Gateway, Critical),
        ];
        worst_first(&mut all);
        let order = all.map(|conflict| conflict.id);
        let wanted = ["gateway", "second", "duplicate", "flood", "unowned", "silenced", "closed"];
        assert_eq!(order, wanted);
    }

    #[test]
    fn a_silence_is_shown_with_its_end() {
        let silenced = proto::Conflict { silenced_until: stamp(3600), ..duplicate() };
        let until = "silenced until 1970-01-01T01:00:00Z";
        assert!(line(&silenced).ends_with(until));
        let list = proto::ConflictsResponse { conflicts: vec![silenced], ..Default::default() };
        assert!(shown(&list).contains(until));
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_named_with_its_source() {
        let conflict = proto::Conflict {
            bridge: String::new(),
            address: String::new(),
            kind: proto::ConflictKind::Inventory.into(),
            severity: proto::Severity::Warning.into(),
            source: "inventory".to_owned(),
            entry: "c1".to_owned(),
            detail: "container c1: the label \"x/ip\" says \"none\"".to_owned(),
            ..duplicate()
        };
        let line = line(&conflict);
        let said = "inventory: container c1: the label \"x/ip\" says \"none\"";
        assert_eq!(line, format!("warning inventory {said}"));
        let list = proto::ConflictsResponse { conflicts: vec![conflict], ..Default::default() };
        let text = shown(&list);
        assert!(text.ends_with(&format!("\n  {said}\n")) && !text.contains("web-1"), "{text}");
    }

    #[test]
    fn a_followed_conflict_is_one_line() {
        assert_eq!(
            line(&duplicate()),
            "critical duplicate 10.8.64.2 on rt0: owner 02:00:00:00:00:0a@veth-web-1 web-1, \
             impostor 02:00:00:00:00:0b@veth-web-2 web-2; 21 frames"
        );
    }
}
