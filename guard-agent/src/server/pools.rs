//! `guard.v1.Pools`.

use std::sync::Arc;

use guard_core::lease::{LeaseKey, PoolStatus};
use tonic::{Request, Response, Status};

use super::{Deps, convert, error, page::Page, sources};
use guard_api::proto;

pub(super) struct Service(pub Arc<Deps>);

#[tonic::async_trait]
impl proto::pools_server::Pools for Service {
    async fn list(
        &self,
        request: Request<proto::ListPoolsRequest>,
    ) -> Result<Response<proto::ListPoolsResponse>, Status> {
        let mut page = Page::of("Pools.List", &mut request.into_inner(), self.0.bus.last())?;
        let pools = self.0.ledger.pools().await.map_err(error::refused)?;
        let away = sources::away(&self.0);
        let pools = page.of_all(pools, key, |pool| convert::pool(pool, &away));
        let (next_page_token, seq) = (page.next(), page.seq);
        Ok(Response::new(proto::ListPoolsResponse { pools, next_page_token, seq }))
    }

    async fn get(
        &self,
        request: Request<proto::GetPoolRequest>,
    ) -> Result<Response<proto::Pool>, Status> {
        let proto::GetPoolRequest { name } = request.into_inner();
        let pools = self.0.ledger.pools().await.map_err(error::refused)?;
        let pool = pools.iter().find(|pool| *pool.name == *name);
        let away = sources::away(&self.0);
        pool.map(|pool| Response::new(convert::pool(pool, &away)))
            .ok_or_else(|| error::pool_unknown(&name))
    }
}

/// One that the configuration has, and what is left of a former one, can have the same name.
fn key(pool: &PoolStatus) -> (u8, LeaseKey) {
    let PoolStatus { name, segment, prefix, draining, .. } = pool;
    let (pool, segment) = (Arc::clone(name), segment.clone());
    (u8::from(*draining), LeaseKey { pool, segment, address: prefix.network() })
}
