//! The reconciler: compares all leases with all evidence, and finds what no event reported.
//!
//! A pass reads the leases, then asks every source, then compares. What it may conclude is decided
//! by [`Look`] and [`Brake`], which are pure; misses and releases are transactions of the ledger,
//! which looks once more before each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use tokio::sync::{Mutex, watch};

use guard_core::{
    evidence::{DIRECTORY, Source},
    judgement::{Index, Subject, Verdict as Judged, judge_answer},
    lease::{
        Generation, Lease, Pools,
        command::{Command, CountMisses, Reason, Refusal, Reply},
    },
    reconcile::{Brake, Ended, Judgement, Look, Recent, Settings, Verdict, consent_id, is_over},
    time::Now,
};

use crate::{
    clock,
    health::{self, Health},
    inventory::Sources,
    ledger::Ledger,
    live::SharedEvidence,
    metrics::{Metrics, gauge_value},
};

/// What a pass works with.
pub struct Deps {
    /// How slow and how sure, to begin with.
    pub settings: Settings,
    /// How long the leases of a sandbox that is listed as dead are left to its controller.
    pub grace: Duration,
    /// The leases.
    pub ledger: Ledger,
    /// What is in use.
    pub live: Arc<SharedEvidence>,
    /// Who is asked.
    pub sources: Arc<Sources>,
    /// What is degraded.
    pub health: Arc<Health>,
    /// What Prometheus reads.
    pub metrics: Arc<Metrics>,
    /// What there may be leases of.
    pub pools: Pools,
}

/// Makes passes, one at a time.
pub struct Reconciler {
    deps: Deps,
    settings: watch::Sender<Settings>,
    state: Mutex<State>,
    last: RwLock<Option<Last>>,
}

/// What one pass leaves to the next.
#[derive(Debug, Default)]
struct State {
    /// What waits for an operator's consent.
    blocked: Option<Blocked>,
    recent: Recent,
}

/// A mass release that was stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocked {
    /// What an operator says to agree.
    pub id: String,
    /// What would be released.
    pub leases: Vec<Arc<Lease>>,
}

/// When the last pass was and what came of it, for people.
#[derive(Clone, Debug)]
pub struct Last {
    /// When it began.
    pub at: Now,
    /// `done`, `ended`, `blocked` or `failed`.
    pub result: &'static str,
    /// Why it did not do all.
    pub why: Option<String>,
}

/// What is asked of a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Only say what would come of it.
    pub dry_run: bool,
    /// The id of a mass release that is agreed to.
    pub consent: Option<String>,
}

/// What came of a pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Why nothing was concluded.
    pub ended: Option<Ended>,
    /// Leases that nothing speaks for, with their misses.
    pub silent: Vec<Arc<Lease>>,
    /// Leases that were taken back, as they are now.
    pub reaped: Vec<Arc<Lease>>,
    /// Leases that nothing speaks for, and nobody can tell whether that means anything.
    pub unverifiable: Vec<Arc<Lease>>,
    /// What waits for consent.
    pub blocked: Option<Blocked>,
}

impl Report {
    /// The word for it in JSON, metrics and logs.
    pub fn result(&self) -> &'static str {
        match self {
            Self { ended: Some(_), .. } => "ended",
            Self { blocked: Some(_), .. } => "blocked",
            _ => "done",
        }
    }

    /// Why it did not do all.
    pub fn why(&self) -> Option<String> {
        let blocked = |Blocked { id, leases }: &Blocked| {
            format!(
                "{} leases would be released at once; if that is right, \
                 `guardctl reconcile --consent {id}`",
                leases.len()
            )
        };
        self.ended.as_ref().map(ToString::to_string).or(self.blocked.as_ref().map(blocked))
    }
}

impl Reconciler {
    /// Makes no pass yet.
    pub fn new(deps: Deps) -> Self {
        let settings = watch::Sender::new(deps.settings);
        Self { deps, settings, state: Mutex::default(), last: RwLock::default() }
    }

    /// Makes a pass in each interval.
    pub async fn run(&self) {
        let mut settings = self.settings.subscribe();
        loop {
            let interval = settings.borrow_and_update().interval;
            tokio::select! {
                () = tokio::time::sleep(interval) => {
                    // What went wrong is logged and counted; the next pass tries again.
                    let _ = self.pass(Ask::default()).await;
                }
                // Another interval begins now.
                _ = settings.changed() => {}
            }
        }
    }

    /// How slow and how sure.
    pub fn settings(&self) -> Settings {
        *self.settings.borrow()
    }

    /// How slow and how sure from now on.
    pub fn set(&self, settings: Settings) {
        self.settings.send_replace(settings);
    }

    /// How the sources are.
    pub fn sources(&self) -> &Sources {
        &self.deps.sources
    }

    /// What came of the last pass that was no dry run.
    pub fn last(&self) -> Option<Last> {
        self.last.read().clone()
    }

    /// Makes a pass.
    ///
    /// # Errors
    /// The ledger refuses, or nothing waits for this consent.
    pub async fn pass(&self, ask: Ask) -> Result<Report, Refusal> {
        let State { blocked, recent } = &mut *self.state.lock().await;
        let consented = consented(ask.consent.as_deref(), blocked.as_ref())?;
        let (began, at) = (Instant::now(), clock::now());
        let Settings { interval, misses, .. } = self.settings();
        recent.forget(at.boot.saturating_sub(interval.saturating_mul(misses)));
        let outcome = self.look_and_act(&consented, recent, ask.dry_run, at).await;
        if ask.dry_run {
            return outcome;
        }
        let Deps { metrics, health, .. } = &self.deps;
        metrics.passes.reconcile_duration.observe(began.elapsed().as_secs_f64());
        let (result, why) = match &outcome {
            Ok(report) => (report.result(), report.why()),
            Err(refusal) => ("failed", Some(refusal.to_string())),
        };
        metrics.passes.reconcile_runs.with_label_values(&[result]).inc();
        match &outcome {
            Ok(report) => {
                self.tell(report);
                if report.ended.is_none() {
                    blocked.clone_from(&report.blocked);
                    self.count_blocked(blocked.as_ref());
                }
            }
            // The store says so itself, once, and when it is over.
            Err(refusal) if refusal.reason.is_store() => {
                health.degraded(health::STORE, &refusal.message);
            }
            Err(refusal) => tracing::warn!(%refusal, "reconcile: the pass failed"),
        }
        *self.last.write() = Some(Last { at, result, why });
        outcome
    }

    async fn look_and_act(
        &self,
        consented: &BTreeSet<Generation>,
        recent: &mut Recent,
        dry_run: bool,
        at: Now,
    ) -> Result<Report, Refusal> {
        let Deps { ledger, live, sources, health, .. } = &self.deps;
        let ended = |ended| Report { ended: Some(ended), ..Report::default() };
        let degraded = || {
            let degraded = health.observer()?;
            Some(Ended::Degraded { what: degraded.what, why: degraded.why })
        };
        // Reservations first, evidence second.
        let leases = ledger.reservations().await?;
        let read = clock::now().boot;
        let heard = sources.ask().await;
        if let Some(why) = degraded() {
            return Ok(ended(why));
        }
        let boot = ledger.boot();
        let look = Look { leases: &leases, read, heard: &heard, boot };
        let Judgement { silent, seen, unverifiable } = match look.judge(&**live) {
            Ok(judgement) => judgement,
            Err(why) => return Ok(ended(why)),
        };
        let Settings { interval, misses: threshold, max_reap_share } = self.settings();
        let silent = silent.iter().map(|lease| lease.generation).collect();
        let (started, since) = (at.boot, read);
        let found = CountMisses { silent, seen, started, since, interval, threshold };
        let silent = leases_of(self.ask(Command::CountMisses(found), dry_run).await?);
        let due: Vec<_> = silent.iter().filter(|l| l.misses >= threshold).cloned().collect();
        let due = match self.look_up(due).await {
            Ok(due) => due,
            Err(why) => return Ok(Report { silent, unverifiable, ..ended(why) }),
        };
        let brake = Brake { share: max_reap_share, boot, consented, recent };
        let Verdict { reap, blocked } = brake.apply(&due, &leases);
        let reaped = if reap.is_empty() {
            Vec::new()
        } else if dry_run {
            due.iter().filter(|lease| reap.contains(&lease.generation)).cloned().collect()
        } else {
            let reap = Command::Reap { generations: reap, threshold, since };
            let reaped = leases_of(self.ask(reap, false).await?);
            let unasked: Vec<_> = reaped.iter().filter(|lease| !brake.is_free(lease)).collect();
            recent.add(at.boot, unasked);
            reaped
        };
        if !dry_run {
            // The net beneath what tells that an address is used no more.
            self.ask(Command::RecheckAll, false).await?;
        }
        let blocked =
            (!blocked.is_empty()).then(|| Blocked { id: consent_id(&blocked), leases: blocked });
        Ok(Report { ended: None, silent, reaped, unverifiable, blocked })
    }

    /// Rule 5: of what is due, what the directory does not keep. That is before the brake, which
    /// counts what would be released: an index that lags is to block nothing.
    async fn look_up(&self, due: Vec<Arc<Lease>>) -> Result<Vec<Arc<Lease>>, Ended> {
        if due.is_empty() {
            return Ok(due);
        }
        let (mut over, mut doubtful) = (Vec::new(), Vec::new());
        let (index, now) = (self.index(), clock::now().boot);
        for lease in due {
            match Subject::lease(&lease).map(|of| index.judge(of, now, self.deps.grace)) {
                Some(Judged::Over(_)) => over.push(lease),
                Some(Judged::LookUp(doubt)) => doubtful.push((lease, doubt)),
                Some(Judged::Keep(_)) | None => {}
            }
        }
        let owners = doubtful.iter().filter_map(|(lease, _)| lease.owner.clone()).collect();
        let words = self
            .deps
            .sources
            .look_up(owners)
            .await
            .map_err(|error| Ended::Failed { name: DIRECTORY, why: error.to_string() })?;
        over.extend(doubtful.into_iter().filter_map(|(lease, doubt)| {
            // Where there is no directory, nobody is asked.
            let Some(words) = &words else { return Some(lease) };
            let word = words.get(lease.owner.as_ref()?).copied();
            let verdict = judge_answer(doubt, Ok(Some(word.into_iter().collect())));
            matches!(verdict, Judged::Over(_)).then_some(lease)
        }));
        Ok(over)
    }

    /// Whether it means anything that nothing speaks for a lease.
    pub fn is_verifiable(&self, lease: &Lease) -> bool {
        let Deps { ledger, live, sources, .. } = &self.deps;
        !sources.is_empty() || is_over(lease, ledger.boot(), &**live)
    }

    /// What the directory's index tells of a lease; nothing where there is no directory.
    pub fn judged(&self, lease: &Lease) -> Option<Judged> {
        let Deps { sources, grace, .. } = &self.deps;
        let subject = Subject::lease(lease).filter(|_| sources.has_directory())?;
        Some(self.index().judge(subject, clock::now().boot, *grace))
    }

    fn index(&self) -> Index {
        Index::new(self.deps.live.inventory().entries(Source::Controller))
    }

    async fn ask(&self, command: Command, dry_run: bool) -> Result<Reply, Refusal> {
        let ledger = &self.deps.ledger;
        if dry_run { ledger.preview(command).await } else { ledger.call(command).await }
    }

    fn tell(&self, report: &Report) {
        for lease in &report.reaped {
            self.deps.metrics.passes.reaped.with_label_values(&[&*lease.pool]).inc();
            tracing::info!(
                address = %lease.address, segment = %lease.segment, pool = &*lease.pool,
                generation = lease.generation, state = lease.state.name(),
                owner = lease.owner.as_ref().map(tracing::field::display),
                "reaped: nothing was left of it"
            );
        }
        let again = self.last.read().as_ref().is_some_and(|last| last.why == report.why());
        if let Some(why) = report.why().filter(|_| !again) {
            tracing::warn!(why, "reconcile: {}", report.result());
        }
    }

    fn count_blocked(&self, blocked: Option<&Blocked>) {
        let gauge = &self.deps.metrics.passes.reap_blocked;
        gauge.reset();
        let all = self.deps.pools.iter().map(|pool| (&**pool.name(), 0));
        let mut pools: BTreeMap<&str, usize> = all.collect();
        for lease in blocked.into_iter().flat_map(|blocked| &blocked.leases) {
            *pools.entry(&lease.pool).or_default() += 1;
        }
        for (pool, count) in pools {
            gauge.with_label_values(&[pool]).set(gauge_value(count));
        }
    }
}

/// What an operator has agreed to: what was shown to them under this id, and no more.
fn consented(
    consent: Option<&str>,
    blocked: Option<&Blocked>,
) -> Result<BTreeSet<Generation>, Refusal> {
    match (consent, blocked) {
        (None, _) => Ok(BTreeSet::new()),
        (Some(id), Some(blocked)) if blocked.id == id => {
            Ok(blocked.leases.iter().map(|lease| lease.generation).collect())
        }
        (Some(id), blocked) => {
            let message = match blocked {
                Some(Blocked { id: current, .. }) => format!(
                    "nothing waits for the consent {id:?} (any more): look at what would be \
                     released now with --dry-run, then consent to {current:?}"
                ),
                None => format!("nothing waits for the consent {id:?}, or for any other"),
            };
            Err(Refusal::new(Reason::ConsentUnknown, message))
        }
    }
}

fn leases_of(reply: Reply) -> Vec<Arc<Lease>> {
    match reply {
        Reply::Leases(leases) => leases,
        _ => Vec::new(),
    }
}
