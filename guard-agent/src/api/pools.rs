//! `guard.v1.Pools`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{Context, convert, error, sources};
use crate::proto;

pub struct Service(pub Arc<Context>);

#[tonic::async_trait]
impl proto::pools_server::Pools for Service {
    async fn list(
        &self,
        _request: Request<proto::ListPoolsRequest>,
    ) -> Result<Response<proto::ListPoolsResponse>, Status> {
        let pools = self.0.ledger.pools().await.map_err(error::refused)?;
        let away = sources::away(&self.0);
        let pools = pools.iter().map(|pool| convert::pool(pool, &away)).collect();
        Ok(Response::new(proto::ListPoolsResponse { pools }))
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
