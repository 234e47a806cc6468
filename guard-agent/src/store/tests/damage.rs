//! A marker says whose file an unreadable one is.

use super::*;
use crate::ledger::StoreFault;

/// Good files, and a place to damage copies of them in.
struct Damage {
    good: Vec<u8>,
    marker: Vec<u8>,
    rows: Vec<(Place, Row)>,
    copy: Files,
}

impl Damage {
    fn new() -> Self {
        let files = Files::new();
        let (store, engine) = files.filled(12);
        store.close().unwrap();
        let good = fs::read(files.db()).unwrap();
        let marker = fs::read(files.path("leases.db.marker")).unwrap();
        Self { good, marker, rows: rows_of(&engine), copy: Files::new() }
    }

    /// Opens these files: what they say, or that they are damaged, and no reason to end the agent.
    fn open(&self, db: Option<&[u8]>, marker: Option<&[u8]>) -> Option<String> {
        for file in fs::read_dir(self.copy.dir.path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        if let Some(db) = db {
            fs::write(self.copy.db(), db).unwrap();
        }
        if let Some(marker) = marker {
            fs::write(self.copy.path("leases.db.marker"), marker).unwrap();
        }
        let boot = Boot { id: "boot-1".to_owned(), now: now(100) };
        match Store::open(&self.copy.db(), &boot) {
            Ok(mut store) => {
                assert_eq!(sorted(store.take_restored().contents.rows), self.rows);
                None
            }
            Err(error) => {
                let path = self.copy.db();
                let fault = StoreFault::of(error, &path, &boot).expect("the agent stays up");
                assert!(!fault.passes, "no time mends it: {}", fault.why);
                assert!(fault.why.contains("guardctl recover"), "{}", fault.why);
                Some(fault.why)
            }
        }
    }

    /// What can be recovered of the files that were opened last.
    fn recovered(&self) -> usize {
        let boot = Boot { id: "boot-1".to_owned(), now: now(300) };
        let done = recover(&self.copy.db(), None, Known::default(), &boot, false).unwrap();
        self.copy.open().unwrap();
        done.kept
    }
}

#[test]
fn rule_11_a_flipped_bit_in_the_header_is_damage_of_ours_and_no_row_is_lost_by_it() {
    let damage = Damage::new();
    let (mut same, mut damaged) = (0, 0);
    for bit in 0..800 {
        let mut db = damage.good.clone();
        db[bit / 8] ^= 1 << (bit % 8);
        match damage.open(Some(&db), Some(&damage.marker)) {
            None => same += 1,
            Some(why) => {
                damaged += 1;
                // Each takes some commits.
                if damaged % 4 == 0 {
                    let kept = damage.recovered();
                    assert_eq!(kept, damage.rows.len(), "bit {bit}: {why}");
                }
            }
        }
    }
    assert!(damaged > 200 && same > 100, "{damaged} damaged, {same} the same");
}

#[test]
fn rule_11_a_store_cut_at_any_length_is_damage_of_ours() {
    let damage = Damage::new();
    let last_page = damage.good.len() - 4096;
    for length in (0..600).chain((600..damage.good.len()).step_by(509)) {
        let why = damage.open(Some(&damage.good[..length]), Some(&damage.marker));
        // There may be nothing in the last page.
        assert!(why.is_some() || length > last_page, "cut at {length}");
    }
    let longer = [&damage.good[..], &[7; 5000]].concat();
    damage.open(Some(&longer), Some(&damage.marker));
}

#[test]
fn rule_11_whatever_is_in_the_place_of_a_store_of_ours_is_damage() {
    let damage = Damage::new();
    let other = Files::new();
    Connection::open(other.db()).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let other = fs::read(other.db()).unwrap();
    let text = "not a database, but long enough to have a header of its own\n".repeat(99);
    for what in [&other[..], text.as_bytes(), &[0; 8192], b"x", b""] {
        let why = damage.open(Some(what), Some(&damage.marker)).unwrap();
        assert!(why.contains("damaged"), "{why}");
    }
    assert!(damage.open(None, Some(&damage.marker)).unwrap().contains("missing"));
}

#[test]
fn rule_11_a_damaged_marker_beside_a_good_store_is_noticed_and_costs_no_row() {
    let damage = Damage::new();
    let mut noticed = 0;
    for at in 0..damage.marker.len() {
        let mut marker = damage.marker.clone();
        marker[at] ^= 0x81;
        noticed += usize::from(damage.open(Some(&damage.good), Some(&marker)).is_some());
    }
    assert_eq!(noticed, damage.marker.len());
    for length in 0..damage.marker.len() {
        let marker = &damage.marker[..length];
        let why = damage.open(Some(&damage.good), Some(marker)).unwrap();
        assert!(why.contains("leases.db.marker"), "{why}");
    }
    assert_eq!(damage.recovered(), damage.rows.len());
    // Both damaged, and the marker alone: there was a store.
    assert!(damage.open(Some(b"no store"), Some(b"no marker")).is_some());
    assert!(damage.open(None, Some(b"")).is_some());
}

#[test]
fn rule_11_a_log_without_its_store_is_a_loss_and_is_recovered_from() {
    let files = Files::new();
    let (store, engine) = files.filled(5);
    let copy = files.killed(store);
    fs::remove_file(copy.db()).unwrap();
    fs::remove_file(copy.path("leases.db.marker")).unwrap();
    let error = copy.open().unwrap_err();
    assert!(
        matches!(&error, StoreError::Missing { trace, .. } if trace.contains("-wal")),
        "{error}"
    );
    let boot = Boot { id: "boot-1".to_owned(), now: now(300) };
    recover(&copy.db(), None, Known::default(), &boot, false).unwrap();
    let rows = sorted(copy.open().unwrap().take_restored().contents.rows);
    assert_eq!(rows, rows_of(&engine));
}
