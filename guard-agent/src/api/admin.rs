//! `guard.v1.Admin`.

use std::{
    collections::HashSet,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tonic::{Request, Response, Status};

use super::{
    Context, check, convert,
    error::{self, Invalid},
    sources,
};
use crate::{
    lease::{
        Lease, LeaseFilter, Owner, Pool, Pools, Standing, State,
        command::{Command, Reason, Refusal, Reply},
    },
    ledger::Recovery,
    proto::{self, Outcome, QuarantineAction},
    reconcile,
    store::{Recovered, host_local},
    watchdog::{self, Report},
};

pub struct Service(pub Arc<Context>);

#[tonic::async_trait]
impl proto::admin_server::Admin for Service {
    async fn backup(
        &self,
        request: Request<proto::BackupRequest>,
    ) -> Result<Response<proto::BackupResponse>, Status> {
        let path = absolute(request.into_inner().path)?;
        let copied = self.0.ledger.backup(path.clone()).await.map_err(error::refused)?;
        let rows = copied.map_err(|error| error::store(&error))?;
        let path = path.display().to_string();
        tracing::info!(path, rows, "the lease store was backed up");
        Ok(Response::new(proto::BackupResponse { path, rows }))
    }

    async fn recover(
        &self,
        request: Request<proto::RecoverRequest>,
    ) -> Result<Response<proto::RecoverResponse>, Status> {
        let proto::RecoverRequest { from, dry_run } = request.into_inner();
        let from = if from.is_empty() { None } else { Some(absolute(from)?) };
        let kernel = self.0.bindings.leased_in_kernel().map_err(|error| {
            error::not_in_kernel(format!("the kernel's map of owners cannot be read: {error}"))
        })?;
        let ask = Recovery { from, kernel, dry_run };
        let recovered = self.0.ledger.recover(ask).await.map_err(error::refused)?;
        let Recovered { kept, from_backup, quarantined, lost, moved_to } =
            recovered.map_err(|error| error::store(&error))?;
        Ok(Response::new(proto::RecoverResponse {
            kept: kept as u64,
            from_backup: from_backup as u64,
            quarantined,
            lost,
            moved_to: moved_to.map(|path| path.display().to_string()).unwrap_or_default(),
        }))
    }

    async fn check(
        &self,
        _request: Request<proto::CheckRequest>,
    ) -> Result<Response<proto::CheckResponse>, Status> {
        let disagreements = check::check(&self.0).await.map_err(error::refused)?;
        Ok(Response::new(proto::CheckResponse { disagreements }))
    }

    async fn gc(
        &self,
        request: Request<proto::GcRequest>,
    ) -> Result<Response<proto::GcResponse>, Status> {
        let proto::GcRequest { dry_run } = request.into_inner();
        // What is not seen is no reason while not all is seen.
        self.0.may_allocate(std::iter::empty())?;
        let leases = self.0.ledger.leases(LeaseFilter::default()).await.map_err(error::refused)?;
        let silent = leases.into_iter().filter(|(lease, evidence)| {
            lease.state.is_owned() && evidence.is_empty() && self.bridge_present(lease)
        });
        let (gone, mut unverifiable): (Vec<_>, Vec<_>) =
            silent.map(|(lease, _)| lease).partition(|lease| self.port_is_gone(lease));
        unverifiable.retain(|lease| lease.state == State::Active);
        let generations = gone.iter().map(|lease| lease.generation).collect();
        // It looks once more: one of them may be in use by now.
        let released = match self.call(Command::Reap { generations, threshold: 0 }, dry_run).await?
        {
            Reply::Leases(leases) => leases,
            _ => Vec::new(),
        };
        Ok(Response::new(proto::GcResponse {
            released: self.messages(&released),
            unverifiable: self.messages(&unverifiable),
        }))
    }

    async fn reconcile(
        &self,
        request: Request<proto::ReconcileRequest>,
    ) -> Result<Response<proto::ReconcileResponse>, Status> {
        let proto::ReconcileRequest { dry_run, consent } = request.into_inner();
        let consent = Some(consent).filter(|consent| !consent.is_empty());
        let ask = reconcile::Ask { dry_run, consent };
        let report = self.0.reconciler.pass(ask).await.map_err(error::refused)?;
        let result = match report.result() {
            "ended" => proto::PassResult::Ended,
            "blocked" => proto::PassResult::Blocked,
            _ => proto::PassResult::Done,
        };
        let why = report.why().unwrap_or_default();
        let reconcile::Report { ended: _, silent, reaped, unverifiable, blocked } = report;
        let (consent, blocked) =
            blocked.map_or_else(Default::default, |blocked| (blocked.id, blocked.leases));
        Ok(Response::new(proto::ReconcileResponse {
            result: result.into(),
            why,
            silent: self.messages(&silent),
            reaped: self.messages(&reaped),
            unverifiable: self.messages(&unverifiable),
            blocked: self.messages(&blocked),
            consent,
        }))
    }

    async fn watchdog(
        &self,
        request: Request<proto::WatchdogRequest>,
    ) -> Result<Response<proto::WatchdogResponse>, Status> {
        let proto::WatchdogRequest { dry_run } = request.into_inner();
        let pass = if dry_run { watchdog::Pass::Dry } else { watchdog::Pass::Asked };
        let watchdog = self.0.watchdog.clone();
        // It goes on to its end, whoever waits for it.
        let pass = tokio::spawn(async move { watchdog.pass(pass).await });
        let pass = pass.await.map_err(|error| Status::internal(error.to_string()))?;
        let Report { ended, watched, released } = pass.map_err(error::refused)?;
        let result = match &ended {
            Some(_) => proto::PassResult::Ended,
            None => proto::PassResult::Done,
        };
        Ok(Response::new(proto::WatchdogResponse {
            result: result.into(),
            why: ended.unwrap_or_default(),
            containers: watched.into_iter().map(convert::watched).collect(),
            released: self.messages(&released),
        }))
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
        if !dry_run {
            tracing::warn!(%address, pool = &**pool.name(), ?outcome, "a lease was ended by force");
        }
        let leases = self.messages(&leases);
        Ok(Response::new(proto::ReleaseResponse { outcome: outcome.into(), leases }))
    }

    async fn ignore_source(
        &self,
        request: Request<proto::IgnoreSourceRequest>,
    ) -> Result<Response<proto::IgnoreSourceResponse>, Status> {
        sources::ignore(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn quarantine(
        &self,
        request: Request<proto::QuarantineRequest>,
    ) -> Result<Response<proto::QuarantineResponse>, Status> {
        let request = request.into_inner();
        let action = request.action();
        let proto::QuarantineRequest { pool, address, dry_run, action: _ } = request;
        let config = self.0.config();
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
                let leases = self.0.ledger.leases(filter).await.map_err(error::refused)?;
                let leases: Vec<_> = leases.into_iter().map(|(lease, _)| lease).collect();
                return Ok(quarantined(Outcome::Done, self.messages(&leases)));
            }
        };
        Ok(match self.call(command, dry_run).await? {
            Reply::Leases(leases) => quarantined(Outcome::Done, self.messages(&leases)),
            Reply::NotFound => quarantined(Outcome::NotFound, Vec::new()),
            _ => quarantined(Outcome::Done, Vec::new()),
        })
    }

    async fn adopt(
        &self,
        request: Request<proto::AdoptRequest>,
    ) -> Result<Response<proto::AdoptResponse>, Status> {
        let proto::AdoptRequest { from_host_local, pool, dry_run } = request.into_inner();
        let config = self.0.config();
        let only = named(&config.pools, &pool)?;
        let found = host_local::read(&absolute(from_host_local)?)
            .map_err(|error| error::reservations(&error))?;
        let (mut adopted, mut refused) = (Vec::new(), Vec::new());
        for reservation in found {
            let key = reservation.key();
            let host_local::Reservation { address, container, .. } = reservation;
            let owner = Owner { sandbox: Arc::from(&*container), lifecycle: Arc::from("") };
            let result = match pool_of(&config.pools, address, only) {
                Ok(pool) => {
                    let (pool, key) = (Arc::clone(pool.name()), Arc::from(&*key));
                    let command = Command::Adopt { pool, address, owner, key };
                    self.0.ask(command, dry_run).await
                }
                Err(refusal) => Err(refusal),
            };
            match result {
                Ok(Reply::Leases(leases)) => adopted.extend(leases),
                Ok(_) => {}
                // It says nothing of this one reservation, and the next would fare no better.
                Err(refusal) if refusal.reason.is_store() => return Err(error::refused(refusal)),
                Err(Refusal { reason, message, retry_after: _ }) => {
                    refused.push(proto::NotAdopted {
                        address: address.to_string(),
                        sandbox: container,
                        key,
                        reason: reason.name().to_owned(),
                        message,
                    });
                }
            }
        }
        Ok(Response::new(proto::AdoptResponse { adopted: self.messages(&adopted), refused }))
    }
}

impl Service {
    async fn call(&self, command: Command, dry_run: bool) -> Result<Reply, Status> {
        self.0.ask(command, dry_run).await.map_err(error::refused)
    }

    fn messages(&self, leases: &[Arc<Lease>]) -> Vec<proto::Lease> {
        let config = self.0.config();
        let message = |lease: &Arc<Lease>| {
            let evidence = crate::lease::Engine::evidence_of(lease, &*self.0.live);
            convert::lease(lease, &evidence, &config)
        };
        leases.iter().map(message).collect()
    }

    fn bridge_present(&self, lease: &Lease) -> bool {
        self.0.health.why(&crate::health::bridge(&lease.segment.bridge)).is_none()
    }

    /// Whether the lease was bound to a port that does not exist any more.
    fn port_is_gone(&self, lease: &Lease) -> bool {
        let ports = self.0.observer.ports.read();
        let names: HashSet<_> = ports.values().map(|status| &status.port.interface).collect();
        match (&lease.binding.ifindex, &lease.binding.interface) {
            (Some(ifindex), _) => !ports.contains_key(ifindex),
            // After a reboot ports have names only. One that is held may be yet to come.
            (None, Some(name)) => lease.state == State::Active && !names.contains(name),
            (None, None) => false,
        }
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

fn quarantined(outcome: Outcome, leases: Vec<proto::Lease>) -> Response<proto::QuarantineResponse> {
    Response::new(proto::QuarantineResponse { outcome: outcome.into(), leases })
}

fn to_address(text: String) -> Result<IpAddr, Invalid> {
    text.parse().map_err(|_| Invalid::Address(text))
}

fn absolute(path: String) -> Result<PathBuf, Invalid> {
    if Path::new(&path).is_absolute() { Ok(path.into()) } else { Err(Invalid::Path(path)) }
}
