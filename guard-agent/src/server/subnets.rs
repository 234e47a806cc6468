//! `guard.v1.Subnets`.

use std::sync::Arc;

use guard_core::lease::command::{Command, Refusal, Reply, ReserveSubnet, WhichSubnet};
use ipnet::IpNet;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{
    Deps, audit, convert,
    error::{self, Invalid},
    leases::{caller, to_name},
    page::Page,
};
use guard_api::proto::{self, Outcome};

pub(super) struct Service(pub Arc<Deps>);

#[tonic::async_trait]
impl proto::subnets_server::Subnets for Service {
    async fn reserve(
        &self,
        request: Request<proto::ReserveSubnetRequest>,
    ) -> Result<Response<proto::ReserveSubnetResponse>, Status> {
        let caller = caller(&request);
        let proto::ReserveSubnetRequest { pool, id, length, prefix, dry_run } =
            request.into_inner();
        let config = self.0.config();
        let parent = config.pools.get(&pool).ok_or_else(|| error::pool_unknown(&pool))?;
        let prefix = to_prefix(prefix)?;
        let length = match (length, prefix) {
            (0, Some(prefix)) => prefix.prefix_len(),
            (length, _) => u8::try_from(length).map_err(|_| Invalid::Length(length))?,
        };
        let (pool, id) = (Arc::clone(parent.name()), to_name("id", &id, 1)?);
        self.0.may_allocate(std::iter::once(parent))?;
        let command = Command::ReserveSubnet(ReserveSubnet { pool, id, length, prefix });
        let command = Command::For(caller, command.into());
        match self.0.ask(command, dry_run).await.map_err(error::refused)? {
            Reply::Subnet(subnet) => Ok(audit::unless(
                dry_run,
                proto::ReserveSubnetResponse { subnet: Some(convert::subnet(&subnet)) },
            )),
            other => Err(error::unexpected(&other)),
        }
    }

    async fn release(
        &self,
        request: Request<proto::ReleaseSubnetRequest>,
    ) -> Result<Response<proto::ReleaseSubnetResponse>, Status> {
        let caller = caller(&request);
        let proto::ReleaseSubnetRequest { prefix, id, pool, dry_run } = request.into_inner();
        let which = match (to_prefix(prefix)?, id.is_empty()) {
            (Some(prefix), true) => {
                let pool = (!pool.is_empty()).then(|| Arc::from(pool));
                WhichSubnet::Prefix { prefix, pool }
            }
            (None, false) => WhichSubnet::Id(to_name("id", &id, 1)?),
            _ => return Err(Invalid::Missing("name either the prefix or the id").into()),
        };
        let command = Command::ReleaseSubnet(which);
        let command = Command::For(caller, command.into());
        let (outcome, subnet) = match self.0.ask(command, dry_run).await.map_err(error::refused)? {
            Reply::Subnet(subnet) => (Outcome::Done, Some(convert::subnet(&subnet))),
            Reply::NotFound => (Outcome::NotFound, None),
            other => return Err(error::unexpected(&other)),
        };
        let response = proto::ReleaseSubnetResponse { outcome: outcome.into(), subnet };
        Ok(audit::unless(dry_run || outcome == Outcome::NotFound, response))
    }

    async fn list(
        &self,
        request: Request<proto::ListSubnetsRequest>,
    ) -> Result<Response<proto::ListSubnetsResponse>, Status> {
        let mut request = request.into_inner();
        let mut page = Page::of("Subnets.List", &mut request, self.0.bus.last())?;
        let subnets = self.page(&request.pool, &mut page).await.map_err(error::refused)?;
        let (next_page_token, seq) = (page.next(), page.seq);
        Ok(Response::new(proto::ListSubnetsResponse { subnets, next_page_token, seq }))
    }
}

impl Service {
    async fn page(
        &self,
        pool: &str,
        page: &mut Page<Arc<str>>,
    ) -> Result<Vec<proto::Subnet>, Refusal> {
        let mut rows = Vec::new();
        let mut after = page.after.clone();
        loop {
            let wanted = page.wanted();
            let some = self.0.ledger.subnets(after, wanted).await?;
            for subnet in some.iter().filter(|subnet| pool.is_empty() || *subnet.pool == *pool) {
                let message = convert::subnet(subnet);
                if !page.takes(&subnet.id, message.encoded_len()) {
                    return Ok(rows);
                }
                rows.push(message);
            }
            match some.last() {
                Some(last) if some.len() == wanted => after = Some(Arc::clone(&last.id)),
                _ => return Ok(rows),
            }
            tokio::task::yield_now().await;
        }
    }
}

fn to_prefix(text: String) -> Result<Option<IpNet>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    let net: IpNet = text.parse().map_err(|_| Invalid::Prefix(text))?;
    match net.trunc() {
        meant if meant == net => Ok(Some(net)),
        meant => Err(Invalid::HostBits { net, meant }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_with_host_bits_is_refused_with_the_one_that_was_meant() {
        assert!(to_prefix(String::new()).unwrap().is_none());
        for text in ["10.99.0.192/28", "10.99.0.200/32", "fd00::/64", "::/0"] {
            assert_eq!(to_prefix(text.to_owned()).unwrap().unwrap().to_string(), text);
        }
        for (text, meant) in [("10.99.0.200/28", "10.99.0.192/28"), ("fd00::1/64", "fd00::/64")] {
            let error = to_prefix(text.to_owned()).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains(meant), "{error}");
        }
    }
}
