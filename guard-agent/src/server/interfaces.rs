//! `guard.v1.Interfaces`.

use std::sync::Arc;

use guard_api::proto::{self, Outcome};
use guard_core::{
    evidence::EvidenceView as _,
    lease::{
        InterfaceName,
        command::{Command, Refusal, Reply},
    },
};
use nix::net::if_::if_nametoindex;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{
    Deps, audit, convert, error,
    leases::{caller, to_name},
    page::Page,
};

pub(super) struct Service(pub Arc<Deps>);

#[tonic::async_trait]
impl proto::interfaces_server::Interfaces for Service {
    async fn reserve(
        &self,
        request: Request<proto::ReserveInterfaceRequest>,
    ) -> Result<Response<proto::ReserveInterfaceResponse>, Status> {
        let caller = caller(&request);
        let proto::ReserveInterfaceRequest { prefix, id, dry_run } = request.into_inner();
        let id = to_name("id", &id, 1)?;
        // Before the observer knows the kernel's names, any could be one of them.
        self.0.may_allocate(std::iter::empty())?;
        let command = Command::ReserveInterface { prefix: Arc::from(prefix), id };
        let command = Command::For(caller, command.into());
        self.look_at_names(&command).await?;
        match self.0.ask(command, dry_run).await.map_err(error::refused)? {
            Reply::Interface(name) => Ok(audit::unless(
                dry_run,
                proto::ReserveInterfaceResponse { interface: Some(self.message(&name)) },
            )),
            other => Err(error::unexpected(&other)),
        }
    }

    async fn release(
        &self,
        request: Request<proto::ReleaseInterfaceRequest>,
    ) -> Result<Response<proto::ReleaseInterfaceResponse>, Status> {
        let caller = caller(&request);
        let proto::ReleaseInterfaceRequest { name, dry_run } = request.into_inner();
        let command = Command::ReleaseInterface(Arc::from(name));
        let command = Command::For(caller, command.into());
        let (outcome, interface) =
            match self.0.ask(command, dry_run).await.map_err(error::refused)? {
                Reply::Interface(name) => (Outcome::Done, Some(self.message(&name))),
                Reply::NotFound => (Outcome::NotFound, None),
                other => return Err(error::unexpected(&other)),
            };
        let response = proto::ReleaseInterfaceResponse { outcome: outcome.into(), interface };
        Ok(audit::unless(dry_run || outcome == Outcome::NotFound, response))
    }

    async fn list(
        &self,
        request: Request<proto::ListInterfacesRequest>,
    ) -> Result<Response<proto::ListInterfacesResponse>, Status> {
        let mut request = request.into_inner();
        let mut page = Page::of("Interfaces.List", &mut request, self.0.bus.last())?;
        let interfaces = self.page(&mut page).await.map_err(error::refused)?;
        let (next_page_token, seq) = (page.next(), page.seq);
        Ok(Response::new(proto::ListInterfacesResponse { interfaces, next_page_token, seq }))
    }
}

impl Service {
    async fn page(&self, page: &mut Page<Arc<str>>) -> Result<Vec<proto::InterfaceName>, Refusal> {
        let (mut rows, mut after) = (Vec::new(), page.after.clone());
        loop {
            let wanted = page.wanted();
            let some = self.0.ledger.interfaces(after, wanted).await?;
            for name in &some {
                let message = self.message(name);
                if !page.takes(&name.name, message.encoded_len()) {
                    return Ok(rows);
                }
                rows.push(message);
            }
            match some.last() {
                Some(last) if some.len() == wanted => after = Some(Arc::clone(&last.name)),
                _ => return Ok(rows),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Asks the kernel for the name that would be given. A notice can be on its way still, and of
    /// an alternative name there is none while the link is down (`netdev_state_change` in
    /// net/core/dev.c).
    async fn look_at_names(&self, reserve: &Command) -> Result<(), Status> {
        loop {
            let given = self.0.ask(reserve.clone(), true).await.map_err(error::refused)?;
            let Reply::Interface(reserved) = given else { return Ok(()) };
            let InterfaceName { name, .. } = &*reserved;
            match if_nametoindex(&**name) {
                Ok(ifindex) if !self.0.live.link_exists(name) => {
                    self.0.live.add_name(ifindex, name);
                }
                _ => return Ok(()),
            }
        }
    }

    fn message(&self, name: &InterfaceName) -> proto::InterfaceName {
        convert::interface_name(name, self.0.live.link_exists(&name.name))
    }
}
