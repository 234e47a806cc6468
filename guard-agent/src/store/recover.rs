//! A new store from what is left of the old one and from a backup.
//!
//! What can be read is kept; the newer of two rows of one address counts. An address whose row
//! cannot be read is quarantined, and so is, by the first pass after it, whatever is live and in
//! neither. The old files are moved aside, never deleted.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use guard_core::{
    lease::{
        Binding, Contents, Generation, HighWater, InterfaceName, Lease, Place, Row, State, Subnet,
        reason,
    },
    segment::Segment,
};
use rusqlite::{Connection, OpenFlags};

use super::{
    Boot, Carry, Store, StoreError, contents, exchange,
    handed_in::{self, HandedIn},
    meta::Meta,
    record::{self, Record},
    scan, schema,
};

/// What a recovery found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Rows that were kept.
    pub kept: usize,
    /// Rows that only the backup has.
    pub from_backup: usize,
    /// Addresses that are quarantined because their row cannot be read.
    pub quarantined: Vec<String>,
    /// What cannot even be said to be an address.
    pub lost: Vec<String>,
    /// Where the old files are now.
    pub moved_to: Option<PathBuf>,
}

/// What is known of the leases beside the files.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// All rows and the last numbers of an agent that still has them in memory: the file beneath
    /// them is not looked at.
    pub memory: Option<(Contents, HighWater)>,
    /// Addresses that the kernel has a holder for, from the agent that had the store before.
    pub kernel: Vec<KernelHolder>,
    /// Generations that were handed out, where the store cannot know of them.
    pub given: Vec<Generation>,
    /// How often the store was opened, at least.
    pub epoch: u64,
}

/// An address, as the kernel has it.
#[derive(Clone, Debug)]
pub struct KernelHolder {
    /// Which one.
    pub place: Place,
    /// The lease that it was written for.
    pub generation: Generation,
    /// Who may use it.
    pub binding: Binding,
}

/// What can be read of a store without trusting any of it.
#[derive(Default)]
struct Salvage {
    rows: BTreeMap<Place, Row>,
    unreadable: Vec<Place>,
    subnets: BTreeMap<Arc<str>, Arc<Subnet>>,
    interfaces: BTreeMap<Arc<str>, Arc<InterfaceName>>,
    lost: Vec<String>,
    high_water: HighWater,
}

/// Makes a new store at `path`, or with `dry_run` only says what would be in it.
///
/// # Errors
/// The store is in use, the backup is not a store, or the new one cannot be written.
pub fn recover(
    path: &Path,
    from: Option<&HandedIn>,
    known: Known,
    boot: &Boot,
    dry_run: bool,
) -> Result<Recovered, StoreError> {
    let Known { memory, kernel, given, epoch } = known;
    // One that was cut short after its store was whole is the store.
    let ready = exchange::ready(path);
    let old = if dry_run && ready.exists() { &ready } else { path };
    if !dry_run {
        exchange::finish(path)?;
    }
    let mut all = match memory {
        Some((Contents { rows, subnets, interfaces }, high_water)) => Salvage {
            rows: rows.into_iter().collect(),
            subnets: subnets.into_iter().map(|s| (Arc::clone(&s.id), s)).collect(),
            interfaces: interfaces.into_iter().map(|i| (Arc::clone(&i.name), i)).collect(),
            high_water,
            ..Salvage::default()
        },
        None => salvage_old(old, boot)?,
    };
    let mut report = Recovered { kept: all.len(), ..Recovered::default() };
    if let Some(from) = from {
        let backup = salvage_backup(from, boot)?;
        report.from_backup = all.add_backup(backup);
    }
    all.high_water.believe(&given, boot.now.wall);
    let mut last = all.add_kernel(kernel, boot);
    let places = std::mem::take(&mut all.unreadable);
    for place in places {
        report.quarantined.push(format!("{} on {}", place.address, place.segment));
        let row = quarantined(&place, last.remove(&place).unwrap_or_default(), boot);
        all.rows.insert(place, row);
    }
    report.lost.append(&mut all.lost);
    if dry_run {
        return Ok(report);
    }

    write_new(&exchange::begin(path)?, all, epoch, boot)?;
    exchange::declare(path)?;
    report.moved_to = exchange::finish(path)?;
    Ok(report)
}

/// How often the store at `path` was opened, or more than that where it does not say.
pub fn epoch_of(path: &Path, boot: &Boot) -> u64 {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok();
    let meta = connection.and_then(|connection| Meta::read(&connection, path).ok());
    // Seconds since 1970 count faster than anybody opens a store.
    let unknown = || u64::try_from(boot.now.wall.as_second()).unwrap_or_default();
    meta.map_or_else(unknown, |meta| meta.epoch + 1)
}

fn salvage_old(path: &Path, boot: &Boot) -> Result<Salvage, StoreError> {
    // In use by an agent that is well: there is nothing to recover.
    if let Err(locked @ StoreError::Locked { .. }) = handed_in::refuse_in_use(path) {
        return Err(locked);
    }
    let copied = HandedIn::copy(path, path).and_then(|copy| copy.mend().map(|()| copy));
    let copied = copied.map_err(|source| StoreError::Io { path: path.to_owned(), source });
    copied.and_then(|copy| salvage(&copy, path, boot)).or_else(|error| {
        tracing::warn!(%error, "nothing can be read of the old store");
        Ok(Salvage::default())
    })
}

fn salvage_backup(from: &HandedIn, boot: &Boot) -> Result<Salvage, StoreError> {
    let mut conn = super::connect_as(from.db(), &from.path, false)?;
    let version = schema::version(&mut conn, &from.path, false, boot);
    if let Err(newer @ StoreError::Newer { .. }) = version {
        return Err(newer);
    }
    drop(conn);
    salvage(from, &from.path, boot)
}

fn write_new(new: &Path, all: Salvage, epoch: u64, boot: &Boot) -> Result<(), StoreError> {
    let mut store = Store::open(new, boot)?;
    let HighWater { boot: first, .. } = store.take_restored().high_water;
    store.raise_epoch(epoch);
    let mut high_water = all.high_water;
    high_water.boot = high_water.boot.max(first);
    for row in all.rows.values() {
        high_water.note(row);
    }
    // Hand-outs that nothing tells of have generations below the seed of today.
    high_water.generation = high_water.generation.max(HighWater::seed(boot.now.wall).generation);
    if high_water.gave_nothing() {
        // For all that is known: it is not a first store that goes on here.
        high_water.seed = 0;
    }
    let contents = Contents {
        rows: all.rows.into_iter().collect(),
        subnets: all.subnets.into_values().collect(),
        interfaces: all.interfaces.into_values().collect(),
    };
    store.commit(&contents.into_writes(), high_water, boot.now).map_err(|error| match error {
        super::CommitError::Sqlite(source) => StoreError::sqlite(new, source),
        drift @ super::CommitError::Drift(_) => StoreError::damaged(new, drift.to_string()),
    })?;
    store.close()
}

impl Salvage {
    /// A page that cannot be read ends the reading; what was read before is kept, if there is any.
    fn goes_on_without(&mut self, error: rusqlite::Error) -> rusqlite::Result<()> {
        if self.rows.is_empty() {
            return Err(error);
        }
        self.lost.push(format!("rows after the first {}: {error}", self.rows.len()));
        Ok(())
    }

    fn len(&self) -> usize {
        self.rows.len() + self.subnets.len() + self.interfaces.len()
    }

    /// Whether a subnet has the address.
    fn is_carved(&self, place: &Place) -> bool {
        let Place { segment, address } = place;
        let mut subnets = self.subnets.values();
        subnets.any(|subnet| subnet.segment == *segment && subnet.prefix.contains(address))
    }

    /// The subnets and names that only the backup has, and that nobody has taken since.
    fn add_backup_records(
        &mut self,
        subnets: BTreeMap<Arc<str>, Arc<Subnet>>,
        interfaces: BTreeMap<Arc<str>, Arc<InterfaceName>>,
    ) -> usize {
        let before = self.len();
        for (id, subnet) in subnets {
            let Subnet { segment, prefix, .. } = &*subnet;
            let mut others = self.subnets.values();
            let overlaps = others.any(|other| {
                other.segment == *segment
                    && (other.prefix.contains(prefix) || prefix.contains(&other.prefix))
            });
            let leased = self.rows.iter().any(|(place, row)| {
                row.lease().is_some()
                    && place.segment == *segment
                    && prefix.contains(&place.address)
            });
            if !overlaps && !leased {
                self.subnets.entry(id).or_insert(subnet);
            }
        }
        for (name, interface) in interfaces {
            self.interfaces.entry(name).or_insert(interface);
        }
        self.len() - before
    }

    /// Returns how many rows only the backup has.
    fn add_backup(&mut self, backup: Self) -> usize {
        let mut added = self.add_backup_records(backup.subnets, backup.interfaces);
        for (place, row) in backup.rows {
            // Carved out since the backup was made.
            if self.is_carved(&place) && !self.rows.contains_key(&place) {
                continue;
            }
            self.unreadable.retain(|other| *other != place);
            self.rows.entry(place).or_insert_with(|| {
                added += 1;
                row
            });
        }
        for place in backup.unreadable {
            if !self.rows.contains_key(&place) && !self.unreadable.contains(&place) {
                self.unreadable.push(place);
            }
        }
        let HighWater { seed, generation, release_order, boot } = backup.high_water;
        let high = &mut self.high_water;
        high.seed = if high.seed == 0 { seed } else { high.seed.min(seed) };
        high.generation = high.generation.max(generation);
        high.release_order = high.release_order.max(release_order);
        high.boot = high.boot.max(boot);
        added
    }

    /// Somebody had these, and nothing says who. Returns the last lease of each and what used it. A
    /// row of an earlier generation is of the past: the address was given to another since.
    fn add_kernel(
        &mut self,
        kernel: Vec<KernelHolder>,
        boot: &Boot,
    ) -> BTreeMap<Place, (Generation, Binding)> {
        let mut last = BTreeMap::new();
        for KernelHolder { place, generation, binding } in kernel {
            self.high_water.believe(&[generation], boot.now.wall);
            let row = self.rows.get(&place).and_then(Row::lease);
            let explained = row.is_some_and(|lease| lease.generation >= generation);
            if !explained && !self.unreadable.contains(&place) {
                self.unreadable.push(place.clone());
            }
            // One above these is damaged.
            let believed = generation <= self.high_water.generation;
            last.insert(place, (if believed { generation } else { 0 }, binding));
        }
        last
    }
}

/// Reads the copy of a store, so that the original stays as it is.
fn salvage(copy: &HandedIn, path: &Path, boot: &Boot) -> Result<Salvage, StoreError> {
    let fault = |source| StoreError::sqlite(path, source);
    let conn =
        Connection::open_with_flags(copy.db(), OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fault)?;
    super::run_nothing(&conn).map_err(fault)?;
    // The tables say which version it is; the number in the header may be damaged.
    let version = schema::of_tables(&conn, path)?.unwrap_or(schema::VERSION);
    conn.pragma_update(None, "user_version", version).map_err(fault)?;
    let mut salvage = Salvage::default();
    let mut carry = None;
    if let Ok(meta) = Meta::read(&conn, path) {
        salvage.high_water = meta.high_water;
        salvage.high_water.boot += u64::from(meta.boot_id != boot.id);
        carry = (meta.boot_id != boot.id).then_some(Carry {
            then: std::time::Duration::from_nanos(meta.boot_time_ns),
            now: boot.now.boot,
        });
    }
    scan::scan(&conn, version, |found| match found {
        scan::Found::Row(place, mut row, _) => {
            if let Some(carry) = carry {
                carry.row(&mut row);
            }
            salvage.rows.insert(place, row);
        }
        scan::Found::Unreadable { place: Some(place), .. } => salvage.unreadable.push(place),
        scan::Found::Unreadable { place: None, contents } => salvage.lost.push(contents),
    })
    .or_else(|error| salvage.goes_on_without(error))
    .map_err(fault)?;
    if contents::has_records(version) {
        let key = |subnet: &Subnet| Arc::clone(&subnet.id);
        keep(&conn, version, &mut salvage.subnets, &mut salvage.lost, key).map_err(fault)?;
        let key = |name: &InterfaceName| Arc::clone(&name.name);
        keep(&conn, version, &mut salvage.interfaces, &mut salvage.lost, key).map_err(fault)?;
    }
    Ok(salvage)
}

/// What a row that cannot be read is about is kept, if that much can be read.
fn keep<T: Record>(
    conn: &Connection,
    version: i64,
    all: &mut BTreeMap<Arc<str>, Arc<T>>,
    lost: &mut Vec<String>,
    key: impl Fn(&T) -> Arc<str>,
) -> rusqlite::Result<()> {
    record::scan(conn, version, |found| match found {
        record::Found::Row(row, _) | record::Found::Unreadable { remains: Some(row), .. } => {
            all.insert(key(&row), Arc::new(row));
        }
        record::Found::Unreadable { remains: None, contents } => lost.push(contents),
    })
}

fn quarantined(place: &Place, (generation, binding): (Generation, Binding), boot: &Boot) -> Row {
    let Place { segment, address } = place;
    let empty: Arc<str> = guard_core::lease::no_text();
    let (segment, address): (Segment, IpAddr) = (segment.clone(), *address);
    Row::Lease(Arc::new(Lease {
        segment,
        address,
        pool: Arc::clone(&empty),
        state: State::Quarantined,
        owner: None,
        key: empty,
        generation,
        binding: Binding { declared: false, ..binding },
        reason: Arc::from(reason::RECOVERED),
        holds: Vec::new(),
        misses: 0,
        missed_at: None,
        boot: 0,
        created_at: boot.now.wall,
        updated_at: boot.now.wall,
        until: None,
        cooldown_bypassed: false,
        release_order: 0,
        maker: None,
        labels: BTreeMap::new(),
    }))
}
