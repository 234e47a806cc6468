//! How much work callers may ask for at a time: few large answers, so many bytes of answers that are not
//! read yet, and a refusal is no cheap call.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{limit::Caller, transport::Terms};

/// Large answers at a time, of one caller and of all.
const OF_ONE: usize = 2;
const OF_ALL: usize = 8;
/// What is made of one caller's answers, or waits for it to read, in KiB.
const BYTES: u32 = 80 << 10;
/// How long a call waits for its place among these: its caller waits no longer.
const WAIT: Duration = Duration::from_secs(8);

/// How much an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// It says one thing, such as a lease with its labels.
    Small,
    /// It says some, as many as a page has.
    Wide,
    /// It is a page of a list.
    Large,
    /// It goes on.
    Endless,
    /// Questions and answers in turn.
    Dialogue,
}

/// Those that are not small. The pools of a node are few, and a CNI plugin asks for them.
const METHODS: &[(&str, Size)] = &[
    ("/grpc.health.v1.Health/Watch", Size::Endless),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Size::Dialogue),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Size::Dialogue),
    ("/guard.v1.Leases/Allocate", Size::Wide),
    ("/guard.v1.Leases/Release", Size::Wide),
    ("/guard.v1.Pools/List", Size::Wide),
    ("/guard.v1.Guard/Status", Size::Wide),
    ("/guard.v1.Guard/Why", Size::Wide),
    ("/guard.v1.Leases/List", Size::Large),
    ("/guard.v1.Leases/Watch", Size::Endless),
    ("/guard.v1.Subnets/List", Size::Large),
    ("/guard.v1.Interfaces/List", Size::Large),
    ("/guard.v1.Guard/Live", Size::Large),
    ("/guard.v1.Guard/Ports", Size::Large),
    ("/guard.v1.Guard/Drops", Size::Large),
    ("/guard.v1.Guard/Conflicts", Size::Large),
    ("/guard.v1.Guard/Drops", Size::Large),
    ("/guard.v1.Guard/WatchConflicts", Size::Endless),
    ("/guard.v1.Guard/Trace", Size::Endless),
    ("/guard.v1.Admin/Recover", Size::Large),
    ("/guard.v1.Admin/Check", Size::Large),
    ("/guard.v1.Admin/Gc", Size::Large),
    ("/guard.v1.Admin/Quarantine", Size::Large),
    ("/guard.v1.Admin/Reconcile", Size::Large),
    ("/guard.v1.Admin/Adopt", Size::Large),
    ("/guard.v1.Admin/Watchdog", Size::Large),
];

impl Size {
    /// How large what the method at a path answers is.
    pub(super) fn of(path: &str) -> Self {
        let known = METHODS.iter().find(|(method, _)| *method == path);
        known.map_or(Self::Small, |(_, size)| *size)
    }

    /// What it is sent on.
    pub(super) fn terms(self, caller: Caller) -> Terms {
        if self == Self::Endless { Terms::stream(caller) } else { Terms::answer(caller) }
    }

    /// Whether it is one message, made before any of it is sent.
    pub(super) fn is_one(self) -> bool {
        !matches!(self, Self::Endless | Self::Dialogue)
    }

    /// The most that it takes at a time, in KiB.
    fn most(self) -> u32 {
        match self {
            // A lease has up to 60 KiB of labels.
            Self::Small | Self::Endless => 96,
            // A MiB of rows, and the last of them.
            Self::Wide | Self::Large | Self::Dialogue => (1 << 10) + 96,
        }
    }
}

/// The places for answers.
#[derive(Clone, Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    of_one: Arc<Mutex<HashMap<Caller, OfOne>>>,
}

/// Those of one caller.
#[derive(Clone, Debug)]
struct OfOne {
    large: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// A place, until it is dropped: as long as the answer is being made or sent.
#[derive(Debug)]
pub(super) struct Place {
    bytes: OwnedSemaphorePermit,
    _large: Option<[OwnedSemaphorePermit; 2]>,
}

impl Place {
    /// Keeps no more than so many bytes take: there is the answer.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let taken = self.bytes.num_permits();
        let spare = taken.saturating_sub(bytes.div_ceil(1 << 10).max(1));
        drop(self.bytes.split(spare));
    }
}

impl Default for Places {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(OF_ALL)), of_one: Arc::default() }
    }
}

impl Places {
    /// Waits for a place. None where it takes too long.
    pub(super) async fn take(&self, caller: Caller, size: Size) -> Option<Place> {
        let OfOne { large, bytes } = self.of_one(caller);
        let place = async {
            // A caller waits for its own first, so that of all others it has no more than these
            // wait.
            let is_large = size == Size::Large;
            let own = if is_large { Some(large.acquire_owned().await.ok()?) } else { None };
            let bytes = bytes.acquire_many_owned(size.most()).await.ok()?;
            let large = match own {
                Some(own) => Some([own, self.all.clone().acquire_owned().await.ok()?]),
                None => None,
            };
            Some(Place { bytes, _large: large })
        };
        timeout(WAIT, place).await.ok().flatten()
    }

    fn of_one(&self, caller: Caller) -> OfOne {
        let mut known = self.of_one.lock();
        // Nothing is kept of those who have none and wait for none.
        let is_used = |places: &Arc<Semaphore>| Arc::strong_count(places) > 1;
        known.retain(|_, of_one| is_used(&of_one.large) || is_used(&of_one.bytes));
        let own = known.entry(caller).or_insert_with(|| OfOne {
            large: Arc::new(Semaphore::new(OF_ONE)),
            bytes: Arc::new(Semaphore::new(BYTES as usize)),
        });
        own.clone()
    }
}

/// Refusals that are answered at once, for each caller.
const BURST: u32 = 64;
/// How often one more is.
const EACH: Duration = Duration::from_millis(20);
/// Refusals of one caller that may wait for their turn.
const WAITING: u32 = 64;

/// How soon callers are refused: each refusal takes a token, of which there are so many a second.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens(Arc<Mutex<HashMap<Caller, Instant>>>);

impl Tokens {
    /// Takes one, and says for how long to wait for it. None where too many wait already.
    pub(super) fn take(&self, caller: Caller, now: Instant) -> Option<Duration> {
        let mut spent = self.0.lock();
        // Of those who have all of theirs, nothing is kept.
        spent.retain(|_, until| *until > now);
        let until = spent.get(&caller).copied().unwrap_or(now) + EACH;
        let wait = until.saturating_duration_since(now).saturating_sub(EACH * BURST);
        if wait > EACH * WAITING {
            return None;
        }
        spent.insert(caller, until);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use guard_api::proto;

    #[test]
    fn what_has_pages_is_large_and_what_is_a_stream_endless() {
        let set = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
        let paged: Vec<_> = set
            .file
            .iter()
            .flat_map(|file| &file.message_type)
            .filter(|message| message.field.iter().any(|field| field.name() == "page_token"))
            .map(|message| format!(".guard.v1.{}", message.name()))
            .collect();
        // What has several leases, or says all that there is to say.
        let wide = ["Leases/Allocate", "Leases/Release", "Guard/Status", "Guard/Why"];
        let wide = wide.map(|method| format!("/guard.v1.{method}"));
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let size = match path.as_str() {
                        "/guard.v1.Pools/List" => Size::Wide,
                        _ if wide.contains(&path) => Size::Wide,
                        _ if method.server_streaming() => Size::Endless,
                        _ if paged.iter().any(|paged| paged == method.input_type()) => Size::Large,
                        _ => Size::Small,
                    };
                    assert_eq!(Size::of(&path), size, "{path}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_caller_has_two_places_and_all_have_eight() {
        let places = Places::default();
        let mut taken = Vec::new();
        for caller in 0..4 {
            for _ in 0..OF_ONE {
                taken.push(places.take(Some(caller), Size::Large).await.unwrap());
            }
        }
        let soon = Duration::from_millis(20);
        let large = |caller| timeout(soon, places.take(caller, Size::Large));
        assert!(large(Some(0)).await.is_err());
        assert!(large(Some(9)).await.is_err(), "there are no more");
        // What is small or wide has other places.
        assert!(places.take(Some(0), Size::Small).await.is_some());
        taken.pop();
        let other = large(Some(9)).await.unwrap();
        assert!(other.is_some());
        drop((taken, other));
        assert!(places.take(None, Size::Large).await.is_some());
        assert_eq!(places.of_one.lock().len(), 1, "nothing is kept of those who are gone");
    }

    #[tokio::test]
    async fn a_caller_has_so_many_bytes_and_what_an_answer_does_not_take_is_free_at_once() {
        let (places, soon) = (Places::default(), Duration::from_millis(20));
        let take = |caller, size| timeout(soon, places.take(Some(caller), size));
        // As many small answers as there may be calls.
        let mut small = Vec::new();
        for _ in 0..512 {
            small.push(take(0, Size::Small).await.unwrap().unwrap());
        }
        let mut wide = Vec::new();
        while let Ok(place) = take(0, Size::Wide).await {
            wide.push(place.unwrap());
        }
        let all = (BYTES - 512 * Size::Small.most()) / Size::Wide.most();
        assert_eq!(wide.len(), all as usize);
        assert!(take(1, Size::Wide).await.is_ok(), "another has its own");
        wide[0].shrink(1 << 20);
        assert!(take(0, Size::Wide).await.is_err());
        small.iter_mut().for_each(|place| place.shrink(100));
        assert!(take(0, Size::Wide).await.is_ok());
        assert_eq!(small[0].bytes.num_permits(), 1);
        // One that is larger than it should be keeps what it has.
        wide[1].shrink(1 << 24);
        assert_eq!(wide[1].bytes.num_permits(), Size::Wide.most() as usize);
    }

    #[test]
    fn whoever_is_refused_again_and_again_waits_for_it() {
        let (tokens, start) = (Tokens::default(), Instant::now());
        let take = || tokens.take(Some(7), start);
        assert!((0..BURST).all(|_| take() == Some(Duration::ZERO)));
        assert_eq!(take(), Some(EACH));
        let waiting = std::iter::repeat_with(take).take_while(Option::is_some).count();
        assert_eq!(waiting, WAITING as usize - 1);
        assert_eq!(tokens.take(Some(8), start), Some(Duration::ZERO), "another has its own");
        let rested = start + EACH * (BURST + WAITING);
        assert_eq!(tokens.take(Some(7), rested), Some(Duration::ZERO));
        assert_eq!(tokens.0.lock().len(), 1, "nothing is kept of those who rest");
    }
}
