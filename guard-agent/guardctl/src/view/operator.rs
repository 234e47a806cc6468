use guard_api::{json, proto};
use jiff::Timestamp;
use serde::Serialize;

use super::{Answer, head, lease, number, segment};
use crate::{
    output::{Screen, View},
    table::{Table, cell, plain},
};

impl View for proto::BackupResponse {
    fn text(&self, _screen: Screen) -> String {
        format!("{}: {} addresses\n", self.path, self.rows)
    }
}

impl View for proto::CheckResponse {
    fn text(&self, screen: Screen) -> String {
        let mut table = Table::new(&["BETWEEN", "BRIDGE", "ADDRESS", "WHAT"], &["WHAT"]);
        for proto::Disagreement { between, address, bridge, vlan, what } in &self.disagreements {
            let place = if bridge.is_empty() { String::new() } else { segment(bridge, *vlan) };
            table.row([cell(between), cell(&place), cell(address), cell(what)], vec![]);
        }
        table.text(screen, "store, index, kernel and wire agree")
    }
}

/// What `gc` released.
impl View for Answer<proto::GcResponse> {
    fn text(&self, screen: Screen) -> String {
        let mut shown = head(self.dry_run).to_owned();
        let proto::GcResponse { released, unverifiable, .. } = &self.response;
        match released.as_slice() {
            [] => shown.push_str("nothing to release\n"),
            released => shown.push_str(&lease::table(released, screen)),
        }
        if !unverifiable.is_empty() {
            shown.push_str("kept, since nothing says that they are over:\n");
            shown.push_str(&lease::table(unverifiable, screen));
        }
        shown
    }
}

/// What `adopt` took over.
impl View for Answer<proto::AdoptResponse> {
    fn text(&self, screen: Screen) -> String {
        let mut shown = head(self.dry_run).to_owned();
        let proto::AdoptResponse { adopted, refused, .. } = &self.response;
        match adopted.as_slice() {
            [] => shown.push_str("nothing is taken over\n"),
            leases => shown.push_str(&lease::table(leases, screen)),
        }
        if !refused.is_empty() {
            let mut table = Table::new(&["NOT ADOPTED", "SANDBOX", "REASON"], &["SANDBOX"]);
            for proto::NotAdopted { address, sandbox, key: _, reason, message } in refused {
                let cells = [plain(address), cell(sandbox), cell(reason)];
                table.row(cells, vec![message.clone()]);
            }
            shown.push_str(&table.text(screen, ""));
        }
        shown
    }
}

/// A subscriber that a released address waits for.
#[derive(Debug, Serialize)]
pub(crate) struct Hold {
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
pub(crate) struct Holds {
    pub holds: Vec<Hold>,
}

impl From<proto::ListLeasesResponse> for Holds {
    fn from(list: proto::ListLeasesResponse) -> Self {
        let owned = |text: &str| json::text(text).map(str::to_owned);
        let of_lease = |lease: proto::Lease| {
            let one = |subscriber: &String| Hold {
                subscriber: subscriber.clone(),
                address: owned(&lease.address),
                pool: owned(&lease.pool),
                generation: json::number(lease.generation),
                sandbox: owned(&lease.sandbox),
                lifecycle: owned(&lease.lifecycle),
                until: json::time(lease.until),
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
            let cells = [
                cell(hold.address.as_deref().unwrap_or_default()),
                cell(&hold.subscriber),
                cell(&number(hold.generation.unwrap_or_default())),
                cell(hold.sandbox.as_deref().unwrap_or_default()),
            ];
            table.row(cells, vec![]);
        }
        table.text(screen, "no holds")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{lease::tests::active, testing::shown},
        *,
    };

    #[test]
    fn a_disagreement_as_text() {
        let disagreement = proto::Disagreement {
            between: "live".to_owned(),
            address: "10.8.64.2".to_owned(),
            bridge: "rt0".to_owned(),
            vlan: 0,
            what: "it is in use, and counts as free".to_owned(),
        };
        let disagreements = vec![disagreement];
        assert_eq!(
            shown(&proto::CheckResponse { disagreements, ..Default::default() }),
            "BETWEEN  BRIDGE  ADDRESS    WHAT\n\
             live     rt0     10.8.64.2  it is in use, and counts as free\n"
        );
    }

    #[test]
    fn a_dry_run_says_so() {
        let response = proto::GcResponse { released: vec![active()], ..Default::default() };
        let gc = Answer { dry_run: true, response };
        assert!(shown(&gc).starts_with("dry run: nothing was changed\n"));
    }
}
