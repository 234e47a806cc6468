//! Pages of lists (AIP-158): how much of a list one response has, and where the next one goes on.
//!
//! A token is the key of the last row and the `seq` of the first page, with checksums of itself and
//! of what was asked: nothing is remembered of it, and it is good in every run of the agent.

use std::{net::IpAddr, sync::Arc};

use guard_core::{
    lease::{Lease, LeaseKey, Order},
    segment::Segment,
};
use prost::Message;

use super::error::Invalid;

/// The rows of a page whose caller does not say how many.
const ROWS: usize = 1000;
/// The most rows of a page, whatever its caller says.
const MOST_ROWS: usize = 10_000;
/// The bytes of a page's rows: far below the 4 MiB of a message that clients take unless told
/// otherwise, with room for the longest row.
pub(super) const BYTES: usize = 1 << 20;
/// What a row takes besides its own bytes: the field's number, and the length.
const AROUND_A_ROW: usize = 8;
/// How many rows are made, or asked for, before others have their turn.
pub(super) const AT_ONCE: usize = 128;

/// What a list is ordered by.
pub(super) trait Key: Sized + Ord {
    /// As text, in parts.
    fn parts(&self) -> Vec<String>;
    /// From its parts. None if they are no key of this list.
    fn of_parts(parts: &[String]) -> Option<Self>;
}

/// A request for a list.
pub(super) trait Paged: Message + Default + Clone {
    /// What says which page, taken out of the request: what is left says which list.
    fn take_page(&mut self) -> (i32, String);
}

/// Inside a token.
#[derive(Clone, PartialEq, Eq, Message)]
struct Token {
    /// Which list, and what was asked for: the checksum of both.
    #[prost(fixed32, tag = "1")]
    of: u32,
    #[prost(uint64, tag = "2")]
    seq: u64,
    #[prost(string, repeated, tag = "3")]
    key: Vec<String>,
}

/// One page while it is filled.
#[derive(Debug)]
pub(super) struct Page<K> {
    of: u32,
    /// The number of the last event before the first page.
    pub seq: u64,
    /// The last row of the page before.
    pub after: Option<K>,
    rows_left: usize,
    bytes_left: usize,
    last: Option<Vec<String>>,
    full: bool,
}

impl<K: Key> Page<K> {
    /// The page that a request asks for. `seq` is for the first one.
    ///
    /// # Errors
    /// The token is not one of this list, or the size is negative.
    pub(super) fn of<R: Paged>(list: &str, request: &mut R, seq: u64) -> Result<Self, Invalid> {
        let (size, token) = request.take_page();
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(list.as_bytes());
        hasher.update(&request.encode_to_vec());
        let of = hasher.finalize();
        let rows_left = match usize::try_from(size) {
            Ok(0) => ROWS,
            Ok(size) => size.min(MOST_ROWS),
            Err(_) => return Err(Invalid::Missing("page_size is negative; 0 is the default")),
        };
        let (seq, after) = if token.is_empty() {
            (seq, None)
        } else {
            let token = Token::read(&token).filter(|token| token.of == of);
            let Token { of: _, seq, key } = token.ok_or(Invalid::PageToken)?;
            (seq, Some(K::of_parts(&key).ok_or(Invalid::PageToken)?))
        };
        Ok(Self { of, seq, after, rows_left, bytes_left: BYTES, last: None, full: false })
    }

    /// Where something is done for each row, a page has no more of them than where nobody asks for
    /// any number: others wait for it, and the caller does.
    #[must_use]
    pub(super) fn of_work(mut self) -> Self {
        self.rows_left = self.rows_left.min(ROWS);
        self
    }

    /// A response that has no second page.
    pub(super) fn only() -> Self {
        let (rows_left, bytes_left) = (MOST_ROWS, BYTES);
        Self { of: 0, seq: 0, after: None, rows_left, bytes_left, last: None, full: false }
    }

    /// Whether a row is on the page: one that is not ends it. The rows come in the order of their
    /// keys, and the first always is, so that there is an end.
    pub(super) fn takes(&mut self, key: &K, bytes: usize) -> bool {
        let bytes = bytes + AROUND_A_ROW;
        if self.is_full() || self.last.is_some() && bytes > self.bytes_left {
            self.full = true;
            return false;
        }
        self.put(key, bytes);
        true
    }

    /// Whether the next row is certainly not on the page.
    pub(super) fn is_full(&self) -> bool {
        self.full || self.rows_left == 0 || self.bytes_left == 0
    }

    /// The next row would not fit: the page ends here.
    pub(super) fn end(&mut self) {
        self.full = true;
    }

    /// Puts a row on the page, whether or not it fits: what was done for it is done.
    pub(super) fn add(&mut self, key: &K, bytes: usize) {
        self.put(key, bytes + AROUND_A_ROW);
    }

    fn put(&mut self, key: &K, bytes: usize) {
        self.rows_left = self.rows_left.saturating_sub(1);
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.last = Some(key.parts());
    }

    /// How many rows to ask for: one more than are taken tells whether there are more. Where they
    /// are many, some of them.
    pub(super) fn wanted(&self) -> usize {
        (self.rows_left + 1).min(AT_ONCE)
    }

    /// The rows of a list that is known whole that are on the page.
    pub(super) fn of_all<T, M: Message>(
        &mut self,
        mut all: Vec<T>,
        key: impl Fn(&T) -> K,
        message: impl Fn(&T) -> M,
    ) -> Vec<M> {
        all.sort_by_cached_key(&key);
        let mut rows = Vec::new();
        for row in &all {
            let key = key(row);
            if self.after.as_ref().is_some_and(|after| key <= *after) {
                continue;
            }
            let message = message(row);
            if !self.takes(&key, message.encoded_len()) {
                break;
            }
            rows.push(message);
        }
        rows
    }

    /// The rows on the page of a list that is made in pieces: each has the rows after a key, in
    /// order, at most so many. Between two of them others have their turn.
    pub(super) async fn of_pieces<M: Message>(
        &mut self,
        piece: impl Fn(Option<&K>, usize) -> Vec<(K, M)>,
    ) -> Vec<M>
    where
        K: Clone,
    {
        let (mut rows, mut after) = (Vec::new(), self.after.clone());
        loop {
            let wanted = self.wanted();
            let some = piece(after.as_ref(), wanted);
            let last = some.len() < wanted;
            for (key, message) in some {
                if !self.takes(&key, message.encoded_len()) {
                    return rows;
                }
                rows.push(message);
                after = Some(key);
            }
            if last {
                return rows;
            }
            tokio::task::yield_now().await;
        }
    }

    /// What the next page is asked for with; empty where this is the last one.
    pub(super) fn next(&self) -> String {
        let Self { of, seq, last, full, .. } = self;
        match last {
            Some(key) if *full => Token { of: *of, seq: *seq, key: key.clone() }.write(),
            _ => String::new(),
        }
    }
}

impl Token {
    fn write(&self) -> String {
        let content = self.encode_to_vec();
        let checksum = crc32fast::hash(&content).to_be_bytes();
        checksum.iter().chain(&content).map(|byte| format!("{byte:02x}")).collect()
    }

    fn read(text: &str) -> Option<Self> {
        let digits = text.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Vec<u8> = digits.map(byte).collect::<Option<_>>()?;
        let (checksum, content) = bytes.split_first_chunk()?;
        let intact = crc32fast::hash(content) == u32::from_be_bytes(*checksum);
        // One token has one text.
        Self::decode(content).ok().filter(|token| intact && token.write() == text)
    }
}

impl Key for LeaseKey {
    fn parts(&self) -> Vec<String> {
        let Self { pool, segment, address } = self;
        let Segment { bridge, vlan, inner_vlan } = segment;
        let mut parts = vec![pool.to_string(), bridge.to_string(), vlan.to_string()];
        parts.extend((*inner_vlan != 0).then(|| inner_vlan.to_string()));
        parts.push(address.to_string());
        parts
    }

    fn of_parts(parts: &[String]) -> Option<Self> {
        let (pool, bridge, vlan, inner_vlan, address) = match parts {
            [pool, bridge, vlan, address] => (pool, bridge, vlan, 0, address),
            [pool, bridge, vlan, inner, address] => {
                (pool, bridge, vlan, inner.parse().ok()?, address)
            }
            _ => return None,
        };
        let segment = Segment::new(bridge.as_str(), vlan.parse().ok()?);
        let segment = Segment { inner_vlan, ..segment };
        Some(Self { pool: Arc::from(pool.as_str()), segment, address: address.parse().ok()? })
    }
}

/// A name.
impl Key for Arc<str> {
    fn parts(&self) -> Vec<String> {
        vec![self.to_string()]
    }

    fn of_parts(parts: &[String]) -> Option<Self> {
        let [name] = parts else { return None };
        Some(Self::from(name.as_str()))
    }
}

macro_rules! parsed_keys {
    ($($key:ty),*) => {$(
        impl Key for $key {
            fn parts(&self) -> Vec<String> {
                vec![self.to_string()]
            }

            fn of_parts(parts: &[String]) -> Option<Self> {
                let [number] = parts else { return None };
                number.parse().ok()
            }
        }
    )*};
}

parsed_keys! { u32, u64, IpAddr }

/// What has no other order than that of its text.
impl Key for Vec<String> {
    fn parts(&self) -> Vec<String> {
        self.clone()
    }

    fn of_parts(parts: &[String]) -> Option<Self> {
        Some(parts.to_vec())
    }
}

/// A row of a report that has several lists: which one, and the row's key there.
impl<K: Key> Key for (u8, K) {
    fn parts(&self) -> Vec<String> {
        let (list, key) = self;
        let mut parts = vec![list.to_string()];
        parts.extend(key.parts());
        parts
    }

    fn of_parts(parts: &[String]) -> Option<Self> {
        let (list, key) = parts.split_first()?;
        Some((list.parse().ok()?, K::of_parts(key)?))
    }
}

/// As the API counts rows.
pub(super) fn count(rows: usize) -> i32 {
    i32::try_from(rows).unwrap_or(i32::MAX)
}

/// The key of a lease in lists of leases.
pub(super) fn lease_key(lease: &Lease) -> LeaseKey {
    LeaseKey::of(lease, Order::Pool)
}

/// Every request that has pages.
macro_rules! paged {
    ($($request:ident),* $(,)?) => {$(
        impl Paged for guard_api::proto::$request {
            fn take_page(&mut self) -> (i32, String) {
                (std::mem::take(&mut self.page_size), std::mem::take(&mut self.page_token))
            }
        }
    )*};
}

paged! {
    ListLeasesRequest, ListPoolsRequest, ListSubnetsRequest, ListInterfacesRequest, LiveRequest,
    PortsRequest, DropsRequest, ConflictsRequest, ReconcileRequest, WatchdogRequest, RecoverRequest,
    CheckRequest, GcRequest, QuarantineRequest, AdoptRequest,
}

#[cfg(test)]
mod tests {
    use super::*;
    use guard_api::proto::{ListInterfacesRequest, ListLeasesRequest};

    fn request(size: i32, token: &str) -> ListInterfacesRequest {
        ListInterfacesRequest { page_size: size, page_token: token.to_owned() }
    }

    fn page(size: i32, token: &str) -> Result<Page<u32>, Invalid> {
        Page::of("Interfaces.List", &mut request(size, token), 7)
    }

    /// Numbers as rows: all of them are given to each page.
    fn rows(page: &mut Page<u32>, all: std::ops::Range<u32>, width: usize) -> usize {
        let text = "x".repeat(width);
        page.of_all(all.collect(), |row| *row, |_| text.clone()).len()
    }

    #[test]
    fn rule_14_pages_end_where_the_list_does() {
        for (size, count) in [(1, 3), (3, 3), (2, 3), (0, 3), (2, 0), (0, 1000), (0, 1001)] {
            let (mut token, mut seen) = (String::new(), 0);
            loop {
                let mut page = page(size, &token).unwrap();
                let found = rows(&mut page, 0..count, 1);
                assert!(found > 0 || count == 0, "a page without a row");
                seen += u32::try_from(found).unwrap();
                token = page.next();
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(seen, count, "pages of {size}");
        }
    }

    #[test]
    fn rule_14_a_page_has_so_many_rows_and_so_many_bytes() {
        let count = |size, width| rows(&mut page(size, "").unwrap(), 0..20_000, width);
        assert_eq!((count(0, 1), count(5, 1), count(i32::MAX, 1)), (1000, 5, 10_000));
        assert_eq!(count(0, 100_000), 10, "one more would be above a mebibyte");
        assert_eq!(count(0, 2 << 20), 1, "the first row is always on its page");
        assert!(matches!(page(-1, ""), Err(Invalid::Missing(_))));
    }

    #[test]
    fn rule_14_a_token_keeps_the_seq_of_the_first_page() {
        let mut first = page(2, "").unwrap();
        rows(&mut first, 0..9, 1);
        let token = first.next();
        let later = Page::<u32>::of("Interfaces.List", &mut request(2, &token), 9000).unwrap();
        assert_eq!((later.seq, later.after), (7, Some(1)));
        // The size may change from page to page.
        assert_eq!(page(5, &token).unwrap().after, Some(1));
    }

    #[test]
    fn rule_14_a_token_that_is_not_ours_is_refused() {
        let mut first = page(2, "").unwrap();
        rows(&mut first, 0..9, 1);
        let token = first.next();
        let flipped = token.replace(&token[8..9], if &token[8..9] == "0" { "1" } else { "0" });
        let upper = token.to_uppercase();
        for bad in
            ["x", "00", "é", "0", "00000000", "ff".repeat(40).as_str(), &token[1..], &flipped]
                .into_iter()
                .chain((upper != token).then_some(upper.as_str()))
        {
            assert!(matches!(page(2, bad), Err(Invalid::PageToken)), "{bad:?}");
        }
        // It is one of another list, of another filter, or its key is.
        let mut request = request(2, &token);
        assert!(Page::<u32>::of("Subnets.List", &mut request.clone(), 0).is_err());
        assert!(Page::<LeaseKey>::of("Interfaces.List", &mut request, 0).is_err());
        let mut leases = ListLeasesRequest { pool: "a".into(), ..Default::default() };
        let mut page = Page::<u32>::of("Leases.List", &mut leases, 0).unwrap();
        rows(&mut page, 0..2000, 1);
        let of = |pool: &str| ListLeasesRequest {
            pool: pool.into(),
            page_token: page.next(),
            ..Default::default()
        };
        assert!(Page::<u32>::of("Leases.List", &mut of("a"), 0).is_ok());
        assert!(Page::<u32>::of("Leases.List", &mut of("b"), 0).is_err());
    }

    #[test]
    fn a_report_goes_on_in_the_list_where_it_stopped() {
        let mut token = String::new();
        let mut seen = Vec::new();
        loop {
            let mut page = Page::<(u8, u32)>::of("x", &mut request(2, &token), 0).unwrap();
            for (list, numbers) in [(0, vec![3, 1, 2]), (1, vec![]), (2, vec![2, 1])] {
                let found = page.of_all(numbers, |row| (list, *row), |row| *row);
                seen.extend(found.into_iter().map(|row| (list, row)));
            }
            token = page.next();
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, [(0, 1), (0, 2), (0, 3), (2, 1), (2, 2)]);
    }
}
