//! A node that reboots again and again with all of its leases out: nobody releases them, and nothing
//! is left of those who had them.

use std::{collections::BTreeSet, sync::Arc};

use crate::node::{Directory, Node, listed, one};
use futures_util::future::join_all;
use guard_agent::clock;
use guard_api::proto::directory::State;
use guard_core::{
    evidence::{Claim, PortName, Station, Strength},
    lease::{
        Lease,
        command::{Allocate, Command},
    },
    mac::Mac,
};

const REBOOTS: u32 = 300;
const LEASES: u32 = 100;

/// Gives a sandbox a lease; every second one has its port by name and number.
async fn start(node: &Node, boot: u32, number: u32) -> Arc<Lease> {
    let is_bound = number.is_multiple_of(2);
    let (name, ifindex) = (format!("veth{number}"), 1000 + number);
    let port = PortName { interface: name.clone().into(), bridge: "br0".into(), uplink: false };
    node.live.port_added(ifindex, port);
    let [a, b, c, d] = number.to_be_bytes();
    let allocate = Allocate {
        pools: vec!["p".into()],
        sandbox: sandbox(boot, number).into(),
        mac: is_bound.then_some(Mac([2, 0, a, b, c, d])),
        interface: is_bound.then(|| name.into()),
        ..Allocate::default()
    };
    let lease = one(node.ledger.call(Command::Allocate(allocate)).await.unwrap());
    one(node.ledger.call(Command::Confirm(lease.generation)).await.unwrap())
}

/// Gives sandboxes leases that nothing is bound to.
async fn admit(node: &Node, names: &[&str]) {
    for name in names {
        node.admit(name, "").await;
    }
}

/// A frame of who has the lease.
fn claims(node: &Node, lease: &Lease) {
    let port = PortName { interface: "veth".into(), bridge: "br0".into(), uplink: false };
    node.live.port_added(7, port);
    let station = Station { mac: Mac([2, 0, 0, 0, 0, 7]), interface: "veth".into(), ifindex: 7 };
    let seen = clock::monotonic();
    let claim = Claim { station, strength: Strength::Assert, first: seen, seen };
    assert!(node.live.claimed(&lease.segment, lease.address, claim));
}

async fn reaped(node: &Node) -> usize {
    let report = node.pass().await;
    assert_eq!(report.result(), "done", "{:?}", report.why());
    report.reaped.len()
}

fn sandbox(boot: u32, number: u32) -> String {
    format!("sandbox-{boot}-{number}")
}

/// Owners of leases, oldest first.
fn owners(leases: &[Arc<Lease>]) -> Vec<&str> {
    let owner = |lease: &&Arc<Lease>| lease.generation;
    let mut leases: Vec<_> = leases.iter().collect();
    leases.sort_by_key(owner);
    leases.iter().map(|lease| &*lease.owner.as_ref().unwrap().sandbox).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_reboots_leave_no_lease_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (store, socket) = (dir.path().join("leases.db"), dir.path().join("directory.sock"));
    let directory = Directory::serve(&socket);

    let mut highest = 0;
    for boot in 0..REBOOTS {
        let node = Node::start(boot, &store, Some(&socket));
        let had = if boot == 0 { 0 } else { LEASES as usize };
        assert_eq!(node.ledger.reservations().await.unwrap().len(), had, "boot {boot}");
        // Slow and sure, and without consent: whoever had them has ended with their boot.
        assert_eq!((reaped(&node).await, reaped(&node).await), (0, 0), "boot {boot}");
        assert_eq!(reaped(&node).await, had, "boot {boot}");
        // Once the directory has been asked again.
        node.await_free().await;

        let names = (0..LEASES).map(|number| sandbox(boot, number));
        let alive = names.map(|name| listed(&name, "", State::Alive)).collect();
        directory.say(|said| said.listed = alive);
        let leases = join_all((0..LEASES).map(|number| start(&node, boot, number))).await;
        let addresses: BTreeSet<_> = leases.iter().map(|lease| lease.address).collect();
        assert_eq!(addresses.len(), LEASES as usize);
        assert!(leases.iter().all(|lease| lease.generation > highest), "boot {boot}");
        highest = leases.iter().map(|lease| lease.generation).max().unwrap();
        assert_eq!(reaped(&node).await, 0);
        assert_eq!(node.ledger.check().await.unwrap(), Vec::<String>::new());
        node.ledger.shutdown().await;
        directory.say(|said| said.listed.clear());
    }
}

const TEN: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

#[tokio::test]
async fn rule_6_whose_owner_has_asked_in_this_boot_is_of_this_boot() {
    let dir = tempfile::tempdir().unwrap();
    let (store, socket) = (dir.path().join("leases.db"), dir.path().join("directory.sock"));
    let _directory = Directory::serve(&socket);
    let start = |boot| Node::start(boot, &store, Some(&socket));
    let node = start(0);
    admit(&node, &TEN).await;
    admit(&node, &["dead"]).await;
    node.ledger.shutdown().await;

    // The ten come back with the node and ask again; the generations are those of before.
    let node = start(1);
    admit(&node, &TEN).await;
    // That the agent has been restarted since takes nothing from what it knows.
    node.ledger.shutdown().await;
    let node = start(1);
    // The directory has lost its list: what says so of the dead one says so of all.
    assert_eq!((reaped(&node).await, reaped(&node).await), (0, 0));
    let report = node.pass().await;
    assert_eq!((report.result(), owners(&report.reaped)), ("blocked", vec!["dead"]));
    assert_eq!(owners(&report.blocked.unwrap().leases), TEN);
    node.ledger.shutdown().await;
}

#[tokio::test]
async fn rule_6_after_a_reboot_what_nothing_speaks_for_goes_also_where_nobody_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("leases.db");
    let node = Node::start(0, &store, None);
    admit(&node, &TEN).await;
    admit(&node, &["again", "seen"]).await;
    let report = node.pass().await;
    assert_eq!((report.silent.len(), report.unverifiable.len()), (0, 12), "within a boot");
    node.ledger.shutdown().await;

    let node = Node::start(1, &store, None);
    admit(&node, &["again"]).await;
    let leases = node.ledger.reservations().await.unwrap();
    let seen = leases.iter().find(|lease| owners(&[(*lease).clone()]) == ["seen"]).unwrap();
    claims(&node, seen);
    // Slow and sure, one miss in each pass, and without consent, however many they are.
    for misses in 1..=3 {
        let report = node.pass().await;
        assert_eq!(owners(&report.silent), TEN);
        assert!(report.silent.iter().all(|lease| lease.misses == misses));
        assert_eq!(owners(&report.unverifiable), ["again"]);
        assert_eq!(report.reaped.len(), if misses == 3 { 10 } else { 0 });
    }
    assert_eq!(owners(&node.ledger.reservations().await.unwrap()), ["again", "seen"]);
    node.ledger.shutdown().await;
}
