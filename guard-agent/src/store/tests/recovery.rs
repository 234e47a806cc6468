use super::*;
use crate::{
    lease::{Binding, Lease},
    mac::Mac,
};

#[test]
fn recovery_keeps_what_can_be_read_and_quarantines_the_rest() {
    let files = Files::new();
    let (mut store, mut engine) = files.filled(3);
    let high = engine.high_water().generation;
    let release = Command::ReleaseOwner { sandbox: Arc::from("s2"), lifecycle: None };
    step(&mut store, &mut engine, release);
    let applied = engine.apply(Command::Tick, &FakeView::default(), now(2000));
    store.commit(&applied.changes, engine.high_water(), now(200)).unwrap();
    let free = rows_of(&engine).into_iter().filter(|(_, row)| row.lease().is_none());
    assert_eq!(free.count(), 1);
    let sql = "UPDATE lease SET generation = 5 WHERE address = x'0a000003'";
    store.connection().execute(sql, []).unwrap();
    store.close().unwrap();
    assert!(files.open().is_err());

    let boot = Boot { id: "boot-1".to_owned(), now: now(300) };
    let dry = recover(&files.db(), None, Known::default(), &boot, true).unwrap();
    assert!(files.open().is_err(), "a dry run changes nothing");
    let done = recover(&files.db(), None, Known::default(), &boot, false).unwrap();
    assert_eq!((done.kept, &done.quarantined), (4, &vec!["10.0.0.3 on br0.7".to_owned()]));
    assert_eq!(dry, Recovered { moved_to: None, ..done.clone() });
    assert!(done.moved_to.unwrap().exists());

    let mut store = files.open().unwrap();
    let restored = store.take_restored();
    assert!(restored.high_water.generation >= high);
    let found = sorted(restored.contents.rows);
    for (place, row) in rows_of(&engine) {
        let now = &found.iter().find(|(other, _)| *other == place).unwrap().1;
        if place.address.to_string() == "10.0.0.3" {
            assert_eq!(now.lease().unwrap().state, crate::lease::State::Quarantined);
        } else {
            assert_eq!(*now, row);
        }
    }
}

#[test]
fn recovery_of_a_lost_store_takes_the_backup() {
    let files = Files::new();
    let (store, engine) = files.filled(2);
    store.backup(&files.path("backup")).unwrap();
    store.close().unwrap();
    fs::remove_file(files.db()).unwrap();
    let boot = Boot { id: "boot-2".to_owned(), now: now(3) };
    let missing =
        recover(&files.db(), Some(&files.path("nothing")), Known::default(), &boot, false);
    assert!(missing.is_err());
    let done =
        recover(&files.db(), Some(&files.path("backup")), Known::default(), &boot, false).unwrap();
    assert_eq!((done.kept, done.from_backup), (0, 4));
    let rows = files.open_in("boot-2", 5).unwrap().take_restored().contents.rows;
    assert_eq!(rows.len(), rows_of(&engine).len());
    // What was left of the deadlines is left again.
    let left = rows[0].1.lease().unwrap().until.unwrap();
    assert_eq!(left, Duration::from_secs(3 + 600));
}

#[test]
fn recovery_leaves_a_store_alone_that_is_in_use() {
    let files = Files::new();
    let store = files.open().unwrap();
    let boot = Boot { id: "boot-1".to_owned(), now: now(300) };
    let error = recover(&files.db(), None, Known::default(), &boot, false).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    drop(store);
}

#[test]
fn recovery_knows_a_row_of_the_past_by_what_the_kernel_has() {
    let files = Files::new();
    let (store, engine) = files.filled(2);
    store.close().unwrap();
    let filter = crate::lease::LeaseFilter::default();
    let leases: Vec<_> = engine.leases(&filter).cloned().collect();
    let (old, same) = (&leases[0], &leases[1]);
    let holder = |lease: &Lease, generation| KernelHolder {
        place: Place { segment: lease.segment.clone(), address: lease.address },
        generation,
        binding: Binding { mac: Some(Mac([2, 0, 0, 0, 0, 9])), ..Binding::default() },
    };
    let highest = same.generation + 100;
    let kernel = vec![holder(old, same.generation + 7), holder(same, same.generation)];
    let known = Known { kernel, highest, ..Known::default() };
    let boot = Boot { id: "boot-1".to_owned(), now: now(300) };
    let done = recover(&files.db(), None, known, &boot, false).unwrap();
    assert_eq!(done.quarantined, [format!("{} on {}", old.address, old.segment)]);
    let restored = files.open().unwrap().take_restored();
    assert_eq!(restored.high_water.generation, highest);
    let rows = restored.contents.rows;
    let of = |lease: &Lease| {
        let row = rows.iter().find(|(place, _)| place.address == lease.address);
        row.unwrap().1.lease().unwrap().clone()
    };
    assert_eq!(of(old).state, crate::lease::State::Quarantined);
    assert_eq!(of(old).binding.mac, Some(Mac([2, 0, 0, 0, 0, 9])));
    assert_eq!(of(same).owner, same.owner);
}
