//! Controllers are apart: what one has made, another neither confirms, binds nor gives back.

use anyhow::{Context, Result, ensure};
use guard_api::proto::{
    AckHoldRequest, AllocateRequest, BindRequest, ConfirmRequest, Owner, ReleaseInterfaceRequest,
    ReleaseRequest, ReleaseSubnetRequest, ReserveInterfaceRequest, ReserveSubnetRequest,
    WatchRequest, release_request::Which,
};
use guard_tests::{Agent, Lab, Lease, POOL};
use tonic_prost::prost::Message;

use super::access::{call_as, start};

const A: u32 = 61003;
const B: u32 = 61006;
const ADMINISTRATOR: u32 = 61004;

fn settings(shared: bool) -> String {
    format!(
        "[access]\nadmin_uids = [0, {ADMINISTRATOR}]\n[[subscriber]]\nname = \"proxy\"\n\
         hold_deadline = \"1h\"\n[[controller]]\nuid = {A}\nsubscriber = \"proxy\"\n\
         shared = {shared}\n[[controller]]\nuid = {B}\npools = [{POOL:?}]\n"
    )
}

/// A call with its message, as `call-as` takes it.
pub(crate) fn call(method: &str, message: &impl Message) -> String {
    let hex: String = message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("/guard.v1.{method}={hex}")
}

/// What a user is told to one call.
fn ask(agent: &Agent, uid: u32, call: &str) -> Result<String> {
    let answers = call_as(agent, uid, "", &[call.to_owned()])?;
    answers.into_values().next().context("no answer")
}

fn owner(sandbox: &str) -> Owner {
    Owner { sandbox: sandbox.to_owned(), lifecycle: String::new() }
}

fn allocate(sandbox: &str) -> String {
    let (pools, owner) = (vec![POOL.to_owned()], Some(owner(sandbox)));
    call("Leases/Allocate", &AllocateRequest { pools, owner, ..Default::default() })
}

fn confirm(generation: u64) -> String {
    call("Leases/Confirm", &ConfirmRequest { generation })
}

fn bind(generation: u64) -> String {
    let mac = "02:00:00:00:00:0a".to_owned();
    call("Leases/Bind", &BindRequest { generation, mac, interface: String::new() })
}

fn release(which: Which) -> String {
    call("Leases/Release", &ReleaseRequest { which: Some(which), only_if_gone: false, cut: false })
}

fn acknowledge(generation: u64) -> String {
    let subscriber = "proxy".to_owned();
    call("Leases/AckHold", &AckHoldRequest { generation, subscriber })
}

/// A lease of a sandbox, made by controller A.
fn lease(agent: &Agent, sandbox: &str) -> Result<Lease> {
    let answer = ask(agent, A, &allocate(sandbox))?;
    ensure!(answer == "OK", "{answer}");
    let all = agent.list(&["leases"], "leases")?;
    let own = all.into_iter().find(|lease| lease["sandbox"] == sandbox).context("no lease")?;
    ensure!(own["maker"] == A, "{own}");
    Ok(serde_json::from_value(own)?)
}

#[test]
fn what_another_controller_has_made_is_not_yours() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = start(&lab, &settings(false))?;
    let Lease { generation, .. } = lease(&agent, "a")?;
    let watch = WatchRequest { subscriber: "proxy".to_owned(), ..Default::default() };
    let acts = [
        confirm(generation),
        bind(generation),
        release(Which::Generation(generation)),
        release(Which::Owner(owner("a"))),
        acknowledge(generation),
        allocate("a"),
        call("Leases/Watch", &watch),
    ];
    // Its maker is on disk.
    agent.kill()?;
    agent.start_again()?;
    for act in &acts {
        let answer = ask(&agent, B, act)?;
        ensure!(answer.starts_with("PERMISSION_DENIED/NOT_YOURS: "), "{act}: {answer}");
    }
    let refused = agent.metric("guard_refusals_total", &[("reason", "not_yours")])?;
    ensure!(refused == Some(7.0), "{refused:?}");
    // One line for all of them, with who it was.
    agent.journal().await_line(&["audit", "it is another's", &format!("uid={B}"), "pid="])?;
    ensure!(agent.journal().count(&["it is another's"]) == 1, "{}", agent.journal().text());
    ensure!(agent.list(&["leases"], "leases")?[0]["state"] == "held");

    // Its twins: the maker does, an administrator does, and B does with its own.
    for uid in [A, ADMINISTRATOR, 0] {
        let Lease { generation, .. } = lease(&agent, &format!("of-{uid}"))?;
        for act in [confirm(generation), bind(generation), release(Which::Generation(generation))] {
            ensure!(ask(&agent, uid, &act)? == "OK", "{uid}: {act}");
        }
        ensure!(ask(&agent, uid, &acknowledge(generation))? == "OK", "{uid}");
    }
    ensure!(ask(&agent, B, &allocate("b"))? == "OK");
    ensure!(ask(&agent, B, &release(Which::Owner(owner("b"))))? == "OK");
    // Its hold is A's to acknowledge, whoever made the lease.
    let holds = agent.list(&["holds"], "holds")?;
    let hold = holds.first().context("no hold")?["generation"].as_u64().context("no number")?;
    ensure!(ask(&agent, B, &acknowledge(hold))?.contains("NOT_YOURS"));
    ensure!(ask(&agent, A, &acknowledge(hold))? == "OK");
    ensure!(agent.list(&["holds"], "holds")?.is_empty());
    Ok(())
}

/// A subnet and a name, and how each is given back: by its identifier or its name, and by what it is.
fn reservations() -> [(String, Vec<String>); 2] {
    let (pool, id, prefix) = (POOL.to_owned(), "x".to_owned(), "10.8.64.16/28".to_owned());
    let subnet = ReserveSubnetRequest { pool, id: id.clone(), prefix, ..Default::default() };
    let by_id = ReleaseSubnetRequest { id: id.clone(), ..Default::default() };
    let by_prefix = ReleaseSubnetRequest { prefix: subnet.prefix.clone(), ..Default::default() };
    let name = ReserveInterfaceRequest { prefix: "veth".to_owned(), id, dry_run: false };
    let by_name = ReleaseInterfaceRequest { name: "veth0".to_owned(), dry_run: false };
    let releases = [by_id, by_prefix].map(|release| call("Subnets/Release", &release)).to_vec();
    [
        (call("Subnets/Reserve", &subnet), releases),
        (call("Interfaces/Reserve", &name), vec![call("Interfaces/Release", &by_name)]),
    ]
}

#[test]
fn a_subnet_or_a_name_that_another_controller_has_reserved_is_not_yours() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = start(&lab, &settings(false))?;
    for (reserve, _) in reservations() {
        ensure!(ask(&agent, A, &reserve)? == "OK", "{reserve}");
    }
    // Whose they are is on disk.
    agent.kill()?;
    agent.start_again()?;
    for (reserve, releases) in reservations() {
        for act in releases.iter().chain([&reserve]) {
            let answer = ask(&agent, B, act)?;
            ensure!(answer.starts_with("PERMISSION_DENIED/NOT_YOURS: "), "{act}: {answer}");
        }
        // Its maker has it once more, gives it back, and then it is whose it becomes.
        ensure!(ask(&agent, A, &reserve)? == "OK");
        ensure!(ask(&agent, A, &releases[0])? == "OK");
        ensure!(ask(&agent, B, &reserve)? == "OK");
        ensure!(ask(&agent, A, &releases[0])?.contains("NOT_YOURS"));
        ensure!(ask(&agent, ADMINISTRATOR, &releases[0])? == "OK");
    }
    for (list, rows) in [("subnets", "subnets"), ("interfaces", "interfaces")] {
        ensure!(agent.list(&[list, "list"], rows)?.is_empty(), "{list}");
    }
    // What a controller shares is every controller's.
    agent.reload(&lab.config()?.with(&settings(true))?.text()?)?;
    for (reserve, releases) in reservations() {
        ensure!(ask(&agent, A, &reserve)? == "OK");
        ensure!(ask(&agent, B, &releases[0])? == "OK");
    }
    Ok(())
}

#[test]
fn each_change_of_an_administrator_is_a_line_of_the_audit() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab, &settings(false))?;
    let Lease { generation, address, .. } = lease(&agent, "a")?;
    let before = agent.journal().count(&["an administrator's change"]);
    ensure!(before == 0, "{}", agent.journal().text());
    for act in [confirm(generation), release(Which::Generation(generation))] {
        ensure!(ask(&agent, ADMINISTRATOR, &act)? == "OK");
    }
    let uid = format!("uid={ADMINISTRATOR}");
    for method in ["/guard.v1.Leases/Confirm", "/guard.v1.Leases/Release"] {
        let address = address.to_string();
        agent.journal().await_line(&["audit", &uid, "pid=", method, &address, "done"])?;
    }
    // What changes nothing has none: a dry run, a list, a refusal.
    let held = lease(&agent, "b")?.address.to_string();
    let force = ["force-release", "--pool", POOL, "--address", &held];
    for args in [&[&force[..], &["--dry-run"]].concat()[..], &["quarantine", "list"]] {
        ensure!(agent.ctl(args)?.code == 0, "{args:?}");
    }
    ensure!(ask(&agent, ADMINISTRATOR, &confirm(generation + 1_000_000))? == "OK");
    ensure!(ask(&agent, ADMINISTRATOR, &call("Leases/Confirm", &()))? != "OK");
    ensure!(agent.journal().count(&["an administrator's change", "uid=0"]) == 0);
    ensure!(agent.ctl(&[&force[..], &["--yes"]].concat())?.code == 0);
    agent.journal().await_line(&["audit", "uid=0", "Admin/ForceRelease", &held, "done"])?;
    Ok(())
}

#[test]
fn what_a_controller_shares_is_every_controllers() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab, &settings(false))?;
    let Lease { generation, .. } = lease(&agent, "a")?;
    ensure!(ask(&agent, B, &confirm(generation))?.contains("NOT_YOURS"));
    agent.reload(&lab.config()?.with(&settings(true))?.text()?)?;
    for act in [confirm(generation), bind(generation), release(Which::Owner(owner("a")))] {
        ensure!(ask(&agent, B, &act)? == "OK", "{act}");
    }
    // A hold is still its subscriber's.
    ensure!(ask(&agent, B, &acknowledge(generation))?.contains("NOT_YOURS"));
    Ok(())
}
