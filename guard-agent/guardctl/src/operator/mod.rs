//! The commands of operators: what is asked before, the call, and what is printed.

mod args;
mod call;
mod reserve;

use std::io::{self, IsTerminal as _, Write as _};

use guard_api::proto::{QuarantineAction, QuarantineRequest};
use tonic::transport::Channel;

pub(crate) use self::args::Command;
use self::{
    args::{Place, Quarantine, Source, Sure},
    call::Call,
};
use crate::{error::Error, output::Output};

impl Command {
    /// Asks for a confirmation of what is dangerous.
    ///
    /// # Errors
    /// There is nobody to ask, or the answer is not yes.
    pub(crate) fn confirm(&self) -> Result<(), Error> {
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
    pub(crate) async fn run(self, channel: Channel, output: Output) -> Result<(), Error> {
        let call = Call { channel, output };
        match self {
            Self::Holds => call.holds().await,
            Self::Reconcile { dry_run, consent } => call.reconcile(dry_run, consent).await,
            Self::Watchdog { sure } => call.watchdog(sure.dry_run).await,
            Self::Why(about) => call.why(about.into()).await,
            Self::Check => call.check().await,
            Self::Backup { file } => call.backup(&file).await,
            Self::Recover { from, sure } => call.recover(from.as_deref(), sure.dry_run).await,
            Self::Gc { sure } => call.gc(sure.dry_run).await,
            Self::ForceRelease { place, sure } => call.force_release(place, sure.dry_run).await,
            Self::Quarantine { action } => call.quarantine(action.into()).await,
            Self::Source { action: Source::Ignore { name, span, sure } } => {
                call.ignore_source(name, span, sure.dry_run).await
            }
            Self::Subnets { action } => action.run(call.channel, output).await,
            Self::Interfaces { action } => action.run(call.channel, output).await,
            Self::Adopt { from_host_local, pool, dry_run } => {
                call.adopt(&from_host_local, pool, dry_run).await
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
