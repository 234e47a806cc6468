use guard_api::{json, proto};

use super::{Answer, ago, conflict, drops, evidence::brief, head, inner_segment, lease, or_dash};
use crate::{
    output::{Screen, View},
    table::folded,
};

/// What came of a pass of the reconciler.
impl View for Answer<proto::ReconcileResponse> {
    fn text(&self, screen: Screen) -> String {
        let mut shown = head(self.dry_run).to_owned();
        let width = usize::from(screen.width);
        let result = or_dash(self.response.result().word());
        let proto::ReconcileResponse { why, silent, reaped, unverifiable, blocked, .. } =
            &self.response;
        match &**why {
            "" => shown.push_str(&format!("{result}\n")),
            why => shown.push_str(&folded(&format!("{result}: {why}"), "", width)),
        }
        let title = if self.dry_run { "would be taken back:" } else { "taken back:" };
        let lists = [
            (title, reaped),
            ("wait for consent:", blocked),
            ("kept, since nobody can tell whether they are over:", unverifiable),
        ];
        for (title, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            shown.push_str(&format!("{title}\n{}", lease::table(list, screen)));
        }
        if !silent.is_empty() {
            shown.push_str("nothing speaks for:\n");
        }
        for proto::Lease { address, pool, misses, .. } in silent {
            let line = format!("{} in {}: misses {misses}", or_dash(address), or_dash(pool));
            shown.push_str(&folded(&line, "  ", width));
        }
        shown
    }
}

/// What is known of an address.
impl View for proto::WhyResponse {
    fn text(&self, screen: Screen) -> String {
        let width = usize::from(screen.width);
        let proto::WhyResponse { explanations, sources, last_pass, last_result, .. } = self;
        let mut shown: String = explanations.iter().map(|one| explained(one, screen)).collect();
        if explanations.is_empty() {
            shown.push_str("no lease is bound to it\n");
        }
        shown.push_str(&broken(&self.drops, &self.conflicts, screen));
        for source in sources.iter().filter(|source| !source.healthy) {
            let why = match &*source.why {
                "" => "it does not answer completely",
                why => why,
            };
            let name = or_dash(&source.name);
            shown.push_str(&folded(&format!("source {name} fails: {why}"), "", width));
        }
        if !last_result.is_empty() {
            let at = ago(*last_pass, screen.now);
            shown.push_str(&format!("last pass of the reconciler: {last_result}, {at}\n"));
        }
        shown
    }
}

/// What broke the rules.
fn broken(drops: &[proto::Drops], conflicts: &[proto::Conflict], screen: Screen) -> String {
    let mut shown = String::new();
    if !drops.is_empty() {
        let table = drops::table(drops, screen, "");
        shown.push_str(&format!("frames that break the rules:\n{table}"));
    }
    if !conflicts.is_empty() {
        let table = conflict::table(conflicts, screen);
        shown.push_str(&format!("incidents:\n{table}"));
    }
    shown
}

fn explained(explanation: &proto::Explanation, screen: Screen) -> String {
    let width = usize::from(screen.width);
    let proto::Explanation { address, pool, bridge, vlan, inner_vlan, lease, evidence, next } =
        explanation;
    let owner = lease.as_ref().map_or("", |lease| &lease.sandbox);
    let owner = if owner.is_empty() { "" } else { &format!(", sandbox {owner}") };
    let pool = if pool.is_empty() { "in no pool" } else { &format!("in pool {pool}") };
    let place = inner_segment(bridge, *vlan, *inner_vlan);
    let (address, state) = (or_dash(address), json::state(explanation));
    let head = format!("{address} {pool} on {place}: {state}{owner}");
    let mut shown = folded(&head, "", width);
    for said in evidence {
        let who = [&*said.mac, &*said.interface].into_iter().filter(|who| !who.is_empty());
        let who = who.collect::<Vec<_>>().join(" on ");
        let who = if who.is_empty() { "" } else { &format!(" ({who})") };
        let (detail, since) = (or_dash(&said.detail), ago(said.since, screen.now));
        let line = format!("{}: {detail}{who}, since {since}", brief(said));
        shown.push_str(&folded(&line, "  ", width));
    }
    if evidence.is_empty() {
        shown.push_str("  nothing speaks for it\n");
    }
    shown.push_str(&folded(&format!("next: {}", or_dash(next)), "  ", width));
    shown
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            evidence::tests::wire,
            lease::tests::active,
            testing::{shown, stamp},
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
        let reconciled = Answer { dry_run: false, response };
        assert!(shown(&reconciled).starts_with("blocked: 9 leases"));
    }

    #[test]
    fn why_says_who_says_what_and_what_comes_next() {
        let why = proto::WhyResponse {
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
            ..proto::WhyResponse::default()
        };
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
        let why = proto::WhyResponse {
            explanations: vec![proto::Explanation {
                address: "10.8.64.9".to_owned(),
                bridge: "br0".to_owned(),
                vlan: 5,
                evidence: vec![wire()],
                next: "no pool has it: it is watched, and never handed out".to_owned(),
                ..proto::Explanation::default()
            }],
            ..proto::WhyResponse::default()
        };
        assert!(
            shown(&why).starts_with("10.8.64.9 in no pool on br0.5: in use\n"),
            "{}",
            shown(&why)
        );
    }
}
