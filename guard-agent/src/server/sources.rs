//! The sources of evidence, as the API shows them, and an operator's request to ignore one.

use std::{sync::Arc, time::Duration};

use guard_core::{
    evidence::{Source, Unreadable},
    lease::PoolStatus,
    time::Now,
};
use tonic::Status;

use super::{
    Deps, convert,
    error::{self, Invalid},
};
use crate::{clock, health::Degraded, inventory::SourceStatus};
use guard_api::proto;

/// As many unreadable entries as are listed of one source.
const MOST: usize = 64;

/// All sources: those of the agent itself first.
pub(super) async fn all(deps: &Deps) -> Vec<proto::SourceStatus> {
    let Deps { health, reconciler, ledger, .. } = deps;
    // Without a store nothing waits.
    let pools = ledger.pools().await.unwrap_or_default();
    let degraded = health.observer().map(|Degraded { what, why, .. }| format!("{what}: {why}"));
    let own = [Source::Wire, Source::Kernel].map(|source| proto::SourceStatus {
        name: source.name().to_owned(),
        healthy: health.booted() && degraded.is_none(),
        why: degraded.clone().unwrap_or_default(),
        ..proto::SourceStatus::default()
    });
    let now = clock::now();
    let asked = reconciler.sources().status();
    own.into_iter().chain(asked.iter().map(|status| message(status, &pools, now))).collect()
}

fn message(status: &SourceStatus, pools: &[PoolStatus], now: Now) -> proto::SourceStatus {
    let at = |time: Duration| convert::timestamp(now.wall_at(time));
    let why = |Unreadable { why, .. }: &Unreadable| why.to_string();
    proto::SourceStatus {
        name: status.source.name().to_owned(),
        healthy: status.healthy(),
        why: status.why().unwrap_or_default(),
        complete: status.complete.map(at),
        unreadable: status.unreadable.iter().take(MOST).map(why).collect(),
        unreadable_count: u32::try_from(status.unreadable.len()).unwrap_or(u32::MAX),
        away_since: status.failing.filter(|_| status.is_away(now.boot)).map(at),
        ignored_until: status.ignored.filter(|_| status.is_ignored(now.boot)).map(at),
        waiting: pools.iter().map(|pool| pool.waiting_for(status.name)).sum(),
    }
}

/// The sources that pools wait for, by their names in the configuration.
pub(super) fn away(deps: &Deps) -> Vec<&'static str> {
    let now = clock::now().boot;
    let away = |status: &SourceStatus| status.is_away(now) && !status.is_ignored(now);
    let all = deps.reconciler.sources().status();
    all.iter().filter(|status| away(status)).map(|status| status.name).collect()
}

/// Does without a source for a while.
pub(super) async fn ignore(
    deps: &Arc<Deps>,
    request: proto::IgnoreSourceRequest,
) -> Result<proto::IgnoreSourceResponse, Status> {
    let proto::IgnoreSourceRequest { name, duration, dry_run } = request;
    let missing = Invalid::Missing("duration is missing: ignore it for how long?");
    let span = error::to_span(duration.ok_or(missing)?)?;
    let ignored = deps.reconciler.sources().ignore(&name, span, dry_run);
    let status = ignored.map_err(|error| error::not_ignored(&error))?;
    let pools = deps.ledger.pools().await.unwrap_or_default();
    Ok(proto::IgnoreSourceResponse { source: Some(message(&status, &pools, clock::now())) })
}
