use guard_api::proto;
use jiff::Timestamp;
use serde::Serialize;

use super::{ago, inner_segment, number, quantity, text, time, word};
use crate::{
    output::{Screen, View, printable},
    table::{Table, cell, plain, signal},
};

/// One of those who use an address.
#[derive(Debug, Serialize)]
pub struct Claimant {
    pub role: Option<String>,
    pub mac: Option<String>,
    pub interface: Option<String>,
    pub ifindex: Option<u32>,
    pub sandbox: Option<String>,
    pub lifecycle: Option<String>,
    pub first_seen: Option<Timestamp>,
    pub last_seen: Option<Timestamp>,
    pub frames: u64,
}

impl From<proto::Claimant> for Claimant {
    fn from(claimant: proto::Claimant) -> Self {
        Self {
            role: word(claimant.role().as_str_name(), "ROLE_"),
            mac: text(claimant.mac),
            interface: text(claimant.interface),
            ifindex: number(claimant.ifindex),
            sandbox: text(claimant.sandbox),
            lifecycle: text(claimant.lifecycle),
            first_seen: time(claimant.first_seen),
            last_seen: time(claimant.last_seen),
            frames: claimant.frames,
        }
    }
}

impl Claimant {
    /// `impostor 02:00:00:00:00:0b@veth-b web-2`
    fn brief(&self) -> String {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let place = format!("{}@{}", or_dash(&self.mac), or_dash(&self.interface));
        let sandbox = self.sandbox.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        format!("{:<8} {place}{sandbox}", or_dash(&self.role))
    }

    /// As above, with how often and how long ago.
    pub fn note(&self, now: Timestamp) -> String {
        // An owner's frames are not counted, and it need not have spoken.
        let said = match (self.frames, self.last_seen) {
            (0, None) => "not heard".to_owned(),
            (0, last) => format!("heard {}", ago(last, now)),
            (frames, last) => format!("{}, last {}", counted(frames), ago(last, now)),
        };
        format!("{}: {said}", self.brief())
    }
}

fn counted(frames: u64) -> String {
    match frames {
        0 => "no frames".to_owned(),
        1 => "1 frame".to_owned(),
        frames => format!("{} frames", quantity(frames)),
    }
}

/// An incident.
#[derive(Debug, Serialize)]
pub struct Conflict {
    pub id: Option<String>,
    pub bridge: Option<String>,
    pub vlan: u32,
    pub inner_vlan: u32,
    pub address: Option<String>,
    pub kind: Option<String>,
    pub severity: Option<String>,
    pub claimants: Vec<Claimant>,
    pub flaps: u32,
    pub first_seen: Option<Timestamp>,
    pub last_seen: Option<Timestamp>,
    pub open: bool,
    pub silenced_until: Option<Timestamp>,
    pub source: Option<String>,
    pub entry: Option<String>,
    pub detail: Option<String>,
}

impl From<proto::Conflict> for Conflict {
    fn from(conflict: proto::Conflict) -> Self {
        Self {
            kind: word(conflict.kind().as_str_name(), "CONFLICT_KIND_"),
            severity: word(conflict.severity().as_str_name(), "SEVERITY_"),
            id: text(conflict.id),
            bridge: text(conflict.bridge),
            vlan: conflict.vlan,
            inner_vlan: conflict.inner_vlan,
            address: text(conflict.address),
            claimants: conflict.claimants.into_iter().map(Claimant::from).collect(),
            flaps: conflict.flaps,
            first_seen: time(conflict.first_seen),
            last_seen: time(conflict.last_seen),
            open: conflict.open,
            silenced_until: time(conflict.silenced_until),
            source: text(conflict.source),
            entry: text(conflict.entry),
            detail: text(conflict.detail),
        }
    }
}

impl Conflict {
    /// Of all claimants.
    pub fn frames(&self) -> u64 {
        self.claimants.iter().fold(0, |sum, claimant| sum.saturating_add(claimant.frames))
    }

    /// Where it is.
    pub fn segment(&self) -> String {
        inner_segment(self.bridge.as_deref(), self.vlan, self.inner_vlan)
    }

    fn silence(&self) -> Option<String> {
        self.silenced_until.map(|until| format!("silenced until {until:.0}"))
    }

    /// All of it in one line, without the time.
    pub fn line(&self) -> String {
        if let Some(source) = &self.source {
            return printable(&format!(
                "{} {} {source}: {}{}",
                self.severity.as_deref().unwrap_or("-"),
                self.kind.as_deref().unwrap_or("-"),
                self.detail.as_deref().unwrap_or("-"),
                self.silence().map(|note| format!("; {note}")).unwrap_or_default()
            ));
        }
        let claimants: Vec<String> = self
            .claimants
            .iter()
            .map(|claimant| claimant.brief().split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let silenced = self.silence().map(|note| format!("; {note}")).unwrap_or_default();
        printable(&format!(
            "{} {} {} on {}: {}; {}{silenced}",
            self.severity.as_deref().unwrap_or("-"),
            self.kind.as_deref().unwrap_or("-"),
            self.address.as_deref().unwrap_or("-"),
            self.segment(),
            claimants.join(", "),
            counted(self.frames())
        ))
    }
}

/// One line, as `conflicts --follow` prints it.
impl View for Conflict {
    fn text(&self, _: Screen) -> String {
        let state = if self.open { "open" } else { "closed" };
        let time = self.last_seen.map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"));
        format!("{time} {state:<6} {}", self.line())
    }
}

/// A list of incidents.
#[derive(Debug, Serialize)]
pub struct Conflicts {
    pub conflicts: Vec<Conflict>,
}

impl From<proto::ConflictsResponse> for Conflicts {
    fn from(response: proto::ConflictsResponse) -> Self {
        Self { conflicts: response.conflicts.into_iter().map(Conflict::from).collect() }
    }
}

/// The incident that was silenced.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Silenced(Conflict);

impl From<proto::Conflict> for Silenced {
    fn from(conflict: proto::Conflict) -> Self {
        Self(Conflict::from(conflict))
    }
}

impl View for Silenced {
    fn text(&self, screen: Screen) -> String {
        table(std::slice::from_ref(&self.0), screen)
    }
}

impl View for Conflicts {
    fn text(&self, screen: Screen) -> String {
        table(&self.conflicts, screen)
    }
}

fn table(conflicts: &[Conflict], screen: Screen) -> String {
    let headers = &["ADDRESS", "KIND", "SEVERITY", "BRIDGE", "SINCE", "FRAMES", "OPEN", "ID"];
    let mut table = Table::new(headers, &["BRIDGE", "ID"]);
    for conflict in conflicts {
        let cells = [
            cell(conflict.address.as_deref()),
            cell(conflict.kind.as_deref()),
            signal(conflict.severity.as_deref()),
            cell(Some(&conflict.segment())),
            plain(ago(conflict.first_seen, screen.now)),
            plain(quantity(conflict.frames())),
            plain(if conflict.open { "yes" } else { "no" }),
            cell(conflict.id.as_deref()),
        ];
        let seen = conflict.claimants.iter().filter(|_| conflict.source.is_none());
        let notes = seen.map(|claimant| claimant.note(screen.now));
        let said = conflict.source.iter().zip(&conflict.detail);
        let said = said.map(|(source, detail)| printable(&format!("{source}: {detail}")));
        table.row(cells, notes.chain(said).chain(conflict.silence()).collect());
    }
    table.text(screen, "no conflicts")
}

#[cfg(test)]
pub mod tests {
    use super::{
        super::testing::{golden, shown, stamp},
        *,
    };

    pub fn duplicate() -> proto::Conflict {
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
        }
    }

    pub const DUPLICATE: &str = r#"{"id":"c1","bridge":"rt0","vlan":0,"inner_vlan":0,"address":"10.8.64.2",
        "kind":"duplicate","severity":"critical","claimants":[
        {"role":"owner","mac":"02:00:00:00:00:0a","interface":"veth-web-1","ifindex":10,
        "sandbox":"web-1","lifecycle":null,"first_seen":"1970-01-01T00:00:10Z",
        "last_seen":"1970-01-01T00:00:58Z","frames":10},
        {"role":"impostor","mac":"02:00:00:00:00:0b","interface":"veth-web-2","ifindex":11,
        "sandbox":"web-2","lifecycle":null,"first_seen":"1970-01-01T00:00:10Z",
        "last_seen":"1970-01-01T00:00:58Z","frames":11}],
        "flaps":1,"first_seen":"1970-01-01T00:00:10Z","last_seen":"1970-01-01T00:00:58Z",
        "open":true,"silenced_until":null,"source":null,"entry":null,"detail":null}"#;

    #[test]
    fn conflict_as_json() {
        golden(&Conflict::from(duplicate()), DUPLICATE);
        let list = proto::ConflictsResponse { conflicts: vec![duplicate()], ..Default::default() };
        golden(&Conflicts::from(list), &format!(r#"{{"conflicts":[{DUPLICATE}]}}"#));
    }

    #[test]
    fn conflicts_name_every_claimant() {
        let list = proto::ConflictsResponse { conflicts: vec![duplicate()], ..Default::default() };
        assert_eq!(
            shown(&Conflicts::from(list)),
            "\
ADDRESS    KIND       SEVERITY  BRIDGE  SINCE    FRAMES  OPEN  ID
10.8.64.2  duplicate  critical  rt0     50s ago  21      yes   c1
  owner    02:00:00:00:00:0a@veth-web-1 web-1: 10 frames, last 2s ago
  impostor 02:00:00:00:00:0b@veth-web-2 web-2: 11 frames, last 2s ago
"
        );
    }

    #[test]
    fn of_an_owner_it_is_said_whether_it_was_heard() {
        for (last_seen, said) in [(stamp(58), "heard 2s ago"), (None, "not heard")] {
            let mut conflict = duplicate();
            (conflict.claimants[0].frames, conflict.claimants[0].last_seen) = (0, last_seen);
            conflict.claimants[1].frames = 1;
            let conflicts = vec![conflict];
            let list = proto::ConflictsResponse { conflicts, ..Default::default() };
            let text = shown(&Conflicts::from(list));
            assert!(text.contains(&format!("veth-web-1 web-1: {said}\n")), "{text}");
            assert!(text.contains("veth-web-2 web-2: 1 frame, last 2s ago\n"), "{text}");
        }
    }

    #[test]
    fn a_silence_is_shown_with_its_end() {
        let silenced = proto::Conflict { silenced_until: stamp(3600), ..duplicate() };
        let until = "silenced until 1970-01-01T01:00:00Z";
        assert!(Conflict::from(silenced.clone()).line().ends_with(until));
        let list = proto::ConflictsResponse { conflicts: vec![silenced], ..Default::default() };
        assert!(shown(&Conflicts::from(list)).contains(until));
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
        let line = Conflict::from(conflict.clone()).line();
        let said = "inventory: container c1: the label \"x/ip\" says \"none\"";
        assert_eq!(line, format!("warning inventory {said}"));
        let list = proto::ConflictsResponse { conflicts: vec![conflict], ..Default::default() };
        let text = shown(&Conflicts::from(list));
        assert!(text.ends_with(&format!("\n  {said}\n")) && !text.contains("web-1"), "{text}");
    }

    #[test]
    fn a_followed_conflict_is_one_line() {
        assert_eq!(
            Conflict::from(duplicate()).line(),
            "critical duplicate 10.8.64.2 on rt0: owner 02:00:00:00:00:0a@veth-web-1 web-1, \
             impostor 02:00:00:00:00:0b@veth-web-2 web-2; 21 frames"
        );
    }
}
