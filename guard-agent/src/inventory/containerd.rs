//! containerd: its containers, in every state, with the labels that name sandbox and addresses.
//!
//! The list is the truth; events only say when to ask for it. A container whose record exists
//! keeps its addresses, whether it runs, is paused or has stopped. Works with 1.6, 1.7 and 2.x,
//! whose API is the same as far as it is used here.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tonic::{Request, metadata::AsciiMetadataValue, transport::Channel};

use super::{Entry, Listing, SourceError, channel, source::Lister};
use crate::{
    lease::Owner,
    proto::containerd::{
        containers::{Container, ListContainersRequest, containers_client::ContainersClient},
        events::{Envelope, SubscribeRequest, events_client::EventsClient},
    },
};

/// Where containers are and what their labels mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// containerd's socket.
    pub socket: PathBuf,
    /// The namespace of the containers.
    pub namespace: String,
    /// The label that names the sandbox.
    pub sandbox_label: String,
    /// The label that tells its runs apart.
    pub lifecycle_label: String,
    /// What the labels that name addresses begin with.
    pub address_label: String,
}

/// How soon after its first list a connection's events have certainly begun.
const SETTLED: Duration = Duration::from_secs(1);

pub(super) struct Containerd {
    settings: Settings,
    connected: Option<Connected>,
}

struct Connected {
    containers: ContainersClient<Channel>,
    /// That something has changed; closed once the connection is.
    events: mpsc::Receiver<()>,
    /// Whoever listens to them ends with the connection.
    _listener: JoinSet<()>,
    /// Its events may have begun after the first list.
    fresh: bool,
}

impl Containerd {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, connected: None }
    }

    async fn connect(&self) -> Result<Connected, SourceError> {
        let Settings { socket, namespace, .. } = &self.settings;
        let channel = channel::connect(socket).await?;
        let filters = vec![format!("namespace=={namespace},topic~=/containers/")];
        let (tell, events) = mpsc::channel(1);
        let mut listener = JoinSet::new();
        listener.spawn(listen(channel.clone(), filters, tell));
        let containers = ContainersClient::new(channel);
        Ok(Connected { containers, events, _listener: listener, fresh: true })
    }
}

/// Passes on that something has changed, as long as the connection lasts. containerd answers a
/// subscription with its first event only, so that nobody can wait for the answer.
async fn listen(channel: Channel, filters: Vec<String>, tell: mpsc::Sender<()>) {
    let subscribed = EventsClient::new(channel).subscribe(SubscribeRequest { filters }).await;
    let Ok(mut events) = subscribed.map(tonic::Response::into_inner) else { return };
    while let Ok(Some(Envelope { .. })) = events.message().await {
        // One that waits already says it all.
        let _ = tell.try_send(());
    }
}

impl Lister for Containerd {
    async fn list(&mut self) -> Result<Listing, SourceError> {
        let connected = match self.connected.take() {
            Some(connected) => connected,
            None => self.connect().await?,
        };
        let connected = self.connected.insert(connected);
        let request = self.settings.request(ListContainersRequest::default())?;
        let failed = |status| SourceError::call("list the containers", &status);
        let mut stream =
            connected.containers.list_stream(request).await.map_err(failed)?.into_inner();
        let mut listing = Listing::default();
        // The stream ends well only with the server's status: one that is cut off is an error.
        while let Some(message) = stream.message().await.map_err(failed)? {
            match message.container {
                Some(container) => self.settings.read(&container, &mut listing),
                None => listing.unreadable.push("a container without contents".to_owned()),
            }
        }
        Ok(listing)
    }

    async fn changed(&mut self) {
        let Some(Connected { events, fresh, .. }) = &mut self.connected else { return };
        // What changed before the events began is in a second list.
        let settled = if std::mem::take(fresh) { SETTLED } else { Duration::MAX };
        if timeout(settled, events.recv()).await == Ok(None) {
            self.connected = None;
        }
    }

    fn streams(&self) -> bool {
        self.connected.as_ref().is_some_and(|connected| !connected.fresh)
    }

    fn reset(&mut self) {
        self.connected = None;
    }
}

impl Settings {
    /// A request that concerns the namespace.
    pub(super) fn request<T>(&self, message: T) -> Result<Request<T>, SourceError> {
        let mut request = Request::new(message);
        let namespace = AsciiMetadataValue::try_from(&*self.namespace)
            .map_err(|_| SourceError::Namespace(self.namespace.clone()))?;
        request.metadata_mut().insert("containerd-namespace", namespace);
        Ok(request)
    }

    /// Adds a container to a listing.
    pub(super) fn read(&self, container: &Container, listing: &mut Listing) {
        let Container { id, labels, snapshotter: _, snapshot_key: _, created_at } = container;
        let label = |name: &str| labels.get(name).filter(|value| !value.is_empty());
        let sandbox = label(&self.sandbox_label);
        let mut addresses = Vec::new();
        let mut labelled = sandbox.is_some();
        for (name, value) in labels {
            if name.strip_prefix(&*self.address_label).is_some_and(is_number) {
                labelled = true;
                match value.trim().parse::<IpAddr>() {
                    Ok(address) => addresses.push(address.to_canonical()),
                    Err(_) => listing.unreadable.push(format!(
                        "container {id}: the label {name:?} says {value:?}, which is no address"
                    )),
                }
            }
        }
        if id.is_empty() {
            listing.unreadable.push("a container without an id".to_owned());
        }
        addresses.sort();
        let lifecycle = label(&self.lifecycle_label).map_or("", String::as_str);
        let since = created_at.as_ref().and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
        listing.entries.push(Entry {
            owner: Owner {
                sandbox: Arc::from(&**sandbox.unwrap_or(id)),
                lifecycle: Arc::from(lifecycle),
            },
            id: Arc::from(&**id),
            addresses,
            labelled,
            named: sandbox.is_some(),
            dead: None,
            detail: Arc::from(format!("container {id} in {}", self.namespace)),
            since: since.unwrap_or(Timestamp::UNIX_EPOCH),
        });
    }
}

/// `…/ip`, `…/ip0`, `…/ip12`; not `…/ip-family`.
fn is_number(rest: &str) -> bool {
    rest.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            socket: "/nowhere".into(),
            namespace: "sandbox".to_owned(),
            sandbox_label: "x/sandbox".to_owned(),
            lifecycle_label: "x/lifecycle".to_owned(),
            address_label: "x/ip".to_owned(),
        }
    }

    fn read(labels: &[(&str, &str)]) -> Listing {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let container =
            Container { id: "c1".to_owned(), labels: labels.collect(), ..Container::default() };
        let mut listing = Listing::default();
        settings().read(&container, &mut listing);
        listing
    }

    #[test]
    fn address_labels_are_found_by_their_prefix() {
        let listing = read(&[
            ("x/sandbox", "s"),
            ("x/lifecycle", "run-1"),
            ("x/ip", "10.8.64.2"),
            ("x/ip1", "fd00::2"),
            ("x/ip-family", "dual"),
            ("other", "10.8.64.9"),
        ]);
        let [entry] = listing.entries.as_slice() else { panic!("{listing:?}") };
        assert_eq!((&*entry.owner.sandbox, &*entry.owner.lifecycle), ("s", "run-1"));
        assert_eq!(entry.addresses, ["10.8.64.2", "fd00::2"].map(|a| a.parse::<IpAddr>().unwrap()));
        assert!(listing.unreadable.is_empty() && entry.labelled && entry.named);
    }

    #[test]
    fn a_label_that_cannot_be_read_makes_the_answer_partial() {
        for value in ["10.8.64", "", "10.8.64.2/24", "none"] {
            let listing = read(&[("x/sandbox", "s"), ("x/ip", "10.8.64.2"), ("x/ip0", value)]);
            assert_eq!(listing.unreadable.len(), 1, "{value:?}");
            assert_eq!(listing.entries[0].addresses.len(), 1, "what can be read counts");
        }
    }

    #[test]
    fn a_container_without_labels_is_known_by_its_id() {
        let listing = read(&[]);
        assert_eq!(
            (&*listing.entries[0].owner.sandbox, listing.entries[0].labelled),
            ("c1", false)
        );
    }
}
