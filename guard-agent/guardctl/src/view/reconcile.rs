use guard_api::proto;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    Evidence, Lease, ago, inner_segment, lease,
    operator::{dry, leases},
    status::Source,
    text, time, word,
};
use crate::{
    output::{Screen, View},
    table::folded,
};

/// What came of a pass of the reconciler.
#[derive(Debug, Serialize)]
pub struct Reconciled {
    pub dry_run: bool,
    pub result: Option<String>,
    pub why: Option<String>,
    pub silent: Vec<Lease>,
    pub reaped: Vec<Lease>,
    pub unverifiable: Vec<Lease>,
    pub blocked: Vec<Lease>,
    pub consent: Option<String>,
}

impl Reconciled {
    pub fn new(response: proto::ReconcileResponse, dry_run: bool) -> Self {
        let result = word(response.result().as_str_name(), "PASS_RESULT_");
        let proto::ReconcileResponse {
            result: _,
            why,
            silent,
            reaped,
            unverifiable,
            blocked,
            consent,
            ..
        } = response;
        Self {
            dry_run,
            result,
            why: text(why),
            silent: leases(silent),
            reaped: leases(reaped),
            unverifiable: leases(unverifiable),
            blocked: leases(blocked),
            consent: text(consent),
        }
    }
}

impl View for Reconciled {
    fn text(&self, screen: Screen) -> String {
        let mut shown = dry(self.dry_run).to_owned();
        let width = usize::from(screen.width);
        let result = self.result.as_deref().unwrap_or("-");
        match &self.why {
            Some(why) => shown.push_str(&folded(&format!("{result}: {why}"), "", width)),
            None => shown.push_str(&format!("{result}\n")),
        }
        let reaped = if self.dry_run { "would be taken back:" } else { "taken back:" };
        let lists = [
            (reaped, &self.reaped),
            ("wait for consent:", &self.blocked),
            ("kept, since nobody can tell whether they are over:", &self.unverifiable),
        ];
        for (title, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            shown.push_str(&format!("{title}\n{}", lease::table(list, screen)));
        }
        if !self.silent.is_empty() {
            shown.push_str("nothing speaks for:\n");
        }
        for lease in &self.silent {
            let (address, pool) = (lease.address.as_deref(), lease.pool.as_deref());
            let (address, pool) = (address.unwrap_or("-"), pool.unwrap_or("-"));
            let line = format!("{address} in {pool}: misses {}", lease.misses);
            shown.push_str(&folded(&line, "  ", width));
        }
        shown
    }
}

/// What is known of an address in one pool, or on a segment where it is in use and no pool has it.
#[derive(Debug, Serialize)]
pub struct Explanation {
    pub address: Option<String>,
    pub pool: Option<String>,
    pub bridge: Option<String>,
    pub vlan: u32,
    pub inner_vlan: u32,
    pub state: String,
    pub lease: Option<Lease>,
    pub evidence: Vec<Evidence>,
    pub next: Option<String>,
}

/// What is known of an address.
#[derive(Debug, Serialize)]
pub struct Why {
    pub explanations: Vec<Explanation>,
    pub sources: Vec<Source>,
    pub last_pass: Option<Timestamp>,
    pub last_result: Option<String>,
}

impl From<proto::Explanation> for Explanation {
    fn from(explanation: proto::Explanation) -> Self {
        let proto::Explanation { address, pool, bridge, vlan, inner_vlan, lease, evidence, next } =
            explanation;
        let lease = lease.map(Lease::from);
        let state = lease.as_ref().and_then(|lease| lease.state.clone());
        let without = if pool.is_empty() { "in use" } else { "free" };
        Self {
            address: text(address),
            pool: text(pool),
            bridge: text(bridge),
            vlan,
            inner_vlan,
            state: state.unwrap_or_else(|| without.to_owned()),
            lease,
            evidence: evidence.into_iter().map(Evidence::from).collect(),
            next: text(next),
        }
    }
}

impl From<proto::WhyResponse> for Why {
    fn from(response: proto::WhyResponse) -> Self {
        let proto::WhyResponse { explanations, sources, last_pass, last_result } = response;
        Self {
            explanations: explanations.into_iter().map(Explanation::from).collect(),
            sources: sources.into_iter().map(Source::from).collect(),
            last_pass: time(last_pass),
            last_result: text(last_result),
        }
    }
}

impl View for Why {
    fn text(&self, screen: Screen) -> String {
        let mut shown = String::new();
        let width = usize::from(screen.width);
        for explanation in &self.explanations {
            let Explanation { address, pool, bridge, vlan, inner_vlan, .. } = explanation;
            let Explanation { state, lease, evidence, next, .. } = explanation;
            let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
            let owner = lease.as_ref().and_then(|lease| lease.sandbox.as_deref());
            let owner = owner.map(|owner| format!(", sandbox {owner}")).unwrap_or_default();
            let place = inner_segment(bridge.as_deref(), *vlan, *inner_vlan);
            let pool = match pool {
                Some(pool) => format!("in pool {pool}"),
                None => "in no pool".to_owned(),
            };
            let head = format!("{} {pool} on {place}: {state}{owner}", name(address));
            shown.push_str(&folded(&head, "", width));
            for said in evidence {
                let detail = said.detail.as_deref().unwrap_or("-");
                let who = [said.mac.as_deref(), said.interface.as_deref()];
                let who: Vec<_> = who.into_iter().flatten().collect();
                let who =
                    if who.is_empty() { String::new() } else { format!(" ({})", who.join(" on ")) };
                let since = ago(said.since, screen.now);
                let line = format!("{}: {detail}{who}, since {since}", said.brief());
                shown.push_str(&folded(&line, "  ", width));
            }
            if evidence.is_empty() {
                shown.push_str("  nothing speaks for it\n");
            }
            let next = format!("next: {}", next.as_deref().unwrap_or("-"));
            shown.push_str(&folded(&next, "  ", width));
        }
        for source in self.sources.iter().filter(|source| !source.healthy) {
            let why = source.why.as_deref().unwrap_or("it does not answer completely");
            let name = source.name.as_deref().unwrap_or("-");
            shown.push_str(&folded(&format!("source {name} fails: {why}"), "", width));
        }
        if let Some(result) = &self.last_result {
            let at = ago(self.last_pass, screen.now);
            shown.push_str(&format!("last pass of the reconciler: {result}, {at}\n"));
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            evidence::tests::{WIRE, wire},
            lease::tests::{ACTIVE, active},
            testing::{golden, shown, stamp},
        },
        *,
    };

    #[test]
    fn a_pass_that_waits_for_consent() {
        let response = proto::ReconcileResponse {
            result: proto::PassResult::Blocked.into(),
            why: "9 leases would be released at once; if that is right, `guardctl reconcile \
                  --consent 0badcafe`"
                .to_owned(),
            blocked: vec![active()],
            consent: "0badcafe".to_owned(),
            ..proto::ReconcileResponse::default()
        };
        let reconciled = Reconciled::new(response, false);
        golden(
            &reconciled,
            &format!(
                r#"{{"dry_run":false,"result":"blocked","why":"9 leases would be released at once; 
                if that is right, `guardctl reconcile --consent 0badcafe`","silent":[],
                "reaped":[],"unverifiable":[],"blocked":[{ACTIVE}],"consent":"0badcafe"}}"#
            ),
        );
        assert!(shown(&reconciled).starts_with("blocked: 9 leases"));
    }

    #[test]
    fn why_says_who_says_what_and_what_comes_next() {
        let why = Why::from(proto::WhyResponse {
            explanations: vec![proto::Explanation {
                address: "10.8.64.9".to_owned(),
                pool: "sandboxes".to_owned(),
                bridge: "rt0".to_owned(),
                evidence: vec![wire()],
                next: "it is in use without a lease".to_owned(),
                ..proto::Explanation::default()
            }],
            sources: vec![],
            last_pass: stamp(50),
            last_result: "done".to_owned(),
        });
        golden(
            &why,
            &format!(
                r#"{{"explanations":[{{"address":"10.8.64.9","pool":"sandboxes","bridge":"rt0",
                "vlan":0,"inner_vlan":0,"state":"free","lease":null,"evidence":[{WIRE}],
                "next":"it is in use without a lease"}}],"sources":[],
                "last_pass":"1970-01-01T00:00:50Z","last_result":"done"}}"#
            ),
        );
        assert_eq!(
            shown(&why),
            "10.8.64.9 in pool sandboxes on rt0: free\n  \
             wire 3s: claimed by ARP (02:00:00:00:00:0c on veth-c), since 10s ago\n  \
             next: it is in use without a lease\n\
             last pass of the reconciler: done, 10s ago\n"
        );
    }

    #[test]
    fn why_says_of_an_address_that_no_pool_has_where_it_is_in_use() {
        let why = Why::from(proto::WhyResponse {
            explanations: vec![proto::Explanation {
                address: "10.8.64.9".to_owned(),
                bridge: "br0".to_owned(),
                vlan: 5,
                evidence: vec![wire()],
                next: "no pool has it: it is watched, and never handed out".to_owned(),
                ..proto::Explanation::default()
            }],
            ..proto::WhyResponse::default()
        });
        assert!(
            shown(&why).starts_with("10.8.64.9 in no pool on br0.5: in use\n"),
            "{}",
            shown(&why)
        );
    }
}
