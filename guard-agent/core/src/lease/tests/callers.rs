//! Controllers are apart: what one has made is not another's.

use super::*;
use crate::lease::{
    Caller, Controller, Controllers,
    command::{ReserveSubnet, WhichSubnet},
};

const A: u32 = 1;
const B: u32 = 2;

/// A speaks for a subscriber; whether it shares is the test's.
fn controllers(shared: bool) -> Controllers {
    let of = |uid| Controller { uid, pools: None, subscriber: None, shared };
    let a = Controller { subscriber: Some(Arc::from("proxy")), ..of(A) };
    [a, of(B)].into_iter().collect()
}

fn by(uid: u32, command: Command) -> Command {
    Command::For(Caller::Controller(uid, controllers(false)), Box::new(command))
}

fn by_owner(sandbox: &str) -> Command {
    Command::ReleaseOwner { sandbox: Arc::from(sandbox), lifecycle: None }
}

/// Everything that can be done to a lease of the sandbox "s".
fn all_acts(generation: Generation) -> [Command; 8] {
    [
        Command::Confirm(generation),
        Command::Bind { generation, mac: Some(station(9).mac), port: None },
        Command::Release(generation),
        Command::ReleaseGone(generation),
        Command::Cut(generation),
        by_owner("s"),
        Command::AckHold { generation, subscriber: Arc::from("proxy") },
        Command::Allocate(Allocate { mac: Some(station(9).mac), ..ask("s") }),
    ]
}

fn lease_of(reply: Result<Reply, Refusal>) -> Arc<Lease> {
    match reply.unwrap() {
        Reply::Leases(leases) => Arc::clone(&leases[0]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_one_controller_has_made_another_does_not_change() {
    let mut world = World::with("10.0.0.0/24");
    let lease = lease_of(world.run(by(A, Command::Allocate(ask("s")))));
    assert_eq!(lease.maker, Some(A));
    for act in all_acts(lease.generation) {
        let refused = world.run(by(B, act.clone())).unwrap_err();
        assert_eq!(refused.reason, Reason::NotYours, "{act:?}: {}", refused.message);
        assert!(world.changes.is_empty(), "{act:?}");
    }
    assert_eq!(*world.at("10.0.0.2"), *lease);
    // Its maker does, and so does an administrator.
    for caller in [Caller::Controller(A, controllers(false)), Caller::Administrator(0)] {
        for act in all_acts(lease.generation) {
            let command = Command::For(caller.clone(), Box::new(act));
            let answer = world.engine.preview(command.clone(), &world.view, world.now);
            let reason = answer.err().map(|refusal| refusal.reason);
            assert_ne!(reason, Some(Reason::NotYours), "{command:?}");
        }
    }
    // It stays on record whose the lease was.
    world.see_wire("10.0.0.2", 5);
    world.run(by(A, Command::Release(lease.generation))).unwrap();
    assert_eq!(world.at("10.0.0.2").maker, Some(A));
}

#[test]
fn leases_of_nobody_and_of_those_who_share_are_every_controllers() {
    for (maker, shared) in [(None, false), (Some(A), true)] {
        for act in 0..6 {
            let mut world = World::with("10.0.0.0/24");
            let made = Command::Allocate(ask("s"));
            let lease = lease_of(world.run(match maker {
                Some(uid) => {
                    Command::For(Caller::Controller(uid, controllers(shared)), made.into())
                }
                None => made,
            }));
            assert_eq!(lease.maker, maker);
            let act = all_acts(lease.generation)[act].clone();
            let caller = Caller::Controller(B, controllers(shared));
            let cuts = matches!(act, Command::Cut(_));
            world.run(Command::For(caller, Box::new(act))).unwrap();
            assert!(cuts || !world.changes.is_empty(), "what is not given back has nothing to cut");
        }
    }
}

#[test]
fn a_sandbox_of_two_controllers_is_given_back_in_two_parts() {
    let mut world = World::with("10.0.0.0/24");
    let [a, b] = [(A, "0"), (B, "1")].map(|(uid, key)| {
        let ask = Allocate { key: Arc::from(key), ..ask("s") };
        lease_of(world.run(by(uid, Command::Allocate(ask))))
    });
    world.run(by(B, by_owner("s"))).unwrap();
    assert_eq!(world.state(&a.address.to_string()), Some(State::Held));
    assert_eq!(world.state(&b.address.to_string()), Some(State::Cooling));
    // Again, which is idempotent, though the other's is still there.
    assert!(matches!(world.run(by(B, by_owner("s"))), Ok(Reply::Released(State::Cooling, _))));
}

#[test]
fn the_workload_of_another_controller_ends_for_nobody() {
    let mut world = World::with("10.0.0.0/24");
    let web = |sandbox| {
        Command::Allocate(Allocate {
            workload: Arc::from("web"),
            confirmed: true,
            ..ask_for(sandbox, "10.0.0.20")
        })
    };
    let lease = lease_of(world.run(by(A, web("a"))));
    assert_eq!(world.run(by(B, web("b"))).unwrap_err().reason, Reason::AddressHeld);
    world.run(by(A, Command::Release(lease.generation))).unwrap();
    assert_eq!(world.run(by(B, web("b"))).unwrap_err().reason, Reason::AddressCooling);
    assert_eq!(lease_of(world.run(by(A, web("b")))).maker, Some(A));
}

/// A subnet and a name, and how each is given back.
fn reservations() -> [(Command, Command); 2] {
    let (pool, id) = (Arc::from("p"), Arc::from("x"));
    let subnet = ReserveSubnet { pool, id: Arc::clone(&id), length: 28, prefix: None };
    let name = Command::ReserveInterface { prefix: Arc::from("veth"), id };
    [
        (Command::ReserveSubnet(subnet), Command::ReleaseSubnet(WhichSubnet::Id(Arc::from("x")))),
        (name, Command::ReleaseInterface(Arc::from("veth0"))),
    ]
}

#[test]
fn what_one_controller_has_reserved_another_neither_has_nor_gives_back() {
    let mut world = World::with("10.0.0.0/24");
    for (reserve, release) in reservations() {
        world.run(by(A, reserve.clone())).unwrap();
        for act in [reserve.clone(), release.clone()] {
            let refused = world.run(by(B, act.clone())).unwrap_err();
            assert_eq!(refused.reason, Reason::NotYours, "{act:?}: {}", refused.message);
            assert!(refused.message.contains("that uid 1 has"), "{}", refused.message);
            assert!(world.changes.is_empty(), "{act:?}");
        }
        // Its maker has it once more, and an administrator gives it back.
        world.run(by(A, reserve.clone())).unwrap();
        world.run(Command::For(Caller::Administrator(0), release.clone().into())).unwrap();
        // What nobody has, anybody may say is not there.
        assert!(matches!(world.run(by(B, release.clone())), Ok(Reply::NotFound)));
        // It is B's now, and what was made before makers were known is everyone's.
        world.run(by(B, reserve.clone())).unwrap();
        assert_eq!(world.run(by(A, release.clone())).unwrap_err().reason, Reason::NotYours);
        world.run(by(B, release.clone())).unwrap();
        world.run(reserve).unwrap();
        world.run(by(A, release)).unwrap();
    }
}

#[test]
fn what_a_controller_shares_another_gives_back() {
    let mut world = World::with("10.0.0.0/24");
    for (reserve, release) in reservations() {
        for (uid, act) in [(A, &reserve), (B, &reserve), (B, &release)] {
            let caller = Caller::Controller(uid, controllers(true));
            world.run(Command::For(caller, Box::new(act.clone()))).unwrap();
        }
    }
}

#[test]
fn a_pool_of_others_gives_a_controller_nothing() {
    let mut world = World::with("10.0.0.0/24");
    let pools = Some(vec![Arc::from("q")]);
    let only = Controller { uid: A, pools, subscriber: None, shared: false };
    let caller = Caller::Controller(A, std::iter::once(only).collect());
    let subnet =
        ReserveSubnet { pool: Arc::from("p"), id: Arc::from("x"), length: 28, prefix: None };
    for command in [Command::Allocate(ask("s")), Command::ReserveSubnet(subnet)] {
        let refused = world.run(Command::For(caller.clone(), Box::new(command))).unwrap_err();
        assert_eq!(refused.reason, Reason::NotYours);
        assert!(refused.message.contains("pool \"p\" is not uid 1's"), "{}", refused.message);
    }
    assert!(world.changes.is_empty());
}
