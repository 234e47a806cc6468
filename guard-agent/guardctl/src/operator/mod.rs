//! The commands of operators: what is asked before, the call, and what is printed.

mod args;
mod reserve;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
};

use guard_api::{
    client::{answer, patiently},
    pages,
    proto::{
        AdoptRequest, BackupRequest, CheckRequest, ForceReleaseRequest, GcRequest,
        IgnoreSourceRequest, LeaseState, ListLeasesRequest, QuarantineAction, QuarantineRequest,
        ReconcileRequest, RecoverRequest, WatchdogRequest, WhyRequest, admin_client::AdminClient,
        guard_client::GuardClient,
    },
};
use tonic::transport::Channel;

pub use self::args::Command;
use self::args::{Place, Quarantine, Source, Sure};
use crate::{
    error::Error,
    output::{Output, partly},
    progress::shown,
    view,
};

impl Command {
    /// Asks for a confirmation of what is dangerous.
    ///
    /// # Errors
    /// There is nobody to ask, or the answer is not yes.
    pub fn confirm(&self) -> Result<(), Error> {
        let (what, name, sure) = match self {
            Self::Recover { sure, .. } => ("replace the lease store".to_owned(), "recover", sure),
            Self::Gc { sure } => ("release what nothing speaks for".to_owned(), "gc", sure),
            Self::Watchdog { sure } => {
                ("remove containers whose sandboxes are over".to_owned(), "watchdog", sure)
            }
            Self::ForceRelease { place: Place { pool, address }, sure } => {
                (format!("end the lease of {address} in pool {pool}"), "force-release", sure)
            }
            // To let it count again asks nobody.
            Self::Source { action: Source::Ignore { name, span, sure } } if !span.is_zero() => {
                (format!("do without source {name}"), "source ignore", sure)
            }
            _ => return Ok(()),
        };
        let Sure { dry_run, yes } = sure;
        if *dry_run || *yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Error::Usage(format!(
                "{name} asks before it changes anything, and there is no terminal to ask on: look \
                 with --dry-run, then call it with --yes"
            )));
        }
        write!(io::stderr(), "This will {what}. Go on? [y/N] ")?;
        io::stderr().flush()?;
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        match line.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Error::Declined),
        }
    }

    /// Does what was asked for.
    ///
    /// # Errors
    /// The agent refused or cannot be reached, or what was found is not good.
    pub async fn run(self, channel: Channel, output: Output) -> Result<(), Error> {
        let mut admin = AdminClient::new(channel.clone());
        match self {
            Self::Holds => {
                let state = LeaseState::Releasing.into();
                let request = ListLeasesRequest { state, ..ListLeasesRequest::default() };
                let held = pages::all(&channel, request).await?;
                output.print(&view::Holds::from(held))
            }
            Self::Reconcile { dry_run, consent } => {
                let consent = consent.unwrap_or_default();
                let request = ReconcileRequest { dry_run, consent, ..Default::default() };
                let pass = pages::all_patiently(&channel, request);
                let response = shown("comparing the leases with all sources", pass).await?;
                let rows = [&response.silent, &response.reaped, &response.unverifiable]
                    .map(Vec::len)
                    .iter()
                    .sum::<usize>();
                partly(rows + response.blocked.len(), response.total_size);
                output.print(&view::Reconciled::new(response, dry_run))
            }
            Self::Watchdog { sure: Sure { dry_run, .. } } => {
                let request = WatchdogRequest { dry_run, ..WatchdogRequest::default() };
                let response = pages::all_patiently(&channel, request).await?;
                partly(response.containers.len() + response.released.len(), response.total_size);
                let watched = view::Watched::new(response, dry_run);
                output.print(&watched)?;
                found(watched.failed(), "cannot be removed")
            }
            Self::Why { address } => {
                let request = WhyRequest { address: address.to_string() };
                let why = answer(GuardClient::new(channel).why(request)).await?;
                output.print(&view::Why::from(why))
            }
            Self::Check => {
                let checking = pages::all_patiently(&channel, CheckRequest::default());
                let checked = shown("comparing store, index, kernel and wire", checking).await?;
                let check = view::Check::from(checked);
                output.print(&check)?;
                found(check.disagreements.len(), "disagree")
            }
            Self::Backup { file } => {
                let request = BackupRequest { path: absolute(&file)? };
                let copying = shown("copying the lease store", admin.backup(request));
                output.print(&view::Backup::from(patiently(copying).await?))
            }
            Self::Recover { from, sure: Sure { dry_run, .. } } => {
                let from = from.map_or_else(|| Ok(String::new()), |from| absolute(&from))?;
                let request = RecoverRequest { from, dry_run, ..RecoverRequest::default() };
                let making = pages::all_patiently(&channel, request);
                let recovered = shown("making a lease store", making).await?;
                partly(recovered.quarantined.len() + recovered.lost.len(), recovered.total_size);
                output.print(&view::Recovered::new(recovered, dry_run))
            }
            Self::Gc { sure: Sure { dry_run, .. } } => {
                let request = GcRequest { dry_run, ..GcRequest::default() };
                let looking = pages::all_patiently(&channel, request);
                let collected = shown("looking for what nothing speaks for", looking).await?;
                output.print(&view::Gc::new(collected, dry_run))
            }
            Self::ForceRelease { place, sure: Sure { dry_run, .. } } => {
                let Place { pool, address } = place;
                let request = ForceReleaseRequest { pool, address: address.to_string(), dry_run };
                let released = answer(admin.force_release(request)).await?;
                output.print(&view::Forced::new(released, dry_run))
            }
            Self::Quarantine { action } => {
                let request = QuarantineRequest::from(action);
                let (action, dry_run) = (request.action(), request.dry_run);
                if action == QuarantineAction::List {
                    let quarantined = pages::all(&channel, request).await?;
                    return output.print(&view::Leases::from(quarantined.leases));
                }
                let quarantined = answer(admin.quarantine(request)).await?;
                output.print(&view::Quarantine::new(quarantined, dry_run))
            }
            Self::Source { action: Source::Ignore { name, span, sure: Sure { dry_run, .. } } } => {
                let duration = Some(span.try_into().map_err(|_| {
                    Error::Usage(format!("--for {span:?} is longer than any time"))
                })?);
                let request = IgnoreSourceRequest { name, duration, dry_run };
                let response = answer(admin.ignore_source(request)).await?;
                output.print(&view::Ignored::new(response, dry_run))
            }
            Self::Subnets { action } => action.run(channel, output).await,
            Self::Interfaces { action } => action.run(channel, output).await,
            Self::Adopt { from_host_local, pool, dry_run } => {
                let from_host_local = absolute(&from_host_local)?;
                let pool = pool.unwrap_or_default();
                let request =
                    AdoptRequest { from_host_local, pool, dry_run, ..AdoptRequest::default() };
                let adopting = pages::all_patiently(&channel, request);
                let adopted = shown("taking over the reservations", adopting).await?;
                let adopted = view::Adopted::new(adopted, dry_run);
                output.print(&adopted)?;
                found(adopted.refused.len(), "are not taken over")
            }
        }
    }
}

impl From<Quarantine> for QuarantineRequest {
    fn from(action: Quarantine) -> Self {
        let of = |action: QuarantineAction, Place { pool, address }, dry_run| Self {
            action: action.into(),
            pool,
            address: address.to_string(),
            dry_run,
            ..Self::default()
        };
        match action {
            Quarantine::Add { place, dry_run } => of(QuarantineAction::Add, place, dry_run),
            Quarantine::Remove { place, dry_run } => of(QuarantineAction::Remove, place, dry_run),
            Quarantine::List { pool } => Self {
                action: QuarantineAction::List.into(),
                pool: pool.unwrap_or_default(),
                ..Self::default()
            },
        }
    }
}

fn found(count: usize, what: &str) -> Result<(), Error> {
    if count == 0 { Ok(()) } else { Err(Error::Found(format!("{count} {what}"))) }
}

/// The agent has another working directory.
fn absolute(path: &Path) -> Result<String, Error> {
    let absolute = std::path::absolute(path)?;
    let text = absolute.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::Usage(format!("the path {} is not UTF-8", path.display())))
}
