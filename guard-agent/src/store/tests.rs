use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use guard_core::{
    lease::{
        Caller, Engine, Place, Pool, PoolSpec, Pools, Row,
        command::{Allocate, Command, Reply},
    },
    mac::Mac,
    segment::Segment,
};
use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::live::tests::all_known;

/// Fails as on a full disk, so many times.
pub(super) fn fail(left: &AtomicU64) -> rusqlite::Result<()> {
    let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    let counted = left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if counted.is_ok() { Err(rusqlite::Error::SqliteFailure(full, None)) } else { Ok(()) }
}

thread_local! {
    /// How many steps of a recovery are carried out before one fails, as in a power cut.
    static STEPS: std::cell::Cell<u32> = const { std::cell::Cell::new(u32::MAX) };
}

/// Fails at the step at which a test ends the recovery.
pub(super) fn cut_off() -> std::io::Result<()> {
    let left = STEPS.get().checked_sub(1);
    left.map(|left| STEPS.set(left)).ok_or_else(|| std::io::Error::other("the power is cut"))
}

mod damage;
/// Of child subnets and interface names, and of migrations.
mod records;
mod recovery;

struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn db(&self) -> PathBuf {
        self.path("leases.db")
    }

    fn open(&self) -> Result<Store, StoreError> {
        self.open_in("boot-1", 100)
    }

    fn open_in(&self, boot: &str, seconds: u64) -> Result<Store, StoreError> {
        Store::open(&self.db(), &Boot { id: boot.to_owned(), now: now(seconds) })
    }

    /// A store with `leases` leases, still open.
    fn filled(&self, leases: usize) -> (Store, Engine) {
        let mut store = self.open().unwrap();
        let restored = store.take_restored();
        let (mut engine, _, _) = Engine::restore(pools(), restored);
        for n in 0..leases {
            step(&mut store, &mut engine, allocate(&format!("s{n}")));
        }
        (store, engine)
    }

    /// As a killed agent leaves it: what is on disk, without closing anything.
    fn killed(&self, store: Store) -> Self {
        let copy = Self::new();
        for file in fs::read_dir(self.dir.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.path(file.file_name().to_str().unwrap())).unwrap();
        }
        drop(store);
        copy
    }
}

fn now(seconds: u64) -> Now {
    Now {
        boot: Duration::from_secs(seconds),
        wall: Timestamp::new(1_700_000_000, 123_456_789).unwrap(),
    }
}

fn pools() -> Pools {
    let spec = PoolSpec::new("p", Segment::new("br0", 7), "10.0.0.0/24".parse().unwrap());
    let six = PoolSpec::new("six", Segment::new("br0", 7), "fd00::/64".parse().unwrap());
    Pools::new(vec![Pool::new(spec).unwrap(), Pool::new(six).unwrap()]).unwrap()
}

fn allocate(sandbox: &str) -> Command {
    Command::Allocate(Allocate {
        pools: vec![Arc::from("p"), Arc::from("six")],
        sandbox: Arc::from(sandbox),
        lifecycle: Arc::from("1"),
        key: Arc::from("eth0"),
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        interface: Some(Arc::from("veth1")),
        labels: BTreeMap::from([("a".to_owned(), "ü\"".to_owned())]),
        ..Allocate::default()
    })
}

fn step(store: &mut Store, engine: &mut Engine, command: Command) -> Reply {
    let applied = engine.apply(command, &all_known(), now(200));
    store.commit(&applied.changes, engine.high_water(), now(200)).unwrap();
    applied.result.unwrap()
}

fn sorted(mut rows: Vec<(Place, Row)>) -> Vec<(Place, Row)> {
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

fn rows_of(engine: &Engine) -> Vec<(Place, Row)> {
    sorted(engine.rows().map(|(place, row)| (place, row.clone())).collect())
}

#[test]
fn every_column_comes_back() {
    let files = Files::new();
    let (mut store, mut engine) = files.filled(3);
    let release =
        Command::ReleaseOwner { sandbox: Arc::from("s1"), lifecycle: Some(Arc::from("1")) };
    step(&mut store, &mut engine, release);
    let by = Command::For(Caller::Administrator(u32::MAX), allocate("made").into());
    step(&mut store, &mut engine, by);
    let applied = engine.apply(Command::Tick, &all_known(), now(1_000_000));
    store.commit(&applied.changes, engine.high_water(), now(300)).unwrap();
    assert!(rows_of(&engine).iter().any(|(_, row)| matches!(row, Row::Free { .. })));
    let epoch = store.epoch();
    store.close().unwrap();
    assert!(!files.path("leases.db-wal").exists());

    let mut store = files.open().unwrap();
    assert_eq!(store.epoch(), epoch + 1);
    let restored = store.take_restored();
    assert_eq!(restored.high_water, engine.high_water());
    assert_eq!(restored.carry, None);
    assert_eq!(sorted(restored.contents.rows), rows_of(&engine));
}

#[test]
fn a_killed_agents_commits_are_there() {
    let files = Files::new();
    let (store, engine) = files.filled(5);
    let copy = files.killed(store);
    let mut store = copy.open().unwrap();
    assert_eq!(sorted(store.take_restored().contents.rows), rows_of(&engine));
}

#[test]
fn rule_10_the_time_of_the_last_write_is_known_until_deadlines_are_carried_over() {
    let files = Files::new();
    let (store, engine) = files.filled(1);
    drop(store);
    for _ in 0..2 {
        let mut store = files.open_in("boot-2", 3).unwrap();
        let carry = Carry { then: Duration::from_secs(200), now: Duration::from_secs(3) };
        assert_eq!(store.take_restored().carry, Some(carry));
        // Killed before anything was carried over.
        drop(store);
    }
    let mut store = files.open_in("boot-2", 3).unwrap();
    store.commit([], engine.high_water(), now(4)).unwrap();
    drop(store);
    assert_eq!(files.open_in("boot-2", 9).unwrap().take_restored().carry, None);
}

#[test]
fn rule_11_a_second_process_is_kept_out() {
    let files = Files::new();
    let store = files.open().unwrap();
    let error = files.open().unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("leases.db"));
    drop(store);
    files.open().unwrap();
}

#[test]
fn rule_11_a_missing_file_is_no_first_start() {
    let files = Files::new();
    let (store, _) = files.filled(1);
    store.close().unwrap();
    fs::remove_file(files.db()).unwrap();
    for _ in 0..2 {
        let error = files.open().unwrap_err();
        assert!(matches!(error, StoreError::Missing { .. }), "{error}");
        assert!(!files.db().exists(), "nothing was made in its place");
    }
    fs::write(files.db(), b"").unwrap();
    assert!(matches!(files.open().unwrap_err(), StoreError::Damaged { .. }));
}

#[test]
fn a_first_start_that_was_cut_short_is_a_first_start() {
    let files = Files::new();
    drop(Marker::create(&files.db()).unwrap());
    drop(files.open().unwrap());
    let files = Files::new();
    drop(Marker::create(&files.db()).unwrap());
    fs::write(files.db(), b"").unwrap();
    drop(files.open().unwrap());
}

#[test]
fn rule_11_another_file_is_named_and_left_alone() {
    let files = Files::new();
    let text = "not a database, but long enough to have a header of its own\n".repeat(20);
    fs::write(files.db(), &text).unwrap();
    let error = files.open().unwrap_err();
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
    assert_eq!(fs::read_to_string(files.db()).unwrap(), text);

    let files = Files::new();
    Connection::open(files.db()).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let before = fs::read(files.db()).unwrap();
    for _ in 0..2 {
        let error = files.open().unwrap_err();
        assert!(error.to_string().contains("another program's"), "{error}");
        assert_eq!(fs::read(files.db()).unwrap(), before);
        assert!(!files.path("leases.db.marker").exists());
    }
    // Not even where a first start seems to have been cut short.
    drop(Marker::create(&files.db()).unwrap());
    assert!(matches!(files.open().unwrap_err(), StoreError::NotAStore { .. }));
    assert_eq!(fs::read(files.db()).unwrap(), before);
}

#[test]
fn rule_11_a_lost_or_cut_log_is_noticed() {
    for keep in [0.0, 0.5, 0.9] {
        let files = Files::new();
        let (store, _) = files.filled(20);
        let copy = files.killed(store);
        let wal = copy.path("leases.db-wal");
        let length = fs::metadata(&wal).unwrap().len();
        assert!(length > 0);
        if keep == 0.0 {
            fs::remove_file(&wal).unwrap();
        } else {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "somewhere in the file"
            )]
            let cut = (length as f64 * keep) as u64;
            fs::OpenOptions::new().write(true).open(&wal).unwrap().set_len(cut).unwrap();
        }
        let error = copy.open().unwrap_err();
        let noticed = match &error {
            StoreError::Behind { has, had, .. } => has < had,
            // The whole schema was in the log.
            StoreError::Damaged { .. } => true,
            _ => false,
        };
        assert!(noticed, "{keep}: {error}");
    }
}

#[test]
fn rule_11_an_older_copy_is_noticed() {
    let files = Files::new();
    let (store, engine) = files.filled(3);
    store.close().unwrap();
    fs::copy(files.db(), files.path("copy")).unwrap();
    let mut store = files.open().unwrap();
    store.take_restored();
    store.commit([], engine.high_water(), now(300)).unwrap();
    store.close().unwrap();
    fs::copy(files.path("copy"), files.db()).unwrap();
    let error = files.open().unwrap_err();
    assert!(matches!(error, StoreError::Behind { .. }), "{error}");
}

#[test]
fn rule_11_a_truncated_file_is_noticed() {
    let files = Files::new();
    let (store, _) = files.filled(100);
    store.close().unwrap();
    let length = fs::metadata(files.db()).unwrap().len();
    for pages in 1..length / 4096 {
        let copy = Files::new();
        fs::copy(files.db(), copy.db()).unwrap();
        fs::copy(files.path("leases.db.marker"), copy.path("leases.db.marker")).unwrap();
        let file = fs::OpenOptions::new().write(true).open(copy.db()).unwrap();
        file.set_len(pages * 4096 + 100).unwrap();
        let error = copy.open().unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{pages}: {error}");
    }
}

/// Every byte that holds anything: flipped, the store either is refused or says the same.
#[test]
fn rule_11_a_flipped_byte_never_changes_a_lease_unnoticed() {
    let files = Files::new();
    let (store, engine) = files.filled(12);
    store.close().unwrap();
    let good = fs::read(files.db()).unwrap();
    let rows = rows_of(&engine);
    let copy = Files::new();
    fs::copy(files.path("leases.db.marker"), copy.path("leases.db.marker")).unwrap();
    let (mut refused, mut same) = (0, 0);
    for at in (0..good.len()).step_by(7).filter(|at| good[*at] != 0) {
        let _ = fs::remove_file(copy.path("leases.db-wal"));
        fs::write(copy.db(), &good).unwrap();
        let file = fs::OpenOptions::new().write(true).open(copy.db()).unwrap();
        file.write_all_at(&[good[at] ^ 0x10], at as u64).unwrap();
        match copy.open() {
            Err(_) => refused += 1,
            Ok(mut store) => {
                assert_eq!(sorted(store.take_restored().contents.rows), rows, "byte {at}");
                same += 1;
                // The next round starts from the marker of the good file again.
                drop(store);
                let marker = files.path("leases.db.marker");
                fs::copy(marker, copy.path("leases.db.marker")).unwrap();
            }
        }
    }
    assert!(refused > same, "{refused} refused, {same} the same");
}

#[test]
fn a_flipped_value_passes_sqlites_own_check_and_not_ours() {
    let files = Files::new();
    let (store, _) = files.filled(3);
    store
        .connection()
        .execute("UPDATE lease SET generation = generation + 1 WHERE address = x'0a000002'", [])
        .unwrap();
    let fine: String =
        store.connection().query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    assert_eq!(fine, "ok");
    store.close().unwrap();
    let Err(StoreError::Damaged { what, rows, .. }) = files.open() else { panic!("opened") };
    assert_eq!(what, "1 of its rows cannot be read");
    assert!(rows[0].contains("s0"), "{rows:?}");
}

#[test]
fn a_row_that_is_gone_is_noticed() {
    let files = Files::new();
    let (store, _) = files.filled(3);
    store.connection().execute("DELETE FROM lease WHERE sandbox = 's1'", []).unwrap();
    store.close().unwrap();
    let Err(StoreError::Damaged { what, .. }) = files.open() else { panic!("opened") };
    assert_eq!(what, "it has 4 rows and had 6");
}

#[test]
fn a_file_that_is_removed_or_replaced_under_it_is_noticed() {
    let files = Files::new();
    let (store, _) = files.filled(3);
    store.read_again().unwrap();
    fs::rename(files.db(), files.path("elsewhere")).unwrap();
    for _ in 0..2 {
        let error = store.read_again().unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        fs::copy(files.path("elsewhere"), files.db()).unwrap();
    }
}

#[test]
fn a_commit_is_a_compare_and_swap() {
    let files = Files::new();
    let (mut store, mut engine) = files.filled(2);
    let other = Command::ReleaseOwner { sandbox: Arc::from("s0"), lifecycle: None };
    store.connection().execute("UPDATE lease SET crc = 1 WHERE sandbox = 's0'", []).unwrap();
    let applied = engine.apply(other, &all_known(), now(200));
    let error = store.commit(&applied.changes, engine.high_water(), now(200)).unwrap_err();
    assert!(matches!(error, CommitError::Drift(_)) && error.is_damage(), "{error}");
    engine.undo(&applied.changes);
    // The transaction is over, and the next one works.
    step(&mut store, &mut engine, allocate("s9"));
}

#[test]
fn a_full_disk_changes_nothing_and_passes() {
    let files = Files::new();
    let (mut store, mut engine) = files.filled(2);
    let before = rows_of(&engine);
    let pages: i64 =
        store.connection().pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
    store.connection().pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    let mut failed = 0;
    for n in 10..100 {
        let applied = engine.apply(allocate(&format!("s{n}")), &all_known(), now(200));
        if let Err(error) = store.commit(&applied.changes, engine.high_water(), now(200)) {
            assert!(!error.is_damage(), "{error}");
            engine.undo(&applied.changes);
            failed += 1;
        }
    }
    assert!(failed > 0 && rows_of(&engine).len() > before.len());
    store
        .connection()
        .pragma_update_and_check(None, "max_page_count", 100_000, |_| Ok(()))
        .unwrap();
    step(&mut store, &mut engine, allocate("later"));
    store.close().unwrap();
    let mut store = files.open().unwrap();
    assert_eq!(sorted(store.take_restored().contents.rows), rows_of(&engine));
}

#[test]
fn a_backup_of_an_open_store_is_a_store() {
    let files = Files::new();
    let (store, engine) = files.filled(4);
    let copy = Files::new();
    store.snapshot().unwrap().write(&copy.db()).unwrap();
    let again = store.snapshot().unwrap().write(&copy.db());
    assert!(again.is_err(), "nothing is overwritten");
    let mut store = copy.open().unwrap();
    assert_eq!(sorted(store.take_restored().contents.rows), rows_of(&engine));
}

#[test]
fn sqlite_has_nothing_that_no_store_uses() {
    let conn = Connection::open_in_memory().unwrap();
    let mut options = conn.prepare("PRAGMA compile_options").unwrap();
    let options = options.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let options: Vec<_> = options.map(Result::unwrap).collect();
    assert!(options.contains(&"OMIT_LOAD_EXTENSION".to_owned()), "{options:?}");
    for unused in ["ENABLE_FTS3", "ENABLE_FTS5", "ENABLE_RTREE", "ENABLE_DBSTAT_VTAB"] {
        assert!(!options.contains(&unused.to_owned()), "{unused}");
    }
}

#[test]
fn a_newer_schema_is_left_to_a_newer_agent() {
    let files = Files::new();
    let (store, _) = files.filled(1);
    store.connection().execute_batch("CREATE TABLE later (x); PRAGMA user_version = 99").unwrap();
    store.close().unwrap();
    let error = files.open().unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
}

#[test]
fn a_store_is_found_again_by_address_of_both_families() {
    let files = Files::new();
    let (store, engine) = files.filled(1);
    drop(store);
    let rows = sorted(files.open().unwrap().take_restored().contents.rows);
    let addresses: Vec<_> = rows.iter().map(|(place, _)| place.address).collect();
    let want: [IpAddr; 2] = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
    assert_eq!(addresses, want);
    assert_eq!(rows, rows_of(&engine));
}
