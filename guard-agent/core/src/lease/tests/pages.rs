use super::*;

fn of(filter: LeaseFilter, order: Order, after: Option<LeaseKey>, most: usize) -> StretchOf {
    StretchOf { filter, bridge: None, order, after, most }
}

/// Reads all, so many at a time; with how often it had to ask.
fn read(engine: &Engine, filter: &LeaseFilter, order: Order, most: usize) -> (Vec<LeaseKey>, u32) {
    let (mut keys, mut after, mut asked) = (Vec::new(), None, 0);
    loop {
        let stretch = engine.stretch(&of(filter.clone(), order, after, most));
        asked += 1;
        assert!(stretch.leases.len() <= most);
        keys.extend(stretch.leases.iter().map(|lease| LeaseKey::of(lease, order)));
        match stretch.reached {
            Some(reached) => after = Some(reached),
            None => return (keys, asked),
        }
    }
}

fn two_pools() -> World {
    let pool = |name: &str, bridge: &str| {
        PoolSpec::new(name, Segment::new(bridge, 0), "10.0.0.0/16".parse().unwrap())
    };
    // The configuration has them in another order than their names.
    let mut world = World::new([pool("z", "br0"), pool("a", "br1")]);
    for n in 0..30 {
        let pools = vec![Arc::from("z"), Arc::from("a")];
        let sandbox = Arc::from(format!("s{}", n % 7));
        let key = Arc::from(format!("{n}"));
        let ask = Allocate { pools, sandbox, key, ..Allocate::default() };
        world.allocate(ask).unwrap();
    }
    world
}

#[test]
fn rule_14_stretches_of_any_size_make_the_whole_list_in_the_order_of_its_keys() {
    let world = two_pools();
    for order in [Order::Pool, Order::Place] {
        let mut all: Vec<_> = world
            .engine
            .leases(&LeaseFilter::default())
            .map(|lease| LeaseKey::of(lease, order))
            .collect();
        all.sort();
        for most in [1, 2, 7, 59, 60, 61] {
            let (keys, _) = read(&world.engine, &LeaseFilter::default(), order, most);
            assert_eq!(keys, all, "{order:?}, {most} at a time");
        }
    }
}

#[test]
fn rule_14_a_filter_narrows_the_list_and_leaves_its_order() {
    let world = two_pools();
    let filter = |pool: &str, sandbox: Option<&str>| LeaseFilter {
        pool: Some(Arc::from(pool)),
        sandbox: sandbox.map(Arc::from),
        ..LeaseFilter::default()
    };
    for filter in [filter("a", None), filter("z", Some("s3")), filter("none", None)] {
        let mut all: Vec<_> =
            world.engine.leases(&filter).map(|lease| LeaseKey::of(lease, Order::Pool)).collect();
        all.sort();
        for most in [1, 4, 100] {
            assert_eq!(read(&world.engine, &filter, Order::Pool, most).0, all, "{filter:?}");
        }
    }
    let released = world.engine.leases(&filter("a", Some("s1"))).next().unwrap().generation;
    let mut world = world;
    world.release(released);
    let (keys, _) = read(&world.engine, &filter("a", Some("s1")), Order::Pool, 2);
    assert_eq!(keys.len(), 5, "what a sandbox gave back is listed as long as it rests");
}

#[test]
fn rule_14_what_comes_and_goes_between_two_pages_moves_no_other() {
    let mut world = two_pools();
    let first = world.engine.stretch(&of(LeaseFilter::default(), Order::Pool, None, 10));
    // The last row of the page is no more when the next one is asked for.
    world.pass(60);
    let last = first.reached.unwrap();
    assert!(world.engine.lease_at(&last.segment, last.address).is_none_or(|l| !l.state.is_owned()));
    let rest =
        world.engine.stretch(&of(LeaseFilter::default(), Order::Pool, Some(last.clone()), 99));
    assert!(rest.leases.iter().all(|lease| LeaseKey::of(lease, Order::Pool) > last));
}

#[test]
fn rule_14_a_stretch_looks_at_so_many_rows_whether_they_match_or_not() {
    let mut world = World::with("10.0.0.0/18");
    for n in 0..9000 {
        let command = Command::Allocate(ask(&format!("s{n}")));
        let applied = world.engine.apply(command, &world.view, world.now);
        assert!(applied.result.is_ok());
    }
    let none = LeaseFilter { state: Some(State::Quarantined), ..LeaseFilter::default() };
    let (keys, asked) = read(&world.engine, &none, Order::Pool, 1000);
    assert_eq!((keys.len(), asked), (0, 3));
    let all = LeaseFilter::default();
    assert_eq!(read(&world.engine, &all, Order::Pool, 1000).1, 9);
    // A sandbox is found by name, not by a search.
    let one = LeaseFilter { sandbox: Some(Arc::from("s8999")), ..LeaseFilter::default() };
    let (keys, asked) = read(&world.engine, &one, Order::Pool, 1000);
    assert_eq!((keys.len(), asked), (1, 1));
}
