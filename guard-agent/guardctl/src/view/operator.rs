use guard_api::proto;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    Lease, lease, number,
    outcome::{outcome, sentence},
    segment, text, time,
};
use crate::{
    output::{Screen, View},
    table::{Table, cell, plain},
};

pub fn leases(leases: Vec<proto::Lease>) -> Vec<Lease> {
    leases.into_iter().map(Lease::from).collect()
}

pub fn dry(dry_run: bool) -> &'static str {
    if dry_run { "dry run: nothing was changed\n" } else { "" }
}

/// A copy of the store.
#[derive(Debug, Serialize)]
pub struct Backup {
    pub path: String,
    pub rows: u64,
}

impl From<proto::BackupResponse> for Backup {
    fn from(proto::BackupResponse { path, rows }: proto::BackupResponse) -> Self {
        Self { path, rows }
    }
}

impl View for Backup {
    fn text(&self, _screen: Screen) -> String {
        format!("{}: {} addresses\n", self.path, self.rows)
    }
}

/// Two that should say the same.
#[derive(Debug, Serialize)]
pub struct Disagreement {
    pub between: String,
    pub address: Option<String>,
    pub bridge: Option<String>,
    pub vlan: u32,
    pub what: String,
}

/// What `check` found.
#[derive(Debug, Serialize)]
pub struct Check {
    pub disagreements: Vec<Disagreement>,
}

impl From<proto::CheckResponse> for Check {
    fn from(check: proto::CheckResponse) -> Self {
        let one = |one: proto::Disagreement| {
            let proto::Disagreement { between, address, bridge, vlan, what } = one;
            Disagreement { between, address: text(address), bridge: text(bridge), vlan, what }
        };
        Self { disagreements: check.disagreements.into_iter().map(one).collect() }
    }
}

impl View for Check {
    fn text(&self, screen: Screen) -> String {
        let mut table = Table::new(&["BETWEEN", "BRIDGE", "ADDRESS", "WHAT"], &["WHAT"]);
        for Disagreement { between, address, bridge, vlan, what } in &self.disagreements {
            let bridge = bridge.as_deref().map(|bridge| segment(Some(bridge), *vlan));
            let cells = [
                cell(Some(between)),
                cell(bridge.as_deref()),
                cell(address.as_deref()),
                cell(Some(what)),
            ];
            table.row(cells, vec![]);
        }
        table.text(screen, "store, index, kernel and wire agree")
    }
}

/// What `gc` released.
#[derive(Debug, Serialize)]
pub struct Gc {
    pub dry_run: bool,
    pub released: Vec<Lease>,
    pub unverifiable: Vec<Lease>,
}

impl Gc {
    pub fn new(gc: proto::GcResponse, dry_run: bool) -> Self {
        let proto::GcResponse { released, unverifiable, .. } = gc;
        Self { dry_run, released: leases(released), unverifiable: leases(unverifiable) }
    }
}

impl View for Gc {
    fn text(&self, screen: Screen) -> String {
        let mut shown = dry(self.dry_run).to_owned();
        match self.released.as_slice() {
            [] => shown.push_str("nothing to release\n"),
            released => shown.push_str(&lease::table(released, screen)),
        }
        if !self.unverifiable.is_empty() {
            shown.push_str("kept, since nothing says that they are over:\n");
            shown.push_str(&lease::table(&self.unverifiable, screen));
        }
        shown
    }
}

/// What became of `force-release`.
#[derive(Debug, Serialize)]
pub struct Forced {
    pub dry_run: bool,
    pub outcome: Option<String>,
    pub leases: Vec<Lease>,
}

impl Forced {
    pub fn new(released: proto::ReleaseResponse, dry_run: bool) -> Self {
        let outcome = outcome(released.outcome());
        Self { dry_run, outcome, leases: leases(released.leases) }
    }
}

impl View for Forced {
    fn text(&self, screen: Screen) -> String {
        changed(self.dry_run, self.outcome.as_deref(), &self.leases, screen)
    }
}

fn changed(dry_run: bool, outcome: Option<&str>, leases: &[Lease], screen: Screen) -> String {
    let mut shown = format!("{}{}\n", dry(dry_run), sentence(outcome));
    if !leases.is_empty() {
        shown.push_str(&lease::table(leases, screen));
    }
    shown
}

/// What became of `quarantine add` and `remove`.
#[derive(Debug, Serialize)]
pub struct Quarantine {
    pub dry_run: bool,
    pub outcome: Option<String>,
    pub leases: Vec<Lease>,
}

impl Quarantine {
    pub fn new(quarantined: proto::QuarantineResponse, dry_run: bool) -> Self {
        let outcome = outcome(quarantined.outcome());
        Self { dry_run, outcome, leases: leases(quarantined.leases) }
    }
}

impl View for Quarantine {
    fn text(&self, screen: Screen) -> String {
        if self.outcome.as_deref() == Some("not_found") {
            let what = "not_found: no operator has quarantined it; nothing was changed";
            return format!("{}{what}\n", dry(self.dry_run));
        }
        changed(self.dry_run, self.outcome.as_deref(), &self.leases, screen)
    }
}

/// A reservation that was left out.
#[derive(Debug, Serialize)]
pub struct NotAdopted {
    pub address: String,
    pub sandbox: Option<String>,
    pub key: Option<String>,
    pub reason: String,
    pub message: String,
}

/// What `adopt` took over.
#[derive(Debug, Serialize)]
pub struct Adopted {
    pub dry_run: bool,
    pub leases: Vec<Lease>,
    pub refused: Vec<NotAdopted>,
}

impl Adopted {
    pub fn new(response: proto::AdoptResponse, dry_run: bool) -> Self {
        let one = |one: proto::NotAdopted| {
            let proto::NotAdopted { address, sandbox, key, reason, message } = one;
            NotAdopted { address, sandbox: text(sandbox), key: text(key), reason, message }
        };
        let refused = response.refused.into_iter().map(one).collect();
        Self { dry_run, leases: leases(response.adopted), refused }
    }
}

impl View for Adopted {
    fn text(&self, screen: Screen) -> String {
        let mut shown = dry(self.dry_run).to_owned();
        match self.leases.as_slice() {
            [] => shown.push_str("nothing is taken over\n"),
            leases => shown.push_str(&lease::table(leases, screen)),
        }
        if !self.refused.is_empty() {
            let mut table = Table::new(&["NOT ADOPTED", "SANDBOX", "REASON"], &["SANDBOX"]);
            for NotAdopted { address, sandbox, key: _, reason, message } in &self.refused {
                let cells = [plain(address), cell(sandbox.as_deref()), cell(Some(reason))];
                table.row(cells, vec![message.clone()]);
            }
            shown.push_str(&table.text(screen, ""));
        }
        shown
    }
}

/// A subscriber that a released address waits for.
#[derive(Debug, Serialize)]
pub struct Hold {
    pub subscriber: String,
    pub address: Option<String>,
    pub pool: Option<String>,
    pub generation: Option<u64>,
    pub sandbox: Option<String>,
    pub lifecycle: Option<String>,
    pub until: Option<Timestamp>,
}

/// A list of holds.
#[derive(Debug, Serialize)]
pub struct Holds {
    pub holds: Vec<Hold>,
}

impl From<proto::ListLeasesResponse> for Holds {
    fn from(list: proto::ListLeasesResponse) -> Self {
        let of_lease = |lease: proto::Lease| {
            let one = |subscriber: &String| Hold {
                subscriber: subscriber.clone(),
                address: text(lease.address.clone()),
                pool: text(lease.pool.clone()),
                generation: number(lease.generation),
                sandbox: text(lease.sandbox.clone()),
                lifecycle: text(lease.lifecycle.clone()),
                until: time(lease.until),
            };
            lease.holds.iter().map(one).collect::<Vec<_>>()
        };
        Self { holds: list.leases.into_iter().flat_map(of_lease).collect() }
    }
}

impl View for Holds {
    fn text(&self, screen: Screen) -> String {
        let headers = &["ADDRESS", "SUBSCRIBER", "GENERATION", "SANDBOX"];
        let mut table = Table::new(headers, &["SANDBOX", "SUBSCRIBER"]);
        for hold in &self.holds {
            let generation = hold.generation.map(|generation| generation.to_string());
            let cells = [
                cell(hold.address.as_deref()),
                cell(Some(&hold.subscriber)),
                cell(generation.as_deref()),
                cell(hold.sandbox.as_deref()),
            ];
            table.row(cells, vec![]);
        }
        table.text(screen, "no holds")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            lease::tests::{ACTIVE, active},
            testing::{golden, shown},
        },
        *,
    };

    #[test]
    fn a_disagreement_as_json_and_text() {
        let disagreement = proto::Disagreement {
            between: "live".to_owned(),
            address: "10.8.64.2".to_owned(),
            bridge: "rt0".to_owned(),
            vlan: 0,
            what: "it is in use, and counts as free".to_owned(),
        };
        let check = Check::from(proto::CheckResponse {
            disagreements: vec![disagreement],
            ..Default::default()
        });
        golden(
            &check,
            r#"{"disagreements":[{"between":"live","address":"10.8.64.2","bridge":"rt0","vlan":0,
            "what":"it is in use, and counts as free"}]}"#,
        );
        assert_eq!(
            shown(&check),
            "BETWEEN  BRIDGE  ADDRESS    WHAT\n\
             live     rt0     10.8.64.2  it is in use, and counts as free\n"
        );
    }

    #[test]
    fn a_dry_run_says_so() {
        let gc = proto::GcResponse { released: vec![active()], ..Default::default() };
        let gc = Gc::new(gc, true);
        golden(&gc, &format!(r#"{{"dry_run":true,"released":[{ACTIVE}],"unverifiable":[]}}"#));
        assert!(shown(&gc).starts_with("dry run: nothing was changed\n"));
    }

    #[test]
    fn what_is_in_no_quarantine_is_not_said_to_be_no_lease() {
        let outcome = proto::Outcome::NotFound.into();
        let missing = proto::QuarantineResponse { outcome, ..Default::default() };
        assert_eq!(
            shown(&Quarantine::new(missing, false)),
            "not_found: no operator has quarantined it; nothing was changed\n"
        );
    }
}
