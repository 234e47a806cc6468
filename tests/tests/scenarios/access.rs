//! Who may call what, asked by processes of other users, and how much of it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guard_api::client::CallError;
use guard_tests::{Agent, Client, Lab, Launch, POOL, binary, eventually};

const STRANGER: u32 = 61001;
const READERS: u32 = 61002;
const CONTROLLER: u32 = 61003;
const ADMINISTRATOR: u32 = 61004;

/// The settings that the users above have their roles by.
fn roles() -> String {
    format!(
        "[access]\nadmin_uids = [0, {ADMINISTRATOR}]\ncontroller_uids = [{CONTROLLER}]\n\
         reader_gids = [{READERS}]\n"
    )
}

pub(crate) fn start(lab: &Lab, access: &str) -> Result<Agent> {
    // The lab's directory is root's alone; what keeps others out is to be the agent.
    std::fs::set_permissions(lab.dir(), std::fs::Permissions::from_mode(0o711))?;
    lab.agent_with(Launch::config(&lab.config()?.with(access)?)?)
}

/// What each method answers to a user: `OK`, or the refusal.
pub(crate) fn call_as(
    agent: &Agent,
    uid: u32,
    groups: &str,
    methods: &[String],
) -> Result<BTreeMap<String, String>> {
    call_on(&agent.socket(), uid, groups, methods)
}

fn call_on(
    socket: &Path,
    uid: u32,
    groups: &str,
    methods: &[String],
) -> Result<BTreeMap<String, String>> {
    let mut command = Command::new(binary("call-as")?);
    let id = uid.to_string();
    command.arg(socket).args([&*id, &*id, groups]).args(methods);
    let output = command.output().context("call-as")?;
    let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.success(), "{stderr}");
    let line = |line: &str| {
        let (method, answer) = line.split_once(' ').context("no method")?;
        Ok((method.to_owned(), answer.to_owned()))
    };
    stdout.lines().map(line).collect()
}

/// The table of the documentation: each method's full path, and the least role that may call it.
pub(crate) fn documented() -> Result<Vec<(String, &'static str)>> {
    let text = include_str!("../../../docs/operations.md");
    let mut rows = Vec::new();
    for role in ["anyone", "reader", "controller", "administrator"] {
        let row = text.lines().find(|line| line.starts_with(&format!("| {role} |")));
        let row = row.with_context(|| format!("no row for {role}"))?;
        let (_, methods) = row.split_at(row.rfind(" | ").context("no last column")?);
        for method in methods.split('`').skip(1).step_by(2) {
            let (service, method) = method.split_once('.').context("no service")?;
            match service {
                "Health" => rows.push((format!("/grpc.health.v1.Health/{method}"), role)),
                "ServerReflection" => rows.extend(["v1", "v1alpha"].map(|version| {
                    (format!("/grpc.reflection.{version}.ServerReflection/{method}"), role)
                })),
                _ => rows.push((format!("/guard.v1.{service}/{method}"), role)),
            }
        }
    }
    Ok(rows)
}

#[test]
fn each_row_of_the_table_of_roles_holds_for_real_users() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab, &roles())?;
    let rows = documented()?;
    let methods: Vec<_> = rows.iter().map(|(method, _)| method.clone()).collect();
    let unique: BTreeSet<_> = methods.iter().collect();
    // That none is missing is a test of the agent's own table.
    ensure!(unique.len() == methods.len() && methods.len() == 37, "{} rows", methods.len());
    let readers = READERS.to_string();
    let roles = ["anyone", "reader", "controller", "administrator"];
    for (uid, groups, has) in [
        (STRANGER, "", "anyone"),
        (STRANGER, "61001,61005", "anyone"),
        // By a supplementary group, and by the primary one.
        (STRANGER, &*readers, "reader"),
        (READERS, "", "reader"),
        (CONTROLLER, "", "controller"),
        (ADMINISTRATOR, "", "administrator"),
        (0, "", "administrator"),
    ] {
        let answers = call_as(&agent, uid, groups, &methods)?;
        for (method, wants) in &rows {
            let answer = answers.get(method).with_context(|| format!("{uid}: no {method}"))?;
            let rank = |role| roles.iter().position(|known| *known == role);
            let refused = answer.starts_with("PERMISSION_DENIED/ROLE_REQUIRED: ");
            ensure!(
                refused == (rank(has) < rank(*wants)),
                "{method} wants {wants}, {uid} is {has}: {answer}"
            );
            let says = format!("wants the role {wants}, which uid {uid} does not have");
            ensure!(!refused || answer.contains(&says), "{answer}");
        }
    }
    let answers = call_as(&agent, CONTROLLER, "", &["/guard.v1.Admin/Check".to_owned()])?;
    ensure!(answers["/guard.v1.Admin/Check"].contains("access.admin_uids"), "{answers:?}");
    let unknown = ["/guard.v1.Leases/Steal".to_owned(), "/nobody".to_owned()];
    for (method, answer) in call_as(&agent, ADMINISTRATOR, "", &unknown)? {
        ensure!(answer.starts_with("UNIMPLEMENTED/METHOD_UNKNOWN: "), "{method}: {answer}");
    }
    Ok(())
}

#[test]
fn by_default_nobody_but_root_can_connect() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab, "")?;
    let method = ["/guard.v1.Guard/Status".to_owned()];
    let answer = call_as(&agent, STRANGER, "", &method)?;
    ensure!(answer.iter().any(|(_, said)| said.contains("Permission denied")), "{answer:?}");
    ensure!(call_as(&agent, 0, "", &method)?["/guard.v1.Guard/Status"] == "OK");
    Ok(())
}

/// What `guardctl` comes to behind another program, which starts it with less than root has.
fn ctl_behind(less: &[&str], socket: &Path, args: &[&str]) -> Result<(Option<i32>, String)> {
    let (program, less) = less.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(less).arg(binary("guardctl")?).arg("--socket").arg(socket).args(args);
    let output = command.output().with_context(|| format!("{command:?}"))?;
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

#[test]
fn on_the_socket_for_readers_nobody_is_more_than_one() -> Result<()> {
    let lab = Lab::new()?;
    let readers = lab.dir().join("read.sock");
    let agent = start(&lab, &format!("reader_socket = {readers:?}\n{}", roles()))?;
    for uid in [0, ADMINISTRATOR, CONTROLLER] {
        let methods =
            ["/guard.v1.Guard/Status", "/guard.v1.Leases/Allocate", "/guard.v1.Admin/Check"];
        let answers = call_on(&readers, uid, "", &methods.map(str::to_owned))?;
        ensure!(answers[methods[0]] == "OK", "{answers:?}");
        for method in &methods[1..] {
            let said = &answers[*method];
            ensure!(said.starts_with("PERMISSION_DENIED/ROLE_REQUIRED: "), "{uid}: {said}");
            ensure!(said.contains("`reader_socket`"), "{said}");
        }
    }
    let status = ["/guard.v1.Guard/Status".to_owned()];
    let stranger = call_on(&readers, STRANGER, "", &status)?;
    ensure!(stranger[&status[0]].contains("ROLE_REQUIRED"), "{stranger:?}");
    let reader = call_on(&readers, STRANGER, &READERS.to_string(), &status)?;
    ensure!(reader[&status[0]] == "OK", "{reader:?}");
    // Its twin: on the other one, an administrator is one.
    ensure!(
        call_as(&agent, 0, "", &["/guard.v1.Admin/Check".to_owned()])?
            .values()
            .all(|it| it == "OK")
    );
    Ok(())
}

#[test]
fn root_of_a_container_is_no_administrator_where_the_capability_is_asked_for() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab, "[access]\nadmin_net_admin = true\n")?;
    let bare = ["setpriv", "--bounding-set=-all"];
    // Here it is all there, and in a namespace of its own.
    let namespace = ["unshare", "--user", "--map-root-user"];
    for less in [&bare[..], &namespace] {
        let (code, said) = ctl_behind(less, &agent.socket(), &["check"])?;
        ensure!(code == Some(1) && said.contains("ROLE_REQUIRED"), "{less:?}: {said}");
        ensure!(said.contains("asks for CAP_NET_ADMIN"), "{said}");
    }
    let (code, said) =
        ctl_behind(&["setpriv", "--bounding-set=-sys_admin"], &agent.socket(), &["check"])?;
    ensure!(code == Some(0), "{said}");
    // Without the setting, root is root.
    agent.reload(&lab.config()?.text()?)?;
    let (code, said) = ctl_behind(&bare, &agent.socket(), &["check"])?;
    ensure!(code == Some(0), "{said}");
    Ok(())
}

#[test]
fn a_caller_has_so_many_calls_at_a_time_and_the_next_is_told() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..2 {
            clients.push(Client::connect(&agent.socket()).await?);
        }
        let mut streams = Vec::new();
        for client in clients.iter().cycle().take(512) {
            streams.push(client.clone().watch("", None).await?);
        }
        let mut client = Client::connect(&agent.socket()).await?;
        let refused = client.allocate(POOL, "a").await.err().context("it was let in")?;
        let retry = guard_tests::retry_delay(&refused);
        let said = CallError::from(refused).to_string();
        ensure!(said.starts_with("RESOURCE_EXHAUSTED/TOO_MANY_CALLS: 512 calls"), "{said}");
        ensure!(retry == Some(Duration::from_secs(1)), "{retry:?}");
        drop(streams.pop());
        // The agent hears of its end after us.
        let patience = tokio::time::Instant::now() + guard_tests::TIMEOUT;
        while client.allocate(POOL, "a").await.is_err() {
            ensure!(tokio::time::Instant::now() < patience, "the place is not given back");
            tokio::task::yield_now().await;
        }
        drop((streams, clients));
        Ok(())
    })?;
    agent.journal().await_line(&["too many calls", "uid=0", "most=512"])?;
    Ok(())
}

#[test]
fn a_caller_has_so_many_connections_and_strangers_few() -> Result<()> {
    let lab = Lab::new()?;
    let agent = start(&lab, &roles())?;
    let connect = || std::os::unix::net::UnixStream::connect(agent.socket());
    let held: Vec<_> = (0..192).map(|_| connect()).collect::<Result<_, _>>()?;
    let status = ["/guard.v1.Guard/Status".to_owned()];
    let mut refused = connect()?;
    // Its end, and no byte before it.
    refused.set_read_timeout(Some(guard_tests::TIMEOUT))?;
    ensure!(std::io::Read::read(&mut refused, &mut [0])? == 0);
    agent.journal().await_line(&["too many connections", "uid=0", "most=256"])?;
    // The rest is kept for processes that have none, and others have their own.
    ensure!(agent.ctl(&["status"])?.code == 0, "nothing is kept");
    ensure!(call_as(&agent, ADMINISTRATOR, "", &status)?["/guard.v1.Guard/Status"] == "OK");
    drop(held);
    eventually("a place for the next", || Ok((agent.ctl(&["status"])?.code == 0).then_some(())))
}

#[test]
fn a_message_that_is_too_long_is_refused_and_changes_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        client.allocate(POOL, &"a".repeat(70_000)).await.err().context("it was taken")
    })?;
    let said = CallError::from(status).to_string();
    ensure!(said.starts_with("RESOURCE_EXHAUSTED/MESSAGE_TOO_LARGE: "), "{said}");
    ensure!(said.contains("65536 bytes"), "{said}");
    ensure!(agent.list(&["leases"], "leases")?.is_empty());
    Ok(())
}
