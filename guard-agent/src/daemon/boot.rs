//! The boot pass, and the wait for a store that cannot be written.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use guard_core::lease::command::Command;
use tokio::{sync::watch, task::AbortHandle};

use super::build::Leases;
use crate::{
    config::{Config, WhenDegraded},
    daemon::malloc,
    health::{BOOT, Health, STORE},
    inventory::Awaited,
    ledger::Ledger,
    live::SharedEvidence,
    reconcile::{Ask, Reconciler},
    supervisor::Supervisor,
    watchdog::Watchdog,
};

/// How soon the boot pass is tried again.
const BOOT_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the boot pass, and what makes passes once it is over. Returns what is to be stopped before
/// the ledger is.
pub(super) fn start_passes(
    config: &Arc<Config>,
    leases: &Leases,
    reconciler: &Arc<Reconciler>,
    watchdog: &Arc<Watchdog>,
    supervisor: &Supervisor,
) -> Vec<AbortHandle> {
    let (over, booted) = watch::channel(false);
    let Leases { live, ledger, health, .. } = leases;
    let (live, ledger, health) = (live.clone(), ledger.clone(), health.clone());
    let pass = boot_pass(config.clone(), live, ledger, health, reconciler.clone());
    let pass = async move {
        pass.await;
        over.send_replace(true);
    };
    let mut tasks = vec![supervisor.spawn_once("boot pass", pass)];
    let (waits, reconciler) = (booted.clone(), reconciler.clone());
    tasks.push(supervisor.spawn("reconciler", async move {
        until(waits).await;
        reconciler.run().await;
    }));
    if config.watchdog.enabled {
        let watchdog = watchdog.clone();
        tasks.push(supervisor.spawn("watchdog", async move {
            until(booted).await;
            watchdog.run().await;
        }));
    }
    tasks
}

/// Waits until the boot pass is over. Where it is lost, so is the agent.
async fn until(mut booted: watch::Receiver<bool>) {
    if booted.wait_for(|over| *over).await.is_err() {
        pending::<()>().await;
    }
}

/// Lists the store as degraded while it is not there or cannot be written. Where the ledger has ended
/// there is nothing to list, and its own end is what the agent ends with.
pub(super) async fn watch_store(mut trouble: watch::Receiver<Option<String>>, health: Arc<Health>) {
    loop {
        let why = trouble.borrow_and_update().clone();
        match why {
            Some(why) => health.degraded(STORE, &why),
            None => health.recovered(STORE),
        }
        if trouble.changed().await.is_err() {
            return pending().await;
        }
    }
}

/// Rule 8: the observer has read ports, host addresses and maps, every configured source has
/// answered completely once, and the ledger has looked at every lease with that evidence. Only then
/// is anything handed out.
async fn boot_pass(
    config: Arc<Config>,
    live: Arc<SharedEvidence>,
    ledger: Ledger,
    health: Arc<Health>,
    reconciler: Arc<Reconciler>,
) {
    let began = Instant::now();
    let mut why = "it takes longer than allocate.boot_timeout".to_owned();
    loop {
        let left = config.boot_timeout.saturating_sub(began.elapsed());
        // Once it is late it takes as long as it takes.
        let left = if left.is_zero() { Duration::MAX } else { left };
        match tokio::time::timeout(left, look_at_everything(&live, &ledger, &reconciler)).await {
            Ok(Ok(())) => break,
            Ok(Err(reason)) => why = reason,
            Err(_) => {}
        }
        if began.elapsed() >= config.boot_timeout {
            health.degraded(BOOT, &why);
            if config.when_degraded == WhenDegraded::Allow {
                health.boot_pass_ended();
            }
        }
        tokio::time::sleep(BOOT_INTERVAL.min(left)).await;
    }
    health.recovered(BOOT);
    health.boot_pass_ended();
    malloc::give_back();
}

async fn look_at_everything(
    live: &SharedEvidence,
    ledger: &Ledger,
    reconciler: &Reconciler,
) -> Result<(), String> {
    let look = || async {
        ledger.call(Command::RecheckAll).await.map(drop).map_err(|refusal| refusal.to_string())
    };
    // What the observer has read, so that the pass does not miss it.
    look().await?;
    reconciler.pass(Ask::default()).await.map_err(|refusal| refusal.to_string())?;
    if let Some(Awaited { name, why, .. }) = reconciler.sources().unanswered() {
        return Err(format!("{name} has not answered completely yet: {why}"));
    }
    // From here on absence proves something.
    live.boot_pass_ended();
    // What the sources have answered.
    look().await
}
