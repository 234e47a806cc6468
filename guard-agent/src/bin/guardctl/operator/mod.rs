//! The commands of operators: what is asked before, the call, and what is printed.

mod args;
mod reserve;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
};

use guard_agent::{
    client::{answer, patiently},
    proto::{
        AdoptRequest, BackupRequest, CheckRequest, ForceReleaseRequest, GcRequest,
        IgnoreSourceRequest, LeaseState, ListLeasesRequest, QuarantineAction, QuarantineRequest,
        ReconcileRequest, RecoverRequest, WatchdogRequest, WhyRequest, admin_client::AdminClient,
        guard_client::GuardClient, leases_client::LeasesClient,
    },
};
use tonic::transport::Channel;

pub use self::args::Command;
use self::args::{Place, Quarantine, Source, Sure};
use crate::{error::Error, output::Output, progress::shown, view};

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
        let mut leases = LeasesClient::new(channel.clone());
        let mut admin = AdminClient::new(channel.clone());
        match self {
            Self::Holds => {
                let state = LeaseState::Releasing.into();
                let request = ListLeasesRequest { state, ..ListLeasesRequest::default() };
                output.print(&view::Holds::from(answer(leases.list(request)).await?))
            }
            Self::Reconcile { dry_run, consent } => {
                let consent = consent.unwrap_or_default();
                let request = ReconcileRequest { dry_run, consent };
                let pass = shown("comparing the leases with all sources", admin.reconcile(request));
                let response = patiently(pass).await?;
                output.print(&view::Reconciled::new(response, dry_run))
            }
            Self::Watchdog { sure: Sure { dry_run, .. } } => {
                let response = patiently(admin.watchdog(WatchdogRequest { dry_run })).await?;
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
                let checking =
                    shown("comparing store, index, kernel and wire", admin.check(CheckRequest {}));
                let check = view::Check::from(patiently(checking).await?);
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
                let request = RecoverRequest { from, dry_run };
                let recovering = shown("making a lease store", admin.recover(request));
                output.print(&view::Recovered::new(patiently(recovering).await?, dry_run))
            }
            Self::Gc { sure: Sure { dry_run, .. } } => {
                let looking =
                    shown("looking for what nothing speaks for", admin.gc(GcRequest { dry_run }));
                output.print(&view::Gc::new(patiently(looking).await?, dry_run))
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
                let quarantined = answer(admin.quarantine(request)).await?;
                if action == QuarantineAction::List {
                    return output.print(&view::Leases::from(quarantined.leases));
                }
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
                let request = AdoptRequest { from_host_local, pool, dry_run };
                let adopted = view::Adopted::new(answer(admin.adopt(request)).await?, dry_run);
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
