use super::{restored::restart, *};
use crate::bounds;

fn reserve(world: &mut World, prefix: &str, id: &str) -> Result<String, Refusal> {
    let (prefix, id) = (Arc::from(prefix), Arc::from(id));
    match world.run(Command::ReserveInterface { prefix, id })? {
        Reply::Interface(reserved) => Ok(reserved.name.to_string()),
        other => panic!("{other:?}"),
    }
}

fn release(world: &mut World, name: &str) -> Reply {
    world.run(Command::ReleaseInterface(Arc::from(name))).unwrap()
}

#[test]
fn a_name_is_the_lowest_that_nobody_has() {
    let mut world = World::with("10.0.0.0/24");
    for n in 0..3 {
        assert_eq!(reserve(&mut world, "veth", &format!("s{n}")).unwrap(), format!("veth{n}"));
    }
    assert_eq!(reserve(&mut world, "tap", "s0").unwrap(), "tap0");
    assert!(matches!(release(&mut world, "veth1"), Reply::Interface(_)));
    assert_eq!(release(&mut world, "veth1"), Reply::NotFound);
    assert_eq!(reserve(&mut world, "veth", "s9").unwrap(), "veth1");
}

#[test]
fn the_same_asker_gets_the_same_name_also_once_the_interface_exists() {
    let mut world = World::with("10.0.0.0/24");
    let name = reserve(&mut world, "veth", "s").unwrap();
    world.view.links.insert(name.clone());
    assert_eq!(reserve(&mut world, "veth", "s").unwrap(), name);
    assert!(world.changes.is_empty());
}

#[test]
fn what_the_kernel_has_is_passed_over() {
    let mut world = World::with("10.0.0.0/24");
    world.view.links.extend(["veth0", "veth2"].map(str::to_owned));
    assert_eq!(reserve(&mut world, "veth", "a").unwrap(), "veth1");
    assert_eq!(reserve(&mut world, "veth", "b").unwrap(), "veth3");
    // Somebody else takes the next one in the meantime, and the released one stays in the kernel.
    world.view.links.extend(["veth4", "veth1"].map(str::to_owned));
    release(&mut world, "veth1");
    assert_eq!(reserve(&mut world, "veth", "c").unwrap(), "veth5");
    world.view.links.clear();
    assert_eq!(reserve(&mut world, "veth", "d").unwrap(), "veth0");
}

#[test]
fn prefixes_that_share_names_do_not_share_a_name() {
    let mut world = World::with("10.0.0.0/24");
    for n in 0..13 {
        reserve(&mut world, "v", &format!("s{n}")).unwrap();
    }
    // v10, v11 and v12 are taken by the other prefix.
    assert_eq!(reserve(&mut world, "v1", "x").unwrap(), "v13");
}

#[test]
fn no_name_is_longer_than_the_kernel_takes() {
    let mut world = World::with("10.0.0.0/24");
    let prefix = "a".repeat(14);
    for n in 0..10 {
        assert_eq!(reserve(&mut world, &prefix, &format!("s{n}")).unwrap().len(), 15);
    }
    let refusal = reserve(&mut world, &prefix, "s10").unwrap_err();
    assert_eq!(refusal.reason, Reason::NameExhausted);
    for bad in ["", "1x", "-x", ".", "a/b", "a b", "a:b", "a%d", "ü", &"a".repeat(15)] {
        let refusal = reserve(&mut world, bad, "s").unwrap_err();
        assert_eq!(refusal.reason, Reason::NameMalformed, "{bad:?}");
    }
}

#[test]
fn a_prefix_has_so_many_names_and_another_has_its_own() {
    let mut world = World::with("10.0.0.0/24");
    let most = bounds::INTERFACES.most;
    for n in 0..most {
        let (prefix, id) = (Arc::from("veth"), Arc::from(format!("s{n}")));
        let reserve = Command::ReserveInterface { prefix, id };
        // Without a look for contradictions each time.
        world.engine.apply(reserve, &world.view, world.now).result.unwrap();
    }
    let refusal = reserve(&mut world, "veth", "more").unwrap_err();
    assert_eq!(refusal.reason, Reason::NameExhausted);
    assert_eq!(refusal.message, format!("prefix \"veth\": more than {most} interface names"));
    assert_eq!(reserve(&mut world, "veth", "s0").unwrap(), "veth0", "it has one already");
    assert_eq!(reserve(&mut world, "tap", "more").unwrap(), "tap0");
    assert_eq!(world.engine.check(), Vec::<String>::new());
}

#[test]
fn names_survive_a_restart_and_are_taken_back_with_a_failed_commit() {
    let mut world = World::with("10.0.0.0/24");
    let name = reserve(&mut world, "veth", "a").unwrap();
    restart(&mut world, [spec("10.0.0.0/24")], None);
    assert_eq!(reserve(&mut world, "veth", "a").unwrap(), name);
    assert_eq!(reserve(&mut world, "veth", "b").unwrap(), "veth1");
    let changes = std::mem::take(&mut world.changes);
    world.engine.undo(&changes);
    assert_eq!(world.engine.check(), Vec::<String>::new());
    assert_eq!(reserve(&mut world, "veth", "c").unwrap(), "veth1");
}
