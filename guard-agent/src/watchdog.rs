//! The watchdog: removes the containers whose sandboxes are over, and only then gives their
//! addresses back (leases.md rules 4 and 5).
//!
//! A pass reads the leases, then the containers, then the directory's index, so that whatever was
//! made meanwhile is known to those that are read later. Whom the index does not list is looked up
//! by name right before the removal. What becomes of a container is decided by the
//! [`guard_core::judgement`], and which leases go with it by [`due`]; these are pure.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use tokio::sync::Mutex;

use guard_core::{
    evidence::{Entry, EvidenceView as _, Source},
    judgement::{Index, Subject, Verdict, judge_answer},
    lease::{
        Lease,
        command::{Command, Reason, Refusal, Reply},
    },
    reconcile::Ended,
    watchdog::{Settings, Watched, due, is_mass_removal},
};

use crate::{
    clock,
    config::{containerd, inventory},
    health::{self, Health},
    inventory::{Sources, removal},
    ledger::Ledger,
    live::SharedEvidence,
    metrics::Metrics,
};

/// So many containers are looked up and removed at the same time.
const AT_ONCE: usize = 8;

/// What a pass works with.
pub(crate) struct Deps {
    /// Whether and how.
    pub settings: Settings,
    /// Where the containers and the directory are.
    pub places: inventory::Settings,
    /// The leases.
    pub ledger: Ledger,
    /// What the sources have listed.
    pub live: Arc<SharedEvidence>,
    /// Who is asked.
    pub sources: Arc<Sources>,
    /// What is degraded.
    pub health: Arc<Health>,
    /// What Prometheus reads.
    pub metrics: Arc<Metrics>,
}

/// Makes passes, one at a time.
pub(crate) struct Watchdog {
    deps: Deps,
    pass: Mutex<()>,
}

/// Who wants a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Somebody who wants to know what it would do.
    Dry,
    /// The interval is over. A mass removal waits for somebody to ask for it.
    Due,
    /// Somebody who has been shown what it does.
    Asked,
}

/// What came of a pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    /// Why nothing was concluded, or done.
    pub ended: Option<String>,
    /// All containers that were judged.
    pub watched: Vec<Watched>,
    /// Leases that were given back, as they are now.
    pub released: Vec<Arc<Lease>>,
}

impl Watchdog {
    /// Makes no pass yet.
    pub(crate) fn new(deps: Deps) -> Self {
        Self { deps, pass: Mutex::default() }
    }

    /// Makes a pass in each interval.
    pub(crate) async fn run(&self) {
        let Settings { interval, .. } = self.deps.settings;
        loop {
            tokio::time::sleep(interval).await;
            match self.pass(Pass::Due).await {
                Ok(Report { ended: Some(why), .. }) => tracing::warn!(why, "watchdog: no pass"),
                Ok(_) => {}
                Err(refusal) => tracing::warn!(%refusal, "watchdog: the pass failed"),
            }
        }
    }

    /// Makes a pass. A dry run asks everyone and changes nothing.
    ///
    /// # Errors
    /// It is off, has nobody to ask, or the ledger refuses.
    pub(crate) async fn pass(&self, pass: Pass) -> Result<Report, Refusal> {
        let dry_run = pass == Pass::Dry;
        let runtime = self.runtime(dry_run)?;
        let _one = self.pass.lock().await;
        let leases = self.deps.ledger.reservations().await?;
        let (containers, index) = match self.read().await {
            Ok(read) => read,
            Err(why) => {
                return Ok(Report { ended: Some(why.to_string()), ..Report::default() });
            }
        };
        let now = clock::now().boot;
        let named = containers.into_iter().filter(|container| container.named).map(|container| {
            let subject = Subject::container(&container);
            let verdict = index.judge(subject, now, self.deps.settings.grace);
            Watched { container, verdict, failed: None }
        });
        let named: Vec<_> = named.collect();
        if pass == Pass::Due
            && let Some(why) = self.holds_back(runtime, &named).await
        {
            return Ok(Report { ended: Some(why), ..Report::default() });
        }
        let watched = self.carry_out_all(runtime, named, dry_run).await;
        let due = due(&leases, &watched);
        let released = if dry_run {
            due
        } else {
            self.tell(&watched);
            self.release(due).await?
        };
        Ok(Report { ended: None, watched, released })
    }

    /// Where the containers are, if there is all that it takes.
    fn runtime(&self, dry_run: bool) -> Result<&containerd::Settings, Refusal> {
        let Deps { settings, places, .. } = &self.deps;
        let off = |what: &str| Err(Refusal::new(Reason::WatchdogOff, what));
        match places {
            inventory::Settings { containerd: None, directory: _ } => {
                off("the watchdog knows no containers: there is no [inventory.containerd] section")
            }
            inventory::Settings { containerd: _, directory: None } => {
                off("the watchdog has nobody to ask for sandboxes: there is no [directory] section")
            }
            inventory::Settings { containerd: Some(_), directory: Some(_) }
                if !settings.enabled && !dry_run =>
            {
                off("the watchdog is off: set enabled = true in [watchdog], or look with --dry-run")
            }
            inventory::Settings { containerd: Some(containerd), directory: Some(_) } => {
                Ok(containerd)
            }
        }
    }

    /// The containers, and then the index: it is no older than any of them.
    async fn read(&self) -> Result<(Vec<Entry>, Index), Ended> {
        let containers = self.listed(Source::Inventory).await?;
        Ok((containers, Index::new(self.listed(Source::Controller).await?)))
    }

    async fn listed(&self, source: Source) -> Result<Vec<Entry>, Ended> {
        if let Some(heard) = self.deps.sources.ask_one(source).await {
            Ended::unless_complete(&heard)?;
        }
        Ok(self.deps.live.inventory().entries(source))
    }

    /// Why nothing is removed unasked, if so. All are looked up before the first is removed, where it
    /// may come to that.
    async fn holds_back(
        &self,
        runtime: &containerd::Settings,
        named: &[Watched],
    ) -> Option<String> {
        let kept = named.iter().filter(|watched| matches!(watched.verdict, Verdict::Keep(_)));
        if !is_mass_removal(named.len() - kept.count(), named.len()) {
            return None;
        }
        let watched = self.carry_out_all(runtime, named.to_vec(), true).await;
        let removals = watched.iter().filter(|watched| watched.is_removed()).count();
        if !is_mass_removal(removals, named.len()) {
            return None;
        }
        let why = format!(
            "{removals} of {} containers would be removed at once: has the directory lost its list? \
             Look at them with `guardctl watchdog --dry-run`, and have them removed with \
             `guardctl watchdog`",
            named.len()
        );
        self.deps.health.degraded(health::WATCHDOG, &why);
        Some(why)
    }

    async fn carry_out_all(
        &self,
        runtime: &containerd::Settings,
        all: Vec<Watched>,
        dry_run: bool,
    ) -> Vec<Watched> {
        let all = all.into_iter().map(|watched| self.carry_out(runtime, watched, dry_run));
        stream::iter(all).buffered(AT_ONCE).collect().await
    }

    /// Looks a container up, if that is to be done, and removes it, if nothing keeps it.
    async fn carry_out(
        &self,
        runtime: &containerd::Settings,
        mut watched: Watched,
        dry_run: bool,
    ) -> Watched {
        let Deps { settings, sources, metrics, .. } = &self.deps;
        let Watched { container, verdict, failed } = &mut watched;
        if let Verdict::LookUp(doubt) = *verdict {
            let names = Subject::container(container).names().collect();
            let words = sources.look_up(names).await.map_err(|error| error.to_string());
            let answer = words.map(|words| Some(words?.into_values().collect()));
            *verdict = judge_answer(doubt, answer);
        }
        let Verdict::Over(cause) = verdict else { return watched };
        if dry_run {
            return watched;
        }
        let result = match removal::remove(runtime, container, settings.stop_timeout).await {
            Ok(()) => {
                let Entry { id, owner, .. } = &*container;
                tracing::info!(container = &**id, %owner, why = %cause, "watchdog: removed");
                "removed"
            }
            Err(error) => {
                *failed = Some(error.to_string());
                "failed"
            }
        };
        metrics.passes.watchdog_removed.with_label_values(&[result]).inc();
        watched
    }

    /// What cannot be removed is reported until it is gone.
    fn tell(&self, watched: &[Watched]) {
        let failed = |watched: &Watched| {
            let Watched { container: Entry { id, owner, .. }, verdict: _, failed } = watched;
            let why = failed.as_ref()?;
            Some(format!("container {id} of sandbox {owner} cannot be removed: {why}"))
        };
        let mut failed = watched.iter().filter_map(failed);
        let health = &self.deps.health;
        let Some(first) = failed.next() else { return health.recovered(health::WATCHDOG) };
        let more = match failed.count() {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let why = format!("{first}{more}; its leases are kept, and the next pass tries again");
        health.degraded(health::WATCHDOG, &why);
    }

    /// Gives leases back, as long as no source knows of their owners any more. What is left is the
    /// reconciler's.
    async fn release(&self, due: Vec<Arc<Lease>>) -> Result<Vec<Arc<Lease>>, Refusal> {
        let mut released = Vec::new();
        if due.is_empty() {
            return Ok(released);
        }
        let Deps { ledger, live, .. } = &self.deps;
        if let Err(why) = self.listed(Source::Inventory).await {
            tracing::warn!(%why, "watchdog: the leases of what it removed are kept for now");
            return Ok(released);
        }
        let gone = |lease: &Arc<Lease>| {
            let owner = lease.owner.as_ref();
            owner.is_some_and(|owner| !live.knows(owner))
        };
        for lease in due.iter().filter(|lease| gone(lease)) {
            let command = Command::Release(lease.generation);
            if let Reply::Released(_, leases) = ledger.call(command).await? {
                released.extend(leases);
            }
        }
        Ok(released)
    }
}
