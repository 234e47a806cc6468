//! The JSON of each command, as `golden/json.txt` has it: scripts rely on its names and values. The
//! agent here answers every call with a message in which each field that the proto files have is set,
//! and then with empty ones. Where a change is meant, `UPDATE_EXPECT=1 cargo test -p guardctl --test
//! json` writes it down.
#![expect(clippy::unwrap_used, reason = "test helpers: a failure there is a failed test")]

mod canned;

use std::{fmt::Write as _, fs, path::Path, process::Command};

use canned::Canned;
use expect_test::expect_file;
use tokio::{net::UnixListener, runtime::Runtime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

const COMMANDS: &[&str] = &[
    "allocate --pool p --sandbox s",
    "allocate --pool p --pool q --sandbox s",
    "confirm --generation 7",
    "bind --generation 7 --interface veth-a",
    "release --generation 7",
    "leases",
    "pools",
    "live",
    "ports",
    "conflicts",
    "conflicts --follow",
    "silence 7 --for 2h",
    "events --follow",
    "drops",
    "enforce --dry-run --bridge rt0",
    "enforce on --bridge rt0",
    "enforce off --bridge rt0 --dry-run",
    "enforce status",
    "enforce resume --bridge rt0",
    "port set veth-a --mode bridge",
    "trace veth-a",
    "holds",
    "reconcile",
    "watchdog --yes",
    "why 10.8.64.2",
    "check",
    "backup /backup",
    "recover --dry-run",
    "gc --yes",
    "force-release --pool p --address 10.8.64.2 --yes",
    "quarantine add --pool p --address 10.8.64.2",
    "quarantine remove --pool p --address 10.8.64.2 --dry-run",
    "quarantine list",
    "source ignore directory --for 2h --yes",
    "subnets reserve --pool p --id i --length 28",
    "subnets release --id i",
    "subnets list",
    "interfaces reserve --prefix veth --id i --dry-run",
    "interfaces release veth0",
    "interfaces list",
    "adopt --from-host-local /networks",
    "status",
];

/// These ask no agent, or print no JSON.
const LOCAL: &[&str] = &["completions", "man", "replay", "top"];

#[test]
fn the_json_is_the_one_that_scripts_know() {
    let mut text = String::new();
    for whole in [true, false] {
        let agent = if whole { "each field set" } else { "each field empty" };
        writeln!(text, "# {agent}").unwrap();
        for (command, json) in printed(whole) {
            // One object a line.
            writeln!(text, "\n$ guardctl {command}{}", json.replace('{', "\n{").trim_end())
                .unwrap();
        }
        text.push_str(if whole { "\n" } else { "" });
    }
    expect_file!["golden/json.txt"].assert_eq(&text);
}

/// What each command prints with an agent that answers whole messages, or empty ones.
fn printed(whole: bool) -> Vec<(&'static str, String)> {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("guard.sock");
    let runtime = Runtime::new().unwrap();
    let listener = runtime.block_on(async { UnixListener::bind(&socket).unwrap() });
    let server = Server::builder()
        .add_routes(Canned { whole }.routes())
        .serve_with_incoming(UnixListenerStream::new(listener));
    runtime.spawn(server);
    let json = |command: &'static str| {
        let output = guardctl(command).env("GUARD_SOCKET", &socket).output().unwrap();
        (command, String::from_utf8(output.stdout).unwrap())
    };
    let printed = COMMANDS.iter().copied().map(json).collect();
    runtime.shutdown_background();
    printed
}

fn guardctl(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guardctl"));
    command.args(["-o", "json"]).args(line.split_whitespace());
    command
}

/// The man pages name all commands.
#[test]
fn no_command_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    assert!(guardctl(&format!("man {}", dir.path().display())).status().unwrap().success());
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| name(&entry.unwrap().path())).collect();
    let is_group = |name: &str| names.iter().any(|other| other.starts_with(&format!("{name}-")));
    let words = |command: &str| command.replace(' ', "-");
    for name in names.iter().filter(|name| !is_group(name)) {
        let command = name.strip_prefix("guardctl-").unwrap();
        let is_printed = COMMANDS.iter().any(|line| words(line).starts_with(command));
        assert!(is_printed || LOCAL.contains(&command), "{command} is not among the commands");
    }
}
