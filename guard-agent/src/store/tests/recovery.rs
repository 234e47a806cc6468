use super::*;

use guard_core::{
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
    let applied = engine.apply(Command::Tick, &all_known(), now(2000));
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
            assert_eq!(now.lease().unwrap().state, guard_core::lease::State::Quarantined);
        } else {
            assert_eq!(*now, row);
        }
    }
}

#[test]
fn recovery_of_a_lost_store_takes_the_backup() {
    let files = Files::new();
    let (store, engine) = files.filled(2);
    store.snapshot().unwrap().write(&files.path("backup")).unwrap();
    store.close().unwrap();
    fs::remove_file(files.db()).unwrap();
    let boot = Boot { id: "boot-2".to_owned(), now: now(3) };
    assert!(HandedIn::take(&files.path("nothing"), &files.db()).is_err());
    let from = HandedIn::take(&files.path("backup"), &files.db()).unwrap();
    let done = recover(&files.db(), Some(&from), Known::default(), &boot, false).unwrap();
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
    let filter = guard_core::lease::LeaseFilter::default();
    let leases: Vec<_> = engine.leases(&filter).cloned().collect();
    let (old, same) = (&leases[0], &leases[1]);
    let holder = |lease: &Lease, generation| KernelHolder {
        place: Place { segment: lease.segment.clone(), address: lease.address },
        generation,
        binding: Binding { mac: Some(Mac([2, 0, 0, 0, 0, 9])), ..Binding::default() },
    };
    let highest = same.generation + 100;
    let given_since = same.generation + 7;
    let kernel = vec![holder(old, given_since), holder(same, same.generation)];
    let known = Known { kernel, given: vec![highest], ..Known::default() };
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
    assert_eq!(of(old).state, guard_core::lease::State::Quarantined);
    assert_eq!(of(old).binding.mac, Some(Mac([2, 0, 0, 0, 0, 9])));
    assert_eq!(of(old).generation, given_since);
    assert_eq!(of(same).owner, same.owner);
    // What is quarantined so explains what the kernel has of it.
    let known = Known { kernel: vec![holder(old, given_since)], ..Known::default() };
    let again = recover(&files.db(), None, known, &boot, false).unwrap();
    assert_eq!(again.quarantined, [] as [String; 0]);
    // Nobody was given this one.
    let known = Known { kernel: vec![holder(old, u64::MAX)], ..Known::default() };
    let damaged = recover(&files.db(), None, known, &boot, false).unwrap();
    assert_eq!(damaged.quarantined.len(), 1);
    let rows = files.open().unwrap().take_restored().contents.rows;
    let row = rows.iter().find(|(place, _)| place.address == old.address).unwrap();
    assert_eq!(row.1.lease().unwrap().generation, 0);
}

/// The store with a damaged row, its backup, and what a recovery of it gives.
fn damaged() -> (Files, Vec<(Place, Row)>) {
    let files = Files::new();
    let (store, engine) = files.filled(3);
    let sql = "UPDATE lease SET generation = 5 WHERE address = x'0a000003'";
    store.connection().execute(sql, []).unwrap();
    let files = files.killed(store);
    let place = |(place, _): &(Place, Row)| place.address.to_string() != "10.0.0.3";
    (files, rows_of(&engine).into_iter().filter(place).collect())
}

#[test]
fn rule_11_a_recovery_can_be_cut_off_at_any_step_and_repeated() {
    let boot = Boot { id: "boot-1".to_owned(), now: now(300) };
    let mut finished_by_itself = 0;
    for steps in 0.. {
        let (files, want) = damaged();
        assert!(files.open().is_err());
        STEPS.set(steps);
        let cut = recover(&files.db(), None, Known::default(), &boot, false);
        STEPS.set(u32::MAX);
        if cut.is_ok() {
            assert!((8..99).contains(&steps) && finished_by_itself > 3, "{steps} steps");
            return;
        }
        match files.open() {
            Ok(store) => {
                finished_by_itself += 1;
                drop(store);
            }
            Err(error) => {
                assert!(!matches!(error, StoreError::NotAStore { .. }), "{steps}: {error}");
                let again = recover(&files.db(), None, Known::default(), &boot, false).unwrap();
                assert_eq!((again.kept, again.quarantined.len()), (5, 1), "{steps}");
            }
        }
        let mut rows = sorted(files.open().unwrap().take_restored().contents.rows);
        let (_, lost) = rows
            .remove(rows.iter().position(|(p, _)| p.address.to_string() == "10.0.0.3").unwrap());
        assert_eq!(lost.lease().unwrap().state, guard_core::lease::State::Quarantined, "{steps}");
        assert_eq!(rows, want, "{steps}");
        // The old files are somewhere.
        let names = fs::read_dir(files.dir.path()).unwrap();
        let names: Vec<_> = names.map(|file| file.unwrap().file_name()).collect();
        let kept = |end: &str| {
            let of = |name: &&std::ffi::OsString| {
                let name = name.to_string_lossy();
                name.contains(".damaged-") && name.ends_with(end)
            };
            names.iter().filter(of).count()
        };
        assert_eq!((kept("-wal"), kept(".marker")), (1, 1), "{steps}: {names:?}");
        assert!(!names.iter().any(|name| name.to_string_lossy().contains(".salvage")));
    }
}

#[test]
fn rule_11_what_a_recovery_cut_off_left_behind_is_not_taken_for_anything() {
    let (files, want) = damaged();
    for name in [".salvage", ".salvage-wal", ".new", ".new-wal", ".new.marker", ".recovered.marker"]
    {
        fs::copy(files.path("leases.db-wal"), files.path(&format!("leases.db{name}"))).unwrap();
    }
    let boot = Boot { id: "boot-1".to_owned(), now: now(300) };
    let done = recover(&files.db(), None, Known::default(), &boot, false).unwrap();
    assert_eq!((done.kept, done.quarantined.len()), (want.len(), 1));
    files.open().unwrap();
}

#[test]
fn rule_11_a_recovered_store_is_no_new_one_and_ignores_what_cannot_be_a_generation() {
    let files = Files::new();
    let boot = Boot { id: "boot-1".to_owned(), now: now(300) };
    let seed = HighWater::seed(boot.now.wall).generation;
    let known = Known { given: vec![seed + 7, u64::MAX], ..Known::default() };
    recover(&files.db(), None, known, &boot, false).unwrap();
    let HighWater { seed: first, generation, .. } =
        files.open().unwrap().take_restored().high_water;
    assert_eq!((first, generation), (0, seed + 7));
    // Nothing is known, not even that nothing was given.
    let files = Files::new();
    recover(&files.db(), None, Known::default(), &boot, false).unwrap();
    assert!(!files.open().unwrap().take_restored().high_water.gave_nothing());
}
