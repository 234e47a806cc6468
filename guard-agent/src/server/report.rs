//! What operators' commands return, a page at a time. A report has several lists; what was done comes
//! first, since it cannot be asked for again: what was only seen can.

use std::sync::Arc;

use guard_core::{
    lease::{Lease, LeaseKey},
    watchdog::Watched,
};

use super::{
    Deps, convert,
    page::{self, Page},
};
use guard_api::proto;

use crate::{
    reconcile::{self, Blocked},
    store::Recovered,
    watchdog,
};

/// How much of a text a token has, so that the token stays short.
const PREFIX: usize = 200;

/// What a pass of the reconciler found. `again` goes on with the report of a pass that was no dry run:
/// what would be done by now is not what it did.
pub(super) fn reconciled(
    deps: &Deps,
    report: reconcile::Report,
    page: &mut Page<(u8, LeaseKey)>,
    again: bool,
) -> proto::ReconcileResponse {
    let result = match report.result() {
        "ended" => proto::PassResult::Ended,
        "blocked" => proto::PassResult::Blocked,
        _ => proto::PassResult::Done,
    };
    let why = report.why().unwrap_or_default();
    let reconcile::Report { ended: _, silent, mut reaped, unverifiable, blocked } = report;
    let (consent, blocked) =
        blocked.map_or_else(Default::default, |Blocked { id, leases }: Blocked| (id, leases));
    if again {
        reaped.clear();
    }
    let total = [&reaped, &blocked, &silent, &unverifiable].map(Vec::len).iter().sum();
    let mut list = |number: u8, leases: Vec<Arc<Lease>>| {
        let key = |lease: &Arc<Lease>| (number, page::lease_key(lease));
        page.of_all(leases, key, |lease| deps.message(lease))
    };
    let (reaped, blocked) = (list(0, reaped), list(1, blocked));
    let (silent, unverifiable) = (list(2, silent), list(3, unverifiable));
    proto::ReconcileResponse {
        result: result.into(),
        why,
        silent,
        reaped,
        unverifiable,
        blocked,
        consent,
        next_page_token: page.next(),
        seq: page.seq,
        total_size: page::count(total),
    }
}

/// What a pass of the watchdog found, as [`reconciled`].
pub(super) fn watched(
    deps: &Deps,
    report: watchdog::Report,
    page: &mut Page<(u8, Vec<String>)>,
    again: bool,
) -> proto::WatchdogResponse {
    let watchdog::Report { ended, watched, mut released } = report;
    let result = match &ended {
        Some(_) => proto::PassResult::Ended,
        None => proto::PassResult::Done,
    };
    let is_kept = |it: &Watched| !it.is_removed() && it.failed.is_none();
    let (kept, mut removed): (Vec<_>, Vec<_>) = watched.into_iter().partition(is_kept);
    if again {
        removed.clear();
        released.clear();
    }
    let total = removed.len() + released.len() + kept.len();
    let id = |number, it: &Watched| (number, vec![it.container.id.to_string()]);
    let mut containers = page.of_all(removed, |it| id(0, it), |it| convert::watched(it.clone()));
    let key = |lease: &Arc<Lease>| (1, page::Key::parts(&page::lease_key(lease)));
    let released = page.of_all(released, key, |lease| deps.message(lease));
    containers.extend(page.of_all(kept, |it| id(2, it), |it| convert::watched(it.clone())));
    proto::WatchdogResponse {
        result: result.into(),
        why: ended.unwrap_or_default(),
        containers,
        released,
        next_page_token: page.next(),
        seq: page.seq,
        total_size: page::count(total),
    }
}

/// What a recovery makes, or would make. One that was carried out cannot be asked about again.
pub(super) fn recovered(
    recovered: Recovered,
    page: &mut Page<(u8, Vec<String>)>,
    dry_run: bool,
) -> proto::RecoverResponse {
    let Recovered { kept, from_backup, quarantined, lost, moved_to } = recovered;
    let total = quarantined.len() + lost.len();
    let quarantined = page.of_all(quarantined, |text| (0, text_key(text)), String::clone);
    let lost = page.of_all(lost, |text| (1, text_key(text)), String::clone);
    proto::RecoverResponse {
        kept: kept as u64,
        from_backup: from_backup as u64,
        quarantined,
        lost,
        moved_to: moved_to.map(|path| path.display().to_string()).unwrap_or_default(),
        next_page_token: if dry_run { page.next() } else { String::new() },
        total_size: page::count(total),
    }
}

/// What disagrees.
pub(super) fn checked(
    disagreements: Vec<proto::Disagreement>,
    page: &mut Page<Vec<String>>,
) -> proto::CheckResponse {
    let key = |one: &proto::Disagreement| {
        let proto::Disagreement { between, address, bridge, vlan, what } = one;
        let mut key = vec![between.clone(), bridge.clone(), format!("{vlan:04}"), address.clone()];
        key.extend(text_key(what));
        key
    };
    let total_size = page::count(disagreements.len());
    let disagreements = page.of_all(disagreements, key, proto::Disagreement::clone);
    let (next_page_token, seq) = (page.next(), page.seq);
    proto::CheckResponse { disagreements, next_page_token, seq, total_size }
}

/// A text's beginning, and its checksum: it may be long.
fn text_key(text: &str) -> Vec<String> {
    let beginning = &text[..text.floor_char_boundary(PREFIX)];
    vec![beginning.to_owned(), format!("{:08x}", crc32fast::hash(text.as_bytes()))]
}
