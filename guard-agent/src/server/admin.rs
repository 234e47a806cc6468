//! `guard.v1.Admin`.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use guard_core::{
    evidence::EvidenceView as _,
    lease::{
        Engine, Lease, LeaseFilter, LeaseKey, Order, Pool, Pools, Run, Standing, State, Stretch,
        StretchOf,
        command::{Command, Reason, Refusal, Reply},
    },
    owner::Owner,
    reconcile::port_is_gone,
};
use prost::Message as _;
use tokio::{task::spawn_blocking, time::timeout};
use tonic::{Request, Response, Status};

use super::{
    Deps, audit, check, enforcement,
    error::{self, Invalid},
    leases::addresses,
    page::{self, AT_ONCE, Key, Page, Paged},
    report, sources,
};
use guard_api::proto::{self, Outcome, QuarantineAction};

use crate::{clock, inventory::host_local, ledger::Recovery, reconcile, store::HandedIn, watchdog};

/// How long files may take that an administrator names.
const FILES_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Service(pub Arc<Deps>);

#[tonic::async_trait]
impl proto::admin_server::Admin for Service {
    async fn backup(
        &self,
        request: Request<proto::BackupRequest>,
    ) -> Result<Response<proto::BackupResponse>, Status> {
        let path = absolute(request.into_inner().path)?;
        let copied = self.0.ledger.snapshot().await.map_err(error::refused)?;
        let snapshot = copied.map_err(|error| error::store(&error))?;
        let rows = snapshot.rows;
        let to = path.clone();
        let written = with_files(&path, move || snapshot.write(&to)).await?;
        written.map_err(|error| error::store(&error))?;
        let path = path.display().to_string();
        tracing::info!(path, rows, "the lease store was backed up");
        let what = format!("{rows} rows to {path:?}");
        Ok(audit::changed(proto::BackupResponse { path, rows }, Some(what)))
    }

    async fn recover(
        &self,
        request: Request<proto::RecoverRequest>,
    ) -> Result<Response<proto::RecoverResponse>, Status> {
        let mut request = request.into_inner();
        let mut page = self.page("Recover", &mut request)?;
        let proto::RecoverRequest { from, dry_run, .. } = request;
        let from = if from.is_empty() { None } else { Some(self.handed_in(from).await?) };
        let kernel = self.0.owners.leased_in_kernel().map_err(|error| {
            error::not_in_kernel(format!("the kernel's map of owners cannot be read: {error}"))
        })?;
        let ask = Recovery { from, kernel, dry_run };
        let recovered = self.0.ledger.recover(ask).await.map_err(error::refused)?;
        let recovered = recovered.map_err(|error| error::store(&error))?;
        Ok(audit::unless(dry_run, report::recovered(recovered, &mut page, dry_run)))
    }

    async fn check(
        &self,
        request: Request<proto::CheckRequest>,
    ) -> Result<Response<proto::CheckResponse>, Status> {
        let mut page = self.page("Check", &mut request.into_inner())?;
        let disagreements = check::check(&self.0).await.map_err(error::refused)?;
        Ok(Response::new(report::checked(disagreements, &mut page)))
    }

    async fn gc(
        &self,
        request: Request<proto::GcRequest>,
    ) -> Result<Response<proto::GcResponse>, Status> {
        let mut request = request.into_inner();
        let mut page = self.page("Gc", &mut request)?.of_work();
        let dry_run = request.dry_run;
        // What is not seen is no reason while not all is seen.
        self.0.may_allocate(std::iter::empty())?;
        let (gone, mut unverifiable) = self.silent(&mut page).await.map_err(error::refused)?;
        // Reservations first, evidence second.
        let since = clock::now().boot;
        self.0.reconciler.sources().ask().await;
        let generations = gone.iter().map(|lease| lease.generation).collect();
        // It looks once more: one of them may be in use by now.
        let reap = Command::Reap { generations, threshold: 0, since };
        let released = match self.call(reap, dry_run).await? {
            Reply::Leases(leases) => leases,
            _ => Vec::new(),
        };
        // What a source has yet to answer for stays.
        let waits = |lease: &&Arc<Lease>| self.0.live.complete(&lease.segment, since).is_err();
        unverifiable.extend(gone.iter().filter(waits).cloned());
        let response = proto::GcResponse {
            released: self.messages(&released),
            unverifiable: self.messages(&unverifiable),
            next_page_token: page.next(),
            seq: page.seq,
        };
        let what = addresses(&released).filter(|_| !dry_run);
        Ok(audit::changed(response, what))
    }

    async fn reconcile(
        &self,
        request: Request<proto::ReconcileRequest>,
    ) -> Result<Response<proto::ReconcileResponse>, Status> {
        let mut request = request.into_inner();
        let mut page = self.page("Reconcile", &mut request)?;
        let proto::ReconcileRequest { dry_run, consent, .. } = request;
        let again = !dry_run && page.after.is_some();
        let consent = Some(consent).filter(|consent| !again && !consent.is_empty());
        let ask = reconcile::Ask { dry_run: dry_run || again, consent };
        let report = self.0.reconciler.pass(ask).await.map_err(error::refused)?;
        Ok(audit::unless(dry_run || again, report::reconciled(&self.0, report, &mut page, again)))
    }

    async fn watchdog(
        &self,
        request: Request<proto::WatchdogRequest>,
    ) -> Result<Response<proto::WatchdogResponse>, Status> {
        let mut request = request.into_inner();
        let mut page = self.page("Watchdog", &mut request)?;
        let again = !request.dry_run && page.after.is_some();
        let dry_run = request.dry_run || again;
        let pass = if dry_run { watchdog::Pass::Dry } else { watchdog::Pass::Asked };
        let watchdog = self.0.watchdog.clone();
        // It goes on to its end, whoever waits for it.
        let pass = tokio::spawn(async move { watchdog.pass(pass).await });
        let pass = pass.await.map_err(|error| Status::internal(error.to_string()))?;
        let report = pass.map_err(error::refused)?;
        Ok(audit::unless(dry_run, report::watched(&self.0, report, &mut page, again)))
    }

    async fn force_release(
        &self,
        request: Request<proto::ForceReleaseRequest>,
    ) -> Result<Response<proto::ReleaseResponse>, Status> {
        let proto::ForceReleaseRequest { pool, address, dry_run } = request.into_inner();
        let config = self.0.config();
        let (pool, address) = (find(&config.pools, &pool)?, to_address(address)?);
        let command = Command::ForceRelease { segment: pool.segment().clone(), address };
        let (outcome, leases) = match self.call(command, dry_run).await? {
            Reply::Released(State::Releasing, leases) => (Outcome::Releasing, leases),
            Reply::Released(_, leases) => (Outcome::Cooling, leases),
            _ => (Outcome::NotFound, Vec::new()),
        };
        let what = addresses(&leases).filter(|_| !dry_run);
        if !dry_run {
            tracing::warn!(%address, pool = &**pool.name(), ?outcome, "a lease was ended by force");
        }
        Ok(audit::changed(self.0.released(outcome, leases), what))
    }

    async fn ignore_source(
        &self,
        request: Request<proto::IgnoreSourceRequest>,
    ) -> Result<Response<proto::IgnoreSourceResponse>, Status> {
        sources::ignore(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn set_mode(
        &self,
        request: Request<proto::SetModeRequest>,
    ) -> Result<Response<proto::SetModeResponse>, Status> {
        let request = request.into_inner();
        let dry_run = request.dry_run;
        let (response, what) = enforcement::set_mode(&self.0, request)?;
        Ok(audit::changed(response, Some(what).filter(|_| !dry_run)))
    }

    async fn resume_enforcement(
        &self,
        request: Request<proto::ResumeEnforcementRequest>,
    ) -> Result<Response<proto::ResumeEnforcementResponse>, Status> {
        let request = request.into_inner();
        let response = enforcement::resume(&self.0, &request)?;
        Ok(audit::changed(response, Some(request.bridge)))
    }

    async fn quarantine(
        &self,
        request: Request<proto::QuarantineRequest>,
    ) -> Result<Response<proto::QuarantineResponse>, Status> {
        let mut request = request.into_inner();
        let mut page = self.page("Quarantine", &mut request)?;
        let action = request.action();
        let proto::QuarantineRequest { pool, address, dry_run, .. } = request;
        let config = self.0.config();
        let what = format!("{}: {address} in pool {pool}", action.as_str_name());
        let command = match action {
            QuarantineAction::Add | QuarantineAction::Remove => {
                let segment = find(&config.pools, &pool)?.segment().clone();
                let address = to_address(address)?;
                if action == QuarantineAction::Add {
                    Command::Quarantine { segment, address }
                } else {
                    Command::Unquarantine { segment, address }
                }
            }
            QuarantineAction::List | QuarantineAction::Unspecified => {
                let pool = named(&config.pools, &pool)?;
                let filter = LeaseFilter {
                    state: Some(State::Quarantined),
                    pool: pool.map(|pool| Arc::clone(pool.name())),
                    ..LeaseFilter::default()
                };
                let leases = self.0.page(filter, &mut page).await.map_err(error::refused)?;
                let response = proto::QuarantineResponse {
                    outcome: Outcome::Done.into(),
                    leases,
                    next_page_token: page.next(),
                    seq: page.seq,
                };
                return Ok(audit::unless(true, response));
            }
        };
        let response = match self.call(command, dry_run).await? {
            Reply::Leases(leases) => quarantined(Outcome::Done, self.messages(&leases)),
            Reply::NotFound => quarantined(Outcome::NotFound, Vec::new()),
            _ => quarantined(Outcome::Done, Vec::new()),
        };
        let what = Some(what).filter(|_| !dry_run && response.outcome() == Outcome::Done);
        Ok(audit::changed(response, what))
    }

    async fn adopt(
        &self,
        request: Request<proto::AdoptRequest>,
    ) -> Result<Response<proto::AdoptResponse>, Status> {
        let mut request = request.into_inner();
        let mut page = self.page("Adopt", &mut request)?.of_work();
        let proto::AdoptRequest { from_host_local, pool, dry_run, .. } = request;
        let config = self.0.config();
        let only = named(&config.pools, &pool)?;
        let directory = absolute(from_host_local)?;
        let found = with_files(&directory.clone(), move || host_local::read(&directory)).await?;
        let mut found = found.map_err(|error| error::reservations(&error))?;
        found.sort_by_key(|reservation| reservation.address);
        let (mut adopted, mut refused) = (Vec::new(), Vec::new());
        for reservation in found {
            let address = reservation.address;
            if page.after.is_some_and(|after| address <= after) {
                continue;
            }
            if page.is_full() {
                page.end();
                break;
            }
            match self.adopt_one(reservation, &config.pools, only, dry_run).await? {
                Ok(leases) => {
                    let leases = self.messages(&leases);
                    page.add(&address, leases.iter().map(proto::Lease::encoded_len).sum());
                    adopted.extend(leases);
                }
                Err(not_adopted) => {
                    page.add(&address, not_adopted.encoded_len());
                    refused.push(not_adopted);
                }
            }
        }
        let (next_page_token, seq) = (page.next(), page.seq);
        let response = proto::AdoptResponse { adopted, refused, next_page_token, seq };
        Ok(audit::unless(dry_run, response))
    }
}

impl Service {
    async fn call(&self, command: Command, dry_run: bool) -> Result<Reply, Status> {
        self.0.ask(command, dry_run).await.map_err(error::refused)
    }

    /// The page of a command's report that a request asks for.
    fn page<K: Key, R: Paged>(&self, command: &str, request: &mut R) -> Result<Page<K>, Invalid> {
        Page::of(&format!("Admin.{command}"), request, self.0.bus.last())
    }

    /// The leases on a page that nothing speaks for: those whose port is gone, and those of which
    /// nobody can tell whether they are over.
    async fn silent(
        &self,
        page: &mut Page<LeaseKey>,
    ) -> Result<(Vec<Arc<Lease>>, Vec<Arc<Lease>>), Refusal> {
        let (mut gone, mut unverifiable) = (Vec::new(), Vec::new());
        let mut after = page.after.clone();
        loop {
            let stretch = self.0.ledger.stretch(StretchOf {
                filter: LeaseFilter::default(),
                bridge: None,
                order: Order::Pool,
                after,
                most: AT_ONCE,
            });
            let Stretch { leases, reached } = stretch.await?;
            for lease in leases {
                let is_silent = lease.state.is_owned()
                    && !Engine::is_live(&lease, &*self.0.live, Run::Latest)
                    && self.bridge_present(&lease);
                if !is_silent {
                    continue;
                }
                let is_gone = port_is_gone(&lease, &*self.0.live);
                if !is_gone && lease.state != State::Active {
                    continue;
                }
                let bytes = self.0.message(&lease).encoded_len();
                if !page.takes(&page::lease_key(&lease), bytes) {
                    return Ok((gone, unverifiable));
                }
                if is_gone {
                    gone.push(lease);
                } else {
                    unverifiable.push(lease);
                }
            }
            match reached {
                Some(reached) => after = Some(reached),
                None => return Ok((gone, unverifiable)),
            }
        }
    }

    /// A database of somebody's, as a copy of ours.
    async fn handed_in(&self, from: String) -> Result<HandedIn, Status> {
        let from = absolute(from)?;
        let store = self.0.config().state_dir.join("leases.db");
        let taken = with_files(&from.clone(), move || HandedIn::take(&from, &store)).await?;
        taken.map_err(|error| error::store(&error))
    }

    /// Takes over one reservation of another allocator.
    async fn adopt_one(
        &self,
        reservation: host_local::Reservation,
        pools: &Pools,
        only: Option<&Pool>,
        dry_run: bool,
    ) -> Result<Result<Vec<Arc<Lease>>, proto::NotAdopted>, Status> {
        let key = reservation.key();
        let host_local::Reservation { address, container, .. } = reservation;
        let owner = Owner { sandbox: Arc::from(&*container), lifecycle: Arc::from("") };
        let result = match pool_of(pools, address, only) {
            Ok(pool) => {
                let (pool, key) = (Arc::clone(pool.name()), Arc::from(&*key));
                self.0.ask(Command::Adopt { pool, address, owner, key }, dry_run).await
            }
            Err(refusal) => Err(refusal),
        };
        match result {
            Ok(Reply::Leases(leases)) => Ok(Ok(leases)),
            Ok(_) => Ok(Ok(Vec::new())),
            // It says nothing of this one reservation, and the next would fare no better.
            Err(refusal) if refusal.reason.is_store() => Err(error::refused(refusal)),
            Err(Refusal { reason, message, retry_after: _ }) => Ok(Err(proto::NotAdopted {
                address: address.to_string(),
                sandbox: container,
                key,
                reason: reason.name().to_owned(),
                message,
            })),
        }
    }

    fn bridge_present(&self, lease: &Lease) -> bool {
        self.0.health.why(&crate::health::bridge(&lease.segment.bridge)).is_none()
    }

    fn messages(&self, leases: &[Arc<Lease>]) -> Vec<proto::Lease> {
        leases.iter().map(|lease| self.0.message(lease)).collect()
    }
}

fn find<'a>(pools: &'a Pools, name: &str) -> Result<&'a Pool, Status> {
    pools.get(name).ok_or_else(|| error::pool_unknown(name))
}

/// As [`find`], where the name may be left out.
fn named<'a>(pools: &'a Pools, name: &str) -> Result<Option<&'a Pool>, Status> {
    if name.is_empty() { Ok(None) } else { find(pools, name).map(Some) }
}

/// The one pool that has an address.
fn pool_of<'a>(
    pools: &'a Pools,
    address: IpAddr,
    only: Option<&Pool>,
) -> Result<&'a Pool, Refusal> {
    let mut having = pools.iter().filter(|pool| {
        pool.standing(address) != Standing::Outside
            && only.is_none_or(|only| only.name() == pool.name())
    });
    let refuse = |what| Err(Refusal::new(Reason::AddressOutsidePool, what));
    match (having.next(), having.next()) {
        (Some(pool), None) => Ok(pool),
        (Some(_), Some(_)) => refuse(format!("several pools have {address}; name one")),
        (None, _) => refuse(format!("no pool has {address}")),
    }
}

fn quarantined(outcome: Outcome, leases: Vec<proto::Lease>) -> proto::QuarantineResponse {
    let outcome = outcome.into();
    proto::QuarantineResponse { outcome, leases, ..Default::default() }
}

fn to_address(text: String) -> Result<IpAddr, Invalid> {
    text.parse().map_err(|_| Invalid::Address(text))
}

/// Works with files that the caller names, which may be on a disk that does not answer: then only the
/// caller is told, and one thread waits.
async fn with_files<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    match timeout(FILES_TIMEOUT, spawn_blocking(work)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(panic)) => Err(Status::internal(panic.to_string())),
        Err(_) => Err(error::file_late(path, FILES_TIMEOUT)),
    }
}

fn absolute(path: String) -> Result<PathBuf, Invalid> {
    if Path::new(&path).is_absolute() { Ok(path.into()) } else { Err(Invalid::Path(path)) }
}
