use std::process::{Child, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

use super::*;

/// A run whose namespaces and pins are files in directories of the test's.
fn run(scene: &Path) -> Run {
    let places = Places { namespaces: scene.join("netns"), pins: scene.join("bpf") };
    for dir in [&places.namespaces, &places.pins] {
        fs::create_dir_all(dir).unwrap();
    }
    Run::begin_in(places).unwrap()
}

/// What is left that is none of the kernel's programs, which other tests load meanwhile.
fn left(run: &Run) -> Vec<String> {
    let left = run.left().unwrap();
    left.into_iter().filter(|left| !left.ends_with("in the kernel")).collect()
}

fn sleeper(command: &mut Command) -> Child {
    command.arg("60").stdin(Stdio::null()).spawn().unwrap()
}

/// The id of a process that has ended.
fn ended() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

#[test]
fn a_file_a_namespace_and_a_pin_that_are_left_are_found_and_named() {
    let scene = tempfile::tempdir().unwrap();
    let run = run(scene.path());
    let file = run.temporary.path().join("guard-AbCdEf");
    fs::create_dir(&file).unwrap();
    let namespace = format!("guard-{}-0-host", ended());
    fs::write(scene.path().join("netns").join(&namespace), "").unwrap();
    let pin = scene.path().join("bpf/guard/v1/EVENTS");
    fs::create_dir_all(pin.parent().unwrap()).unwrap();
    fs::write(&pin, "").unwrap();
    let expected = [
        format!("file {}", file.display()),
        format!("network namespace {namespace}"),
        format!("pin {}", pin.display()),
    ];
    assert_eq!(left(&run), expected);
}

#[test]
fn a_process_that_is_left_is_found_by_what_it_was_started_with() {
    let scene = tempfile::tempdir().unwrap();
    let run = run(scene.path());
    // Not ours: it has another temporary directory.
    let mut others = sleeper(Command::new("sleep").env("TMPDIR", scene.path()));
    // As a test's, behind a program between.
    let mut command = Command::new("env");
    let mut ours = sleeper(run.owns(command.arg("sleep")));
    let pid = ours.id();
    // In between it has no environment.
    while fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() != "sleep\n" {
        std::thread::yield_now();
    }
    let found = left(&run);
    for child in [&mut ours, &mut others] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let [found] = &found[..] else { panic!("{found:?}") };
    assert!(found.starts_with(&format!("process {pid}: ")), "{found}");
    assert_eq!(left(&run), [""; 0]);
}

#[test]
fn a_mount_and_a_link_that_are_left_are_found() {
    if !Uid::effective().is_root() {
        return println!("skipped: only root can mount, and make links");
    }
    // In namespaces of this thread's own, which go with it.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let scene = tempfile::tempdir().unwrap();
    let run = run(scene.path());
    let place = run.temporary.path().join("state");
    fs::create_dir(&place).unwrap();
    mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    for link in ["veth-left", "veth1a2b3c"] {
        let mut add = Command::new("ip");
        assert!(add.args(["link", "add", link, "type", "bridge"]).status().unwrap().success());
    }
    let found = left(&run);
    umount2(&place, MntFlags::empty()).unwrap();
    let place = place.display();
    let expected = [format!("mount {place}"), format!("file {place}"), "link veth-left".to_owned()];
    assert_eq!(found, expected);
}

#[test]
fn what_was_there_before_or_is_somebody_elses_is_not_ours() {
    let scene = tempfile::tempdir().unwrap();
    let netns = scene.path().join("netns");
    fs::create_dir(&netns).unwrap();
    // One of an earlier run that was cut off.
    fs::write(netns.join(format!("guard-{}-0-host", ended())), "").unwrap();
    let run = run(scene.path());
    let mut lab = sleeper(&mut Command::new("sleep"));
    // A lab of a test that runs elsewhere now, and what is no lab's.
    for name in [format!("guard-{}-0-host", lab.id()), "cni-1234".to_owned()] {
        fs::write(netns.join(name), "").unwrap();
    }
    fs::write(scene.path().join("bpf/cilium"), "").unwrap();
    let found = run.left();
    lab.kill().unwrap();
    lab.wait().unwrap();
    // With programs too: while another lab lives, none can be told to be ours.
    assert_eq!(found.unwrap(), [""; 0]);
    let temporary = run.temporary.path().to_owned();
    let error = run.end().unwrap_err().to_string();
    assert!(error.contains(&format!("network namespace guard-{}-0-host", lab.id())), "{error}");
    // It stays for whoever wants to know why.
    fs::remove_dir(temporary).unwrap();
}

#[test]
fn a_program_is_judged_only_where_nobody_else_runs_tests() {
    let program = Trace::Program(7);
    assert_eq!(program.left(false).as_deref(), Some("program 7 in the kernel"));
    assert_eq!(program.left(true), None);
}
