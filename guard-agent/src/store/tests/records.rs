use guard_core::lease::{
    Caller, Contents, HighWater, InterfaceName, Subnet,
    command::{ReserveSubnet, WhichSubnet},
};
use rusqlite::{Connection, types::Value};

use super::{record, value, *};

fn subnet(pool: &str, id: &str, length: u8) -> Command {
    let (pool, id) = (Arc::from(pool), Arc::from(id));
    Command::ReserveSubnet(ReserveSubnet { pool, id, length, prefix: None })
}

fn name(prefix: &str, id: &str) -> Command {
    Command::ReserveInterface { prefix: Arc::from(prefix), id: Arc::from(id) }
}

fn contents(contents: Contents) -> Contents {
    Contents { rows: sorted(contents.rows), ..contents }
}

/// Leases, two subnets and two names, still open.
fn filled(files: &Files) -> (Store, Engine) {
    let (mut store, mut engine) = files.filled(2);
    for command in
        [subnet("p", "a", 28), subnet("six", "b", 80), name("veth", "a"), name("tap", "a")]
    {
        step(&mut store, &mut engine, command);
    }
    (store, engine)
}

/// A store as an agent with schema 1 left it: closed, with `leases` leases.
fn version_1(files: &Files, leases: usize) -> Engine {
    let (store, engine) = files.filled(leases);
    store.close().unwrap();
    older(files, 1);
    engine
}

/// Writes a closed store anew, as an agent with an older schema left it.
fn older(files: &Files, version: i64) {
    let new = files.path("new.db");
    fs::rename(files.db(), &new).unwrap();
    let old = Connection::open(files.db()).unwrap();
    let migrations = [
        include_str!("../schema/1.sql"),
        include_str!("../schema/2.sql"),
        include_str!("../schema/3.sql"),
        include_str!("../schema/4.sql"),
    ];
    for (sql, _) in migrations.iter().zip(0..version) {
        old.execute_batch(sql).unwrap();
    }
    let from = Connection::open(&new).unwrap();
    let (mut rows, mut digest) = (0, 0);
    // Each row has its checksum last, over all that is before it.
    let mut copy = |table: &str, columns: &str, count: usize| {
        let mut read = from.prepare(&format!("SELECT {columns} FROM {table}")).unwrap();
        let mut read = read.query([]).unwrap();
        while let Some(row) = read.next().unwrap() {
            let mut values: Vec<Value> = (0..count).map(|at| row.get(at).unwrap()).collect();
            let crc = value::checksum(&values);
            (rows, digest) = (rows + 1, digest + u64::from(crc));
            values.push(Value::Integer(crc.into()));
            let places: Vec<_> = (1..=values.len()).map(|at| format!("?{at}")).collect();
            let insert = format!("INSERT INTO {table} VALUES ({})", places.join(", "));
            old.execute(&insert, rusqlite::params_from_iter(values)).unwrap();
        }
    };
    let (names, count) = columns::of_version(version);
    copy("lease", &names, count);
    if version > 1 {
        let names = record::of_version::<Subnet>(version);
        copy("subnet", &names.join(", "), names.len());
        let names = record::of_version::<InterfaceName>(version);
        copy("interface", &names.join(", "), names.len());
    }
    let meta = Meta { rows, digest, ..Meta::read(&from, &new).unwrap() };
    let HighWater { seed, generation, release_order, boot } = meta.high_water;
    // Boots are counted from version 3 on.
    let (column, value) =
        if version < 3 { ("", String::new()) } else { (", boot", format!(", {boot}")) };
    old.execute(
        &format!(
            "INSERT INTO meta (id, boot_time_ns, seed, generation, release_order, epoch, commits, \
             rows, digest, boot_id, crc{column}) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, \
             ?10{value})"
        ),
        rusqlite::params![
            meta.boot_time_ns.cast_signed(),
            seed.cast_signed(),
            generation.cast_signed(),
            release_order.cast_signed(),
            meta.epoch.cast_signed(),
            meta.commits.cast_signed(),
            rows.cast_signed(),
            digest.cast_signed(),
            meta.boot_id,
            meta.checksum(version),
        ],
    )
    .unwrap();
    old.pragma_update(None, "user_version", version).unwrap();
    old.pragma_update(None, "application_id", 1_732_857_932).unwrap();
    old.close().unwrap();
    from.close().unwrap();
    fs::remove_file(new).unwrap();
}

#[test]
fn a_store_of_an_earlier_version_becomes_one_of_today_with_all_that_is_in_it() {
    for version in [2, 3, 4] {
        let files = Files::new();
        let (store, mut engine) = filled(&files);
        let rows = store.rows();
        store.close().unwrap();
        older(&files, version);
        let mut store = files.open().unwrap();
        assert_eq!(store.rows(), rows);
        let restored = store.take_restored();
        assert_eq!(contents(restored.contents), contents(engine.contents()));
        assert_eq!(restored.high_water.boot, 1);
        step(&mut store, &mut engine, allocate("another"));
        store.close().unwrap();
        let mut store = files.open().unwrap();
        assert_eq!(contents(store.take_restored().contents), contents(engine.contents()));
        assert!(files.path(&format!("leases.db.v{version}.bak")).exists());
    }
}

fn tables(path: &Path) -> Vec<String> {
    let conn = Connection::open(path).unwrap();
    let mut tables = conn.prepare("SELECT name FROM sqlite_schema ORDER BY name").unwrap();
    tables.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn the_schema_is_the_one_that_is_written_down() {
    // Whoever has to change a number here has changed a file that was released: add a new one.
    let crc = |sql: &str| crc32fast::hash(sql.as_bytes());
    assert_eq!(crc(include_str!("../schema/1.sql")), 0xc29e_cbea);
    assert_eq!(crc(include_str!("../schema/2.sql")), 0xffd5_d7e0);
    assert_eq!(crc(include_str!("../schema/3.sql")), 0x614d_c440);
    assert_eq!(crc(include_str!("../schema/4.sql")), 0x8c8c_9e8a);
    assert_eq!(crc(include_str!("../schema/5.sql")), 0xd239_88b2);
    assert_eq!(schema::VERSION, 5);
}

#[test]
fn subnets_and_names_come_back() {
    let files = Files::new();
    let (store, engine) = filled(&files);
    assert_eq!(store.rows(), 8, "all tables count");
    let copy = files.killed(store);
    let mut store = copy.open().unwrap();
    assert_eq!(contents(store.take_restored().contents), contents(engine.contents()));
    assert_eq!(contents(store.read_again().unwrap()), contents(engine.contents()));
    let (mut engine, _, _) = Engine::restore(
        pools(),
        Restored {
            contents: store.read_again().unwrap(),
            high_water: engine.high_water(),
            carry: None,
            opened: Duration::ZERO,
        },
    );
    let which = WhichSubnet::Id(Arc::from("a"));
    step(&mut store, &mut engine, Command::ReleaseSubnet(which));
    step(&mut store, &mut engine, Command::ReleaseInterface(Arc::from("tap0")));
    // Whose they are comes back, too.
    for command in [subnet("p", "c", 28), name("veth", "c")] {
        step(&mut store, &mut engine, Command::For(Caller::Administrator(7), command.into()));
    }
    let again = store.read_again().unwrap();
    let makers = again.subnets.iter().map(|subnet| subnet.maker);
    let makers: Vec<_> = makers.chain(again.interfaces.iter().map(|name| name.maker)).collect();
    assert_eq!(makers, [None, Some(7), None, Some(7)]);
    assert_eq!(store.rows(), 8);
    assert_eq!(contents(store.read_again().unwrap()), contents(engine.contents()));
}

#[test]
fn a_flipped_subnet_or_name_is_noticed_and_one_that_is_gone() {
    for (sql, said) in [
        ("UPDATE subnet SET length = 27 WHERE id = 'a'", "1 of its rows cannot be read"),
        ("UPDATE interface SET id = 'x' WHERE name = 'tap0'", "1 of its rows cannot be read"),
        ("DELETE FROM subnet WHERE id = 'b'", "it has 7 rows and had 8"),
        ("DELETE FROM interface", "it has 6 rows and had 8"),
    ] {
        let files = Files::new();
        let (store, _) = filled(&files);
        store.connection().execute(sql, []).unwrap();
        store.close().unwrap();
        let Err(StoreError::Damaged { what, .. }) = files.open() else { panic!("{sql}: opened") };
        assert_eq!(what, said, "{sql}");
    }
}

#[test]
fn a_release_of_a_row_that_changed_is_refused() {
    let files = Files::new();
    let (mut store, mut engine) = filled(&files);
    store.connection().execute("UPDATE subnet SET crc = 1 WHERE id = 'a'", []).unwrap();
    let release = Command::ReleaseSubnet(WhichSubnet::Id(Arc::from("a")));
    let applied = engine.apply(release, &all_known(), now(200));
    let error = store.commit(&applied.changes, engine.high_water(), now(200)).unwrap_err();
    assert!(matches!(error, CommitError::Drift(_)) && error.is_damage(), "{error}");
    engine.undo(&applied.changes);
    assert_eq!(engine.subnets().count(), 2);
}

#[test]
fn a_store_of_version_1_is_migrated_after_a_backup() {
    let files = Files::new();
    let engine = version_1(&files, 3);
    let mut store = files.open().unwrap();
    assert_eq!(contents(store.take_restored().contents), contents(engine.contents()));
    let backup = files.path("leases.db.v1.bak");
    assert_eq!(tables(&backup), ["lease", "meta"]);
    let (mut engine, _, _) = Engine::restore(
        pools(),
        Restored {
            contents: store.read_again().unwrap(),
            high_water: engine.high_water(),
            carry: None,
            opened: Duration::ZERO,
        },
    );
    step(&mut store, &mut engine, subnet("p", "a", 28));
    step(&mut store, &mut engine, name("veth", "a"));
    store.close().unwrap();
    assert_eq!(tables(&files.db()), ["interface", "lease", "meta", "subnet"]);
    let mut store = files.open().unwrap();
    assert_eq!(contents(store.take_restored().contents), contents(engine.contents()));
    store.close().unwrap();
    assert!(!files.path("leases.db.v1.bak.1").exists(), "once");
}

#[test]
fn the_backup_of_an_earlier_migration_is_kept() {
    let files = Files::new();
    version_1(&files, 1);
    fs::write(files.path("leases.db.v1.bak"), "of last year").unwrap();
    fs::write(files.path("leases.db.v1.bak.new"), "cut short").unwrap();
    drop(files.open().unwrap());
    assert_eq!(fs::read(files.path("leases.db.v1.bak")).unwrap(), b"of last year");
    assert_eq!(tables(&files.path("leases.db.v1.bak.1")), ["lease", "meta"]);
    assert!(!files.path("leases.db.v1.bak.new").exists());
}

#[test]
fn a_damaged_store_of_version_1_is_not_migrated() {
    let files = Files::new();
    version_1(&files, 3);
    let conn = Connection::open(files.db()).unwrap();
    conn.execute("UPDATE lease SET key = 'x' WHERE sandbox = 's1'", []).unwrap();
    conn.close().unwrap();
    assert!(matches!(files.open(), Err(StoreError::Damaged { .. })));
    assert_eq!(tables(&files.db()), ["lease", "meta"]);
    assert!(!files.path("leases.db.v1.bak").exists());
    let boot = Boot { id: "boot-1".to_owned(), now: now(300) };
    let done = recover(&files.db(), None, Known::default(), &boot, false).unwrap();
    assert_eq!((done.kept, done.quarantined.len()), (4, 2));
    files.open().unwrap();
}

#[test]
fn recovery_keeps_what_a_row_that_cannot_be_read_is_about() {
    let files = Files::new();
    let (store, engine) = filled(&files);
    let conn = store.connection();
    conn.execute("UPDATE subnet SET id = 'x' WHERE id = 'a'", []).unwrap();
    conn.execute("UPDATE interface SET id = 'x' WHERE name = 'tap0'", []).unwrap();
    store.close().unwrap();
    let boot = Boot { id: "boot-1".to_owned(), now: now(300) };
    recover(&files.db(), None, Known::default(), &boot, false).unwrap();
    let found = files.open().unwrap().take_restored().contents;
    let ids: Vec<_> = found.subnets.iter().map(|s| (s.prefix.to_string(), &*s.id)).collect();
    let recovered = ("10.0.0.16/28".to_owned(), "recovered:10.0.0.16/28");
    assert_eq!(
        ids,
        [("fd00:0:0:0:1::/80".parse::<ipnet::IpNet>().unwrap().to_string(), "b"), recovered]
    );
    let names: Vec<_> = found.interfaces.iter().map(|i| (&*i.name, &*i.id)).collect();
    assert_eq!(names, [("tap0", "recovered:tap0"), ("veth0", "a")]);
    assert_eq!(sorted(found.rows), rows_of(&engine));
}

#[test]
fn a_backup_adds_subnets_that_nobody_has_taken_since() {
    let files = Files::new();
    let (mut store, mut engine) = filled(&files);
    step(&mut store, &mut engine, subnet("p", "later", 29));
    store.snapshot().unwrap().write(&files.path("backup")).unwrap();
    // Since then: "a" is given back and its addresses are leased, "later" is lost.
    let which = WhichSubnet::Id(Arc::from("a"));
    step(&mut store, &mut engine, Command::ReleaseSubnet(which));
    let address = Some("10.0.0.17".parse().unwrap());
    let (pools, sandbox) = (vec![Arc::from("p")], Arc::from("new"));
    let ask = Allocate { pools, sandbox, address, ..Allocate::default() };
    step(&mut store, &mut engine, Command::Allocate(ask));
    store.connection().execute("DELETE FROM subnet WHERE id = 'later'", []).unwrap();
    store.close().unwrap();
    let boot = Boot { id: "boot-1".to_owned(), now: now(300) };
    let backup = HandedIn::take(&files.path("backup"), &files.db()).unwrap();
    let done = recover(&files.db(), Some(&backup), Known::default(), &boot, false).unwrap();
    assert_eq!(done.from_backup, 1);
    let found = files.open().unwrap().take_restored().contents;
    let ids: Vec<_> = found.subnets.iter().map(|subnet| &*subnet.id).collect();
    assert_eq!(ids, ["b", "later"]);
}
