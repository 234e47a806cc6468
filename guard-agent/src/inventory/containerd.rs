//! containerd: its containers, in every state, with the labels that name sandbox and addresses.
//!
//! The list is the truth; events only say when to ask for it. A container whose record exists
//! keeps its addresses, whether it runs, is paused or has stopped. Works with 1.6, 1.7 and 2.x,
//! whose API is the same as far as it is used here.

use std::{sync::Arc, time::Duration};

use guard_api::proto::containerd::{
    containers::{Container, ListContainersRequest, containers_client::ContainersClient},
    events::{Envelope, SubscribeRequest, events_client::EventsClient},
};
use guard_core::{
    bounds,
    evidence::{Entry, EventStream as _, Listing, Place, Unread},
    lease,
    owner::Owner,
};
use jiff::Timestamp;
use tokio::{task::JoinSet, time::timeout};
use tonic::{Request, metadata::AsciiMetadataValue, transport::Channel};

use super::{
    SourceError,
    events::{Events, Mark},
    label::{self, Reading},
    place::Placing,
    source::{Changed, Lister},
};
use crate::{config::containerd::Settings, live::SharedEvidence};

/// How long after it was asked for an event stream has certainly begun. containerd answers a
/// subscription with its first event only.
const SETTLED: Duration = Duration::from_secs(1);

/// As much of containerd's reason for the end of a stream as is told.
const LONGEST_REASON: usize = 256;

pub(super) struct Containerd {
    settings: Settings,
    live: Arc<SharedEvidence>,
    placing: Placing,
    connected: Option<Connected>,
}

struct Connected {
    channel: Channel,
    containers: ContainersClient<Channel>,
    events: Arc<Events>,
    /// What the events had told when the last list was asked for.
    mark: Mark,
    /// They had certainly begun by then.
    settled: bool,
    /// Whoever listens to them ends with the connection.
    _listener: JoinSet<()>,
}

impl Containerd {
    pub(super) fn new(settings: Settings, live: Arc<SharedEvidence>) -> Self {
        Self { settings, live, placing: Placing::default(), connected: None }
    }

    async fn connect(&self) -> Result<Connected, SourceError> {
        let Settings { socket, namespace, .. } = &self.settings;
        let channel = super::connect(socket, None).await?;
        // A container that is started has its network namespace from then on. The slashes are those of
        // a regular expression.
        let topics = ["/containers/", "/tasks.start/"];
        let filters = topics.map(|topic| format!("namespace=={namespace},topic~={topic}")).to_vec();
        let events = Events::new();
        let mut listener = JoinSet::new();
        listener.spawn(listen(channel.clone(), filters, Arc::clone(&events)));
        let (containers, mark) = (ContainersClient::new(channel.clone()), events.mark());
        Ok(Connected { channel, containers, events, mark, settled: false, _listener: listener })
    }
}

/// Passes on that something has changed, as long as the stream lasts.
async fn listen(channel: Channel, filters: Vec<String>, events: Arc<Events>) {
    let ended = follow(channel, filters, &events).await;
    events.end(&match ended {
        Ok(()) => "containerd has closed it".to_owned(),
        Err(status) => {
            let what = SourceError::call("follow its events", &status).to_string();
            what.chars().take(LONGEST_REASON).collect()
        }
    });
}

async fn follow(
    channel: Channel,
    filters: Vec<String>,
    events: &Events,
) -> Result<(), tonic::Status> {
    let request = SubscribeRequest { filters };
    let mut stream = EventsClient::new(channel).subscribe(request).await?.into_inner();
    events.confirm();
    while let Some(Envelope { .. }) = stream.message().await? {
        events.tell();
    }
    Ok(())
}

impl Lister for Containerd {
    async fn list(&mut self) -> Result<Listing, SourceError> {
        let connected = match self.connected.take() {
            Some(connected) => connected,
            None => self.connect().await?,
        };
        let connected = self.connected.insert(connected);
        let Connected { channel, containers, events, mark, settled, _listener: _ } = connected;
        *settled = events.is_confirmed() || events.age() >= SETTLED;
        *mark = events.mark();
        let request = self.settings.request(ListContainersRequest::default())?;
        let failed = |status| SourceError::call("list the containers", &status);
        let mut stream = containers.list_stream(request).await.map_err(failed)?.into_inner();
        let mut listing = Listing::default();
        // The stream ends well only with the server's status: one that is cut off is an error.
        while let Some(message) = stream.message().await.map_err(failed)? {
            bounds::LISTED.check("containerd", listing.entries.len() + 1)?;
            // Without contents it is one without a name.
            self.settings.read(&message.container.unwrap_or_default(), &mut listing);
        }
        self.placing.place(&self.live, &self.settings, channel, &mut listing).await;
        Ok(listing)
    }

    fn mark(&self) -> Option<Mark> {
        let connected = self.connected.as_ref().filter(|connected| connected.settled)?;
        Some(connected.mark.clone())
    }

    async fn changed(&mut self) -> Changed {
        let Some(Connected { events, mark, settled, .. }) = &self.connected else {
            return Changed::News;
        };
        loop {
            if let Some(why) = events.ended() {
                let age = events.age();
                self.connected = None;
                return Changed::Ended(why, age);
            }
            // What changed before the events began is in a second list.
            let unsettled =
                if *settled { Duration::MAX } else { SETTLED.saturating_sub(events.age()) };
            let begun = !*settled && events.is_confirmed();
            if begun || unsettled.is_zero() || !mark.is_current() {
                return Changed::News;
            }
            // At the end of the time it is looked at once more.
            let _ = timeout(unsettled, events.news()).await;
        }
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
        let mut reading = Reading::default();
        if id.is_empty() {
            reading.fault("it has no id");
        }
        let own_name = reading.name("its id", id);
        let mut label = |name: &str| {
            let value = labels.get(name).map_or("", String::as_str);
            (value, reading.name(&format!("the label {name:?}"), value))
        };
        let (sandbox, owner) = label(&self.sandbox_label);
        let (_, lifecycle) = label(&self.lifecycle_label);
        let mut addresses = Vec::new();
        let mut labelled = !sandbox.is_empty();
        let mut unread = Unread { owner: owner.is_none() && labelled, addresses: false };
        for (name, value) in labels {
            if name.strip_prefix(&*self.address_label).is_some_and(is_number) {
                labelled = true;
                match reading.address(&format!("the label {name:?}"), value) {
                    Some(address) => addresses.push(address),
                    None => unread.addresses = true,
                }
            }
        }
        addresses.sort();
        addresses.dedup();
        let named = owner.is_some();
        let sandbox = owner.or(own_name).unwrap_or_else(lease::no_text);
        let owner = Owner { sandbox, lifecycle: lifecycle.unwrap_or_else(lease::no_text) };
        let since = created_at.as_ref().and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
        let entry = Entry {
            owner,
            id: Arc::from(&**id),
            addresses,
            labelled,
            named,
            dead: None,
            detail: Arc::from(format!("container {} in {}", label::cut(id), self.namespace)),
            since: since.unwrap_or(Timestamp::UNIX_EPOCH),
            unread,
            place: Place::Clear,
        };
        reading.end("container", id, entry, listing);
    }
}

/// `…/ip`, `…/ip0`, `…/ip12`; not `…/ip-family`.
fn is_number(rest: &str) -> bool {
    rest.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use guard_core::evidence::Unreadable;

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
    fn rule_8_a_label_that_cannot_be_read_concerns_its_container_alone() {
        for value in ["10.8.64", "", "10.8.64.0/24", "none"] {
            let listing = read(&[("x/sandbox", "s"), ("x/ip", "10.8.64.2/24"), ("x/ip0", value)]);
            let [Unreadable { entry, owner, why }] = &*listing.unreadable else {
                panic!("{value}")
            };
            assert_eq!((&**entry, owner.as_ref().map(|owner| &*owner.sandbox)), ("c1", Some("s")));
            assert!(why.contains("container c1") && why.contains("x/ip0"), "{why}");
            let [entry] = &*listing.entries else { panic!("{listing:?}") };
            assert_eq!(entry.addresses, ["10.8.64.2".parse::<IpAddr>().unwrap()]);
            assert_eq!(entry.unread, Unread { owner: false, addresses: true });
            assert!(entry.named && &*entry.owner.sandbox == "s", "it speaks for its owner");
        }
    }

    #[test]
    fn rule_8_a_sandbox_that_cannot_be_read_leaves_the_container_known_by_its_id() {
        let long = "s".repeat(1 << 20);
        for value in ["two words", "ä", &long] {
            let listing =
                read(&[("x/sandbox", value), ("x/lifecycle", "a b"), ("x/ip", "fd00::2")]);
            let [entry] = &*listing.entries else { panic!("{listing:?}") };
            assert_eq!((&*entry.owner.sandbox, &*entry.owner.lifecycle), ("c1", ""));
            assert!(!entry.named && entry.labelled && entry.unread.owner);
            assert_eq!(entry.addresses.len(), 1);
            let [Unreadable { why, .. }] = &*listing.unreadable else { panic!("{listing:?}") };
            assert!(why.len() < 500 && why.contains("x/lifecycle"), "{why}");
        }
    }

    #[test]
    fn rule_8_a_container_without_a_name_is_listed_as_one() {
        let mut listing = Listing::default();
        settings().read(&Container::default(), &mut listing);
        assert!(listing.entries[0].is_nameless() && listing.unreadable.len() == 1);
        // An id that no lease can be held under is nobody's name, but tells it from others.
        let container = Container { id: "a b".to_owned(), ..Container::default() };
        settings().read(&container, &mut listing);
        let entry = &listing.entries[1];
        assert_eq!((&*entry.id, &*entry.owner.sandbox, entry.is_nameless()), ("a b", "", false));
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
