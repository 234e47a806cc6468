//! The controller's directory: its own list of sandboxes, and its word about a single one.
//!
//! The list is an index that may lag. It adds reasons to keep a lease; that a sandbox is not in it
//! proves nothing before the directory was asked for that sandbox by name.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use guard_api::proto::directory::{
    GetRequest, ListRequest, Sandbox, State, directory_client::DirectoryClient,
};
use guard_core::{
    bounds,
    evidence::{Death, Entry, Listing, Place, SandboxState, Unread},
    lease,
    owner::Owner,
    time::Now,
};
use jiff::Timestamp;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::{
    ANSWER_TIMEOUT, SourceError,
    events::Mark,
    label::Reading,
    source::{Changed, Lister},
};
use crate::{clock, config::inventory::Directory as Settings};

/// Tells of no changes: how often it is asked whether it is still there.
const BETWEEN_LOOKS: Duration = Duration::from_secs(30);

/// A list of 65,000 sandboxes is above the usual 4 MiB.
const LARGEST: usize = 64 << 20;

/// How many sandboxes are asked for at once.
const AT_ONCE: usize = 16;

pub(super) struct Directory {
    settings: Settings,
    client: Option<DirectoryClient<Channel>>,
    /// When those that it lists were first listed in their state.
    first: HashMap<(Owner, bool), Now>,
}

impl Directory {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, client: None, first: HashMap::new() }
    }
}

async fn connect(settings: &Settings) -> Result<DirectoryClient<Channel>, SourceError> {
    let Settings { socket, uid } = settings;
    let client = DirectoryClient::new(super::connect(socket, *uid).await?);
    Ok(client.max_decoding_message_size(LARGEST))
}

impl Lister for Directory {
    async fn list(&mut self) -> Result<Listing, SourceError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => connect(&self.settings).await?,
        };
        let client = self.client.insert(client);
        let listed = client.list(ListRequest {}).await;
        let listed = listed.map_err(|status| SourceError::call("list the sandboxes", &status))?;
        let listed = listed.into_inner().sandboxes;
        bounds::LISTED.check("the directory", listed.len())?;
        let mut listing = Listing::default();
        let (now, mut seen) = (clock::now(), HashMap::new());
        for sandbox in listed {
            let first_listed = |owner: &Owner, dead| {
                let state = (owner.clone(), dead);
                let first = self.first.get(&state).copied().unwrap_or(now);
                *seen.entry(state).or_insert(first)
            };
            read(&sandbox, &mut listing, first_listed);
        }
        self.first = seen;
        Ok(listing)
    }

    fn mark(&self) -> Option<Mark> {
        None
    }

    async fn changed(&mut self) -> Changed {
        sleep(BETWEEN_LOOKS).await;
        Changed::News
    }

    fn reset(&mut self) {
        self.client = None;
    }
}

fn read(listed: &Sandbox, listing: &mut Listing, first_listed: impl FnOnce(&Owner, bool) -> Now) {
    let Sandbox { sandbox, lifecycle, state: _, since } = listed;
    let mut reading = Reading::default();
    let owner = reading.name("its name", sandbox);
    let named_run = reading.name("its lifecycle", lifecycle);
    let nobodys = owner.is_none();
    let unread =
        Unread { owner: nobodys || named_run.is_none() != lifecycle.is_empty(), addresses: false };
    let dead = match listed.state() {
        State::Alive => false,
        State::Dead => true,
        // It may be there: what is not clear keeps it.
        State::Unspecified => {
            reading.fault(format!("it is in no known state ({})", listed.state));
            false
        }
    };
    if sandbox.is_empty() {
        reading.fault("it has no name");
    }
    // No lease can be held under a name that cannot be read, and whose death it is has to be known.
    if (nobodys && !sandbox.is_empty()) || (dead && unread.owner) {
        return reading.note("sandbox", sandbox, None, listing);
    }
    let owner = Owner {
        sandbox: owner.unwrap_or_else(lease::no_text),
        lifecycle: named_run.unwrap_or_else(lease::no_text),
    };
    let at = since.as_ref().and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
    let Now { boot: listed, wall } = first_listed(&owner, dead);
    let entry = Entry {
        owner,
        id: lease::no_text(),
        addresses: Vec::new(),
        labelled: true,
        named: true,
        dead: dead.then_some(Death { listed, at }),
        detail: Arc::from("the directory lists the sandbox"),
        since: at.unwrap_or(wall),
        unread,
        place: Place::Clear,
    };
    reading.end("sandbox", sandbox, entry, listing);
}

/// Asks for sandboxes by name, some at a time over one connection.
///
/// # Errors
/// Of one there was no answer, or none that can be read.
pub(super) async fn look_up(
    settings: &Settings,
    owners: HashSet<Owner>,
) -> Result<HashMap<Owner, SandboxState>, SourceError> {
    if owners.is_empty() {
        return Ok(HashMap::new());
    }
    let client = timeout(ANSWER_TIMEOUT, connect(settings))
        .await
        .map_err(|_| SourceError::Late(ANSWER_TIMEOUT))?;
    let client = &client?;
    let asked = owners.into_iter().map(async |owner| {
        let word = timeout(ANSWER_TIMEOUT, ask(client.clone(), &owner)).await;
        let word = word.unwrap_or(Err(SourceError::Late(ANSWER_TIMEOUT)))?;
        Ok((owner, word))
    });
    stream::iter(asked).buffer_unordered(AT_ONCE).try_collect().await
}

async fn ask(
    mut client: DirectoryClient<Channel>,
    owner: &Owner,
) -> Result<SandboxState, SourceError> {
    let Owner { sandbox, lifecycle } = owner;
    let request = GetRequest { sandbox: sandbox.to_string(), lifecycle: lifecycle.to_string() };
    let answer = client.get(request).await;
    let answer = answer.map_err(|status| SourceError::call("look a sandbox up", &status))?;
    let Some(found) = answer.into_inner().sandbox else { return Ok(SandboxState::NotFound) };
    let unreadable = |what: &str| {
        Err(SourceError::Unreadable(format!("asked for sandbox {owner}, the directory {what}")))
    };
    let may_be = |said: &str, asked: &str| said == asked || said.is_empty() || asked.is_empty();
    match found.state() {
        State::Unspecified => unreadable("says that it is in no known state"),
        State::Alive => Ok(SandboxState::Alive),
        State::Dead if !may_be(&found.lifecycle, lifecycle) => {
            unreadable("tells of the end of another lifecycle")
        }
        State::Dead => Ok(SandboxState::Dead),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(sandbox: &str, lifecycle: &str, state: i32) -> Listing {
        let (sandbox, lifecycle) = (sandbox.to_owned(), lifecycle.to_owned());
        let mut listing = Listing::default();
        let listed = Sandbox { sandbox, lifecycle, state, since: None };
        read(&listed, &mut listing, |_, _| clock::now());
        listing
    }

    #[test]
    fn rule_8_a_sandbox_that_cannot_be_read_concerns_itself_alone() {
        let (alive, dead) = (State::Alive.into(), State::Dead.into());
        assert!(read_one("s", "1", alive).unreadable.is_empty());
        // In no known state: it may be alive.
        for state in [State::Unspecified.into(), 7] {
            let listing = read_one("s", "1", state);
            assert!(
                listing.entries[0].dead.is_none() && listing.unreadable.len() == 1,
                "{listing:?}"
            );
            assert!(listing.unreadable[0].why.contains("sandbox s: it is in no known state"));
        }
        // Without a name it may be any, unless it has ended.
        assert!(read_one("", "", alive).entries[0].is_nameless());
        let long = "l".repeat(254);
        for (sandbox, lifecycle, state, entries) in [
            ("", "", dead, 0),
            ("two words", "", alive, 0),
            (&long, "", alive, 0),
            ("s", "two words", alive, 1),
            ("s", "two words", dead, 0),
        ] {
            let listing = read_one(sandbox, lifecycle, state);
            assert_eq!((listing.entries.len(), listing.unreadable.len()), (entries, 1));
            assert!(listing.entries.iter().all(|entry| entry.owner.lifecycle.is_empty()));
        }
    }
}
