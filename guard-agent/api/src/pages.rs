//! How a client reads a list to its end, page by page (AIP-158).

use std::{future::Future, time::Duration};

use tonic::{Response, Status, transport::Channel};

use crate::{
    client::{CallError, DEADLINE, LONG_DEADLINE, within},
    proto::{
        self, admin_client::AdminClient, guard_client::GuardClient,
        interfaces_client::InterfacesClient, leases_client::LeasesClient,
        pools_client::PoolsClient, subnets_client::SubnetsClient,
    },
};

/// A request for a list.
pub trait Request: Clone {
    /// What answers it.
    type Page: Page;

    /// Asks for the page of a token, empty for the first one, with at most so many rows.
    fn page(&mut self, size: i32, token: &str);

    /// Makes the call.
    fn send(
        self,
        channel: Channel,
    ) -> impl Future<Output = Result<Response<Self::Page>, Status>> + Send;
}

/// One page of a list.
pub trait Page {
    /// What the next page is asked for with; empty where this is the last one.
    fn next(&self) -> &str;

    /// Takes in the rows of the page that follows.
    fn append(&mut self, page: Self);
}

/// Reads a list to its end: the first page, with the rows of all.
///
/// # Errors
/// A page cannot be had in time, or there is no end to them.
pub async fn all<R: Request>(channel: &Channel, request: R) -> Result<R::Page, CallError> {
    read(DEADLINE, channel, request).await
}

/// As [`all`], where the agent itself asks others for each page and gives them their time.
///
/// # Errors
/// As [`all`].
pub async fn all_with_long_deadline<R: Request>(
    channel: &Channel,
    request: R,
) -> Result<R::Page, CallError> {
    read(LONG_DEADLINE, channel, request).await
}

async fn read<R: Request>(
    deadline: Duration,
    channel: &Channel,
    mut request: R,
) -> Result<R::Page, CallError> {
    // Whoever reads all of them is best served with few.
    request.page(i32::MAX, "");
    let mut all = within(deadline, request.clone().send(channel.clone())).await?;
    let mut token = all.next().to_owned();
    while !token.is_empty() {
        request.page(i32::MAX, &token);
        let page = within(deadline, request.clone().send(channel.clone())).await?;
        let next = page.next().to_owned();
        if next == token {
            return Err(CallError::Lost("it sends the same page again and again".to_owned()));
        }
        all.append(page);
        token = next;
    }
    Ok(all)
}

macro_rules! pages {
    ($($request:ident: $client:ident.$method:ident => $response:ident { $($rows:ident),* })*) => {$(
        impl Request for proto::$request {
            type Page = proto::$response;

            fn page(&mut self, size: i32, token: &str) {
                self.page_size = size;
                token.clone_into(&mut self.page_token);
            }

            async fn send(self, channel: Channel) -> Result<Response<Self::Page>, Status> {
                $client::new(channel).$method(self).await
            }
        }

        impl Page for proto::$response {
            fn next(&self) -> &str {
                &self.next_page_token
            }

            fn append(&mut self, page: Self) {
                $(self.$rows.extend(page.$rows);)*
            }
        }
    )*};
}

pages! {
    ListLeasesRequest: LeasesClient.list => ListLeasesResponse { leases }
    ListPoolsRequest: PoolsClient.list => ListPoolsResponse { pools }
    ListSubnetsRequest: SubnetsClient.list => ListSubnetsResponse { subnets }
    ListInterfacesRequest: InterfacesClient.list => ListInterfacesResponse { interfaces }
    LiveRequest: GuardClient.live => LiveResponse { live }
    PortsRequest: GuardClient.ports => PortsResponse { ports }
    DropsRequest: GuardClient.drops => DropsResponse { drops }
    ConflictsRequest: GuardClient.conflicts => ConflictsResponse { conflicts }
    ReconcileRequest: AdminClient.reconcile => ReconcileResponse {
        silent, reaped, unverifiable, blocked
    }
    WatchdogRequest: AdminClient.watchdog => WatchdogResponse { containers, released }
    RecoverRequest: AdminClient.recover => RecoverResponse { quarantined, lost }
    CheckRequest: AdminClient.check => CheckResponse { disagreements }
    GcRequest: AdminClient.gc => GcResponse { released, unverifiable }
    QuarantineRequest: AdminClient.quarantine => QuarantineResponse { leases }
    AdoptRequest: AdminClient.adopt => AdoptResponse { adopted, refused }
}
