//! Each command's call, and what is printed of its response.

use std::{path::Path, time::Duration};

use guard_api::{
    client::{answer, with_long_deadline},
    pages,
    proto::{
        AdoptRequest, BackupRequest, CheckRequest, Fate, ForceReleaseRequest, GcRequest,
        IgnoreSourceRequest, LeaseState, ListLeasesRequest, ListLeasesResponse, QuarantineAction,
        QuarantineRequest, ReconcileRequest, RecoverRequest, WatchdogRequest, WatchedContainer,
        WhyRequest, admin_client::AdminClient, guard_client::GuardClient,
    },
};
use tonic::transport::Channel;

use super::args::Place;
use crate::{
    error::Error,
    output::{Output, partly},
    progress::shown,
    view::{Answer, Holds},
};

/// The connection to the agent, and how its responses are printed.
pub(super) struct Call {
    pub(super) channel: Channel,
    pub(super) output: Output,
}

impl Call {
    fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    pub(super) async fn holds(&self) -> Result<(), Error> {
        let state = LeaseState::Releasing.into();
        let request = ListLeasesRequest { state, ..ListLeasesRequest::default() };
        let held = pages::all(&self.channel, request).await?;
        self.output.print(&Holds::from(held))
    }

    pub(super) async fn reconcile(
        &self,
        dry_run: bool,
        consent: Option<String>,
    ) -> Result<(), Error> {
        let consent = consent.unwrap_or_default();
        let request = ReconcileRequest { dry_run, consent, ..Default::default() };
        let pass = pages::all_with_long_deadline(&self.channel, request);
        let response = shown("comparing the leases with all sources", pass).await?;
        let rows = [&response.silent, &response.reaped, &response.unverifiable]
            .map(Vec::len)
            .iter()
            .sum::<usize>();
        partly(rows + response.blocked.len(), response.total_size);
        self.output.print(&Answer { dry_run, response })
    }

    pub(super) async fn watchdog(&self, dry_run: bool) -> Result<(), Error> {
        let request = WatchdogRequest { dry_run, ..WatchdogRequest::default() };
        let response = pages::all_with_long_deadline(&self.channel, request).await?;
        partly(response.containers.len() + response.released.len(), response.total_size);
        let failed = |container: &&WatchedContainer| container.fate() == Fate::Failed;
        let failed = response.containers.iter().filter(failed).count();
        self.output.print(&Answer { dry_run, response })?;
        found(failed, "cannot be removed")
    }

    pub(super) async fn why(&self, request: WhyRequest) -> Result<(), Error> {
        self.output.print(&answer(GuardClient::new(self.channel.clone()).why(request)).await?)
    }

    pub(super) async fn check(&self) -> Result<(), Error> {
        let checking = pages::all_with_long_deadline(&self.channel, CheckRequest::default());
        let check = shown("comparing store, index, kernel and wire", checking).await?;
        self.output.print(&check)?;
        found(check.disagreements.len(), "disagree")
    }

    pub(super) async fn backup(&self, file: &Path) -> Result<(), Error> {
        let request = BackupRequest { path: absolute(file)? };
        let mut admin = self.admin();
        let copying = shown("copying the lease store", admin.backup(request));
        self.output.print(&with_long_deadline(copying).await?)
    }

    pub(super) async fn recover(&self, from: Option<&Path>, dry_run: bool) -> Result<(), Error> {
        let from = from.map_or_else(|| Ok(String::new()), absolute)?;
        let request = RecoverRequest { from, dry_run, ..RecoverRequest::default() };
        let making = pages::all_with_long_deadline(&self.channel, request);
        let response = shown("making a lease store", making).await?;
        partly(response.quarantined.len() + response.lost.len(), response.total_size);
        self.output.print(&Answer { dry_run, response })
    }

    pub(super) async fn gc(&self, dry_run: bool) -> Result<(), Error> {
        let request = GcRequest { dry_run, ..GcRequest::default() };
        let looking = pages::all_with_long_deadline(&self.channel, request);
        let response = shown("looking for what nothing speaks for", looking).await?;
        self.output.print(&Answer { dry_run, response })
    }

    pub(super) async fn force_release(&self, place: Place, dry_run: bool) -> Result<(), Error> {
        let Place { pool, address } = place;
        let request = ForceReleaseRequest { pool, address: address.to_string(), dry_run };
        let response = answer(self.admin().force_release(request)).await?;
        self.output.print(&Answer { dry_run, response })
    }

    pub(super) async fn quarantine(&self, request: QuarantineRequest) -> Result<(), Error> {
        let (action, dry_run) = (request.action(), request.dry_run);
        if action == QuarantineAction::List {
            let leases = pages::all(&self.channel, request).await?.leases;
            return self.output.print(&ListLeasesResponse { leases, ..Default::default() });
        }
        let response = answer(self.admin().quarantine(request)).await?;
        self.output.print(&Answer { dry_run, response })
    }

    pub(super) async fn ignore_source(
        &self,
        name: String,
        span: Duration,
        dry_run: bool,
    ) -> Result<(), Error> {
        let duration = Some(
            span.try_into()
                .map_err(|_| Error::Usage(format!("--for {span:?} is longer than any time")))?,
        );
        let request = IgnoreSourceRequest { name, duration, dry_run };
        let response = answer(self.admin().ignore_source(request)).await?;
        self.output.print(&Answer { dry_run, response })
    }

    pub(super) async fn adopt(
        &self,
        from_host_local: &Path,
        pool: Option<String>,
        dry_run: bool,
    ) -> Result<(), Error> {
        let from_host_local = absolute(from_host_local)?;
        let pool = pool.unwrap_or_default();
        let request = AdoptRequest { from_host_local, pool, dry_run, ..AdoptRequest::default() };
        let adopting = pages::all_with_long_deadline(&self.channel, request);
        let response = shown("taking over the reservations", adopting).await?;
        let refused = response.refused.len();
        self.output.print(&Answer { dry_run, response })?;
        found(refused, "are not taken over")
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
