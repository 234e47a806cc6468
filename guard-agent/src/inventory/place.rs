//! Where containers are whose addresses can be on several segments: the network namespace that the
//! runtime names in a container's spec, or that of its first process.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use guard_api::proto::containerd::{
    containers::GetContainerRequest,
    tasks::{self, GetRequest, tasks_client::TasksClient},
};
use guard_core::evidence::{Listing, Place};
use jiff::Timestamp;
use prost::Message;
use serde::Deserialize;
use tokio::time::timeout;
use tonic::{
    GrpcMethod, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel,
};
use tonic_prost::ProstCodec;

use super::netns::Namespaces;
use crate::{config::containerd::Settings, live::SharedEvidence};

/// How many containers are looked at once.
const AT_ONCE: usize = 16;

/// How long all of them may take: a list is not kept waiting for them.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// What the runtime says of a container's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Network {
    /// It is this file.
    File(PathBuf),
    /// The runtime makes one for it.
    Own,
    /// It has none, or none that is known.
    None,
}

/// Finds out where containers are.
#[derive(Default)]
pub(super) struct Placing {
    namespaces: Option<Namespaces>,
    /// What is known of containers, by id and time of creation: it stays as it was made.
    networks: HashMap<(Arc<str>, Timestamp), Network>,
}

impl Placing {
    /// Notes where those containers are of which it matters. What cannot be found out is not known,
    /// and no reason not to list the rest.
    pub(super) async fn place(
        &mut self,
        live: &SharedEvidence,
        settings: &Settings,
        channel: &Channel,
        listing: &mut Listing,
    ) {
        let ambiguous = |address: &std::net::IpAddr| live.is_ambiguous(*address);
        let entries = listing.entries.iter_mut();
        let mut all: Vec<_> =
            entries.filter(|entry| entry.addresses.iter().any(ambiguous)).collect();
        for entry in &mut all {
            entry.place = Place::Unknown;
        }
        let keys: Vec<_> = all.iter().map(|entry| (Arc::clone(&entry.id), entry.since)).collect();
        self.networks.retain(|known, _| keys.contains(known));
        if self.namespaces.is_none() && !keys.is_empty() {
            self.namespaces = Namespaces::open();
        }
        let Some(namespaces) = &self.namespaces else { return };
        let mut learned = Vec::new();
        {
            let look = async |at: usize, key: (Arc<str>, Timestamp)| {
                let network = match self.networks.get(&key) {
                    Some(known) => Some(known.clone()),
                    None => network(settings, channel, &key.0).await.ok(),
                };
                let netns = match &network {
                    Some(Network::File(path)) => namespaces.of_file(path).await,
                    Some(Network::Own) => own(settings, channel, namespaces, &key.0).await,
                    Some(Network::None) | None => None,
                };
                (at, key, network, netns)
            };
            let found = keys.into_iter().enumerate().map(|(at, key)| look(at, key));
            let mut found = std::pin::pin!(stream::iter(found).buffer_unordered(AT_ONCE));
            let reading = async {
                while let Some((at, key, network, netns)) = found.next().await {
                    if let Some(netns) = netns {
                        all[at].place = Place::Netns(netns);
                    }
                    learned.extend(network.map(|network| (key, network)));
                }
            };
            // Those that are not found in time are not known, until the next list.
            let _ = timeout(READ_TIMEOUT, reading).await;
        }
        self.networks.extend(learned);
    }
}

/// What of a container's record is read here and nowhere else: lists leave the spec out.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(message, optional, tag = "1")]
    container: Option<WithSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct WithSpec {
    #[prost(message, optional, tag = "5")]
    spec: Option<prost_types::Any>,
}

async fn network(settings: &Settings, channel: &Channel, id: &str) -> Result<Network, Status> {
    let request = GetContainerRequest { id: id.to_owned() };
    let mut request = settings.request(request).map_err(|e| Status::internal(e.to_string()))?;
    let path = "/containerd.services.containers.v1.Containers/Get";
    let method = GrpcMethod::new("containerd.services.containers.v1.Containers", "Get");
    request.extensions_mut().insert(method);
    let mut client = Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<GetContainerRequest, Record>::default();
    let record = client.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner();
    let spec = record.container.and_then(|container| container.spec);
    Ok(spec.map_or(Network::None, |spec| read(&spec.value)))
}

async fn own(
    settings: &Settings,
    channel: &Channel,
    namespaces: &Namespaces,
    id: &str,
) -> Option<i32> {
    let request: Request<_> = settings.request(GetRequest { container_id: id.to_owned() }).ok()?;
    let found = TasksClient::new(channel.clone()).get(request).await.ok()?.into_inner();
    let tasks::GetResponse { process: Some(process) } = found else { return None };
    if process.pid == 0 { None } else { namespaces.of_process(process.pid, id).await }
}

/// The part of the runtime specification's `config.json` that is about namespaces.
#[derive(Deserialize)]
struct Spec {
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Linux {
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

fn read(spec: &[u8]) -> Network {
    let namespaces =
        serde_json::from_slice::<Spec>(spec).ok().and_then(|spec| spec.linux?.namespaces);
    let mut network = namespaces.into_iter().flatten().filter(|one| one.kind == "network");
    match network.next() {
        Some(Namespace { path, .. }) if path.is_empty() => Network::Own,
        Some(Namespace { path, .. }) if Path::new(&path).is_absolute() => {
            Network::File(path.into())
        }
        // That of the runtime itself.
        Some(_) | None => Network::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spec_names_the_namespace_or_leaves_it_to_the_runtime() {
        let spec = |namespaces: &str| {
            read(format!(r#"{{"linux":{{"namespaces":{namespaces}}}}}"#).as_bytes())
        };
        let file = spec(r#"[{"type":"pid"},{"type":"network","path":"/run/netns/a"}]"#);
        assert_eq!(file, Network::File("/run/netns/a".into()));
        assert_eq!(spec(r#"[{"type":"network"}]"#), Network::Own);
        for none in
            ["[]", "null", r#"[{"type":"network","path":"relative"}]"#, r#"[{"path":"/x"}]"#]
        {
            assert_eq!(spec(none), Network::None, "{none}");
        }
        for none in ["", "{}", "[", r#"{"linux":null}"#] {
            assert_eq!(read(none.as_bytes()), Network::None, "{none}");
        }
    }
}
