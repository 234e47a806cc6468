//! `guardctl` against an agent with canned answers: exit codes, what stands on stdout and stderr,
//! and the ends of streams. The agent proper meets it in the scenarios.
#![expect(clippy::unwrap_used, reason = "test helpers: a failure there is a failed test")]

mod agent;

use std::{
    io::{BufRead as _, BufReader},
    os::unix::net::UnixListener,
    process::Command,
};

use agent::{Agent, ID, ended};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const UNARY: [&str; 12] = [
    "allocate --pool p --sandbox s",
    "confirm --generation 7",
    "bind --generation 7 --mac 02:00:00:00:00:0A",
    "release --generation 7",
    "release --sandbox nobody",
    "leases",
    "pools",
    "live",
    "ports",
    "conflicts --all",
    "silence 7 --for 2h",
    "status",
];

#[test]
fn json_is_one_document_and_nothing_else() {
    let agent = Agent::start();
    for line in UNARY {
        let output = agent.run(&format!("{line} -o json"));
        ended(&output, 0, "");
        let text = String::from_utf8(output.stdout).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert!(document.is_object() && text.lines().count() == 1, "{line}: {text}");
    }
}

#[test]
fn tables_fit_eighty_columns_without_colour_on_a_pipe() {
    let agent = Agent::start();
    for line in UNARY {
        let output = agent.ctl(line).env("COLUMNS", "80").output().unwrap();
        ended(&output, 0, "");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.is_empty() && !text.contains('\x1b'), "{line}: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{line}: {text}");
    }
}

#[test]
fn without_a_terminal_nothing_is_folded() {
    let agent = Agent::start();
    for line in UNARY {
        let lines = |columns: Option<&str>| {
            let mut command = agent.ctl(line);
            columns.map(|columns| command.env("COLUMNS", columns));
            let output = command.output().unwrap();
            ended(&output, 0, "");
            String::from_utf8(output.stdout).unwrap().lines().count()
        };
        let (unfolded, narrow) = (lines(None), lines(Some("24")));
        assert!(unfolded <= narrow, "{line}");
        assert!(line != "leases" || unfolded < narrow, "24 columns have no room for a lease");
        assert_eq!(unfolded, lines(Some("1000")), "{line}");
    }
}

#[test]
fn arguments_reach_the_agent_and_answers_the_reader() {
    let agent = Agent::start();
    let json = |line: &str| -> Value {
        serde_json::from_slice(&agent.run(&format!("-o json {line}")).stdout).unwrap()
    };
    assert_eq!(json("allocate --pool p --sandbox s")["generation"], 7);
    let several = json("allocate --pool p --pool q --sandbox s");
    assert_eq!(several["leases"][0]["pool"], "p");
    assert_eq!(several["leases"][1]["pool"], "q");
    let bound = json("bind --generation 7 --mac 02:00:00:00:00:0A");
    assert_eq!(bound["lease"]["mac"], "02:00:00:00:00:0a");
    assert_eq!(json("leases --state cooling")["leases"][0]["state"], "cooling");
    assert_eq!(json("release --generation 7")["outcome"], "releasing");
    assert_eq!(json("silence 7 --for 2h")["id"], "7");
}

#[test]
fn rule_14_all_pages_are_one_document() {
    let agent = Agent::start();
    let output = agent.run("leases --pool paged -o json");
    ended(&output, 0, "");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["leases"].as_array().unwrap().len(), 2);
    let endless = agent.run("leases --pool endless");
    ended(&endless, 3, "lost the agent: it sends the same page again and again");
}

#[test]
fn stale_and_not_found_are_done() {
    let agent = Agent::start();
    let stale = agent.run("confirm --generation 6 --output json");
    ended(&stale, 0, "");
    assert_eq!(stale.stdout, b"{\"outcome\":\"stale\",\"lease\":null}\n");
    let missing = agent.run("release --sandbox nobody -o json");
    ended(&missing, 0, "");
    assert_eq!(missing.stdout, b"{\"outcome\":\"not_found\",\"leases\":[]}\n");
}

#[test]
fn a_refusal_is_one_line_and_exit_1() {
    let agent = Agent::start();
    let refused = agent.run("allocate --pool p --sandbox one-too-many -o json");
    let line = "RESOURCE_EXHAUSTED/POOL_EXHAUSTED: pool \"p\" has no free address; the next one \
                cools down at 12:00";
    ended(&refused, 1, line);
    assert!(refused.stdout.is_empty());
    ended(&agent.run("leases --pool secret"), 1, "PERMISSION_DENIED: not yours");
}

#[test]
fn bad_arguments_are_exit_2() {
    let agent = Agent::start();
    let output = agent.run("allocate --pool p --sandbox s --mac 02:zz");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("\"02:zz\" is not a MAC address"), "{said}");
}

#[test]
fn without_an_agent_it_is_exit_3() {
    let agent = Agent::start();
    let output = agent.run("status --socket /nonexistent/guard.sock");
    let line = "cannot reach the agent at /nonexistent/guard.sock: No such file or directory (os \
                error 2); is guard-agent running?";
    ended(&output, 3, line);
}

#[test]
fn a_hung_agent_is_exit_3() {
    let agent = Agent::start();
    let socket = agent.dir.path().join("hung.sock");
    let _never_accepts = UnixListener::bind(&socket).unwrap();
    let output = agent.run(&format!("status --socket {}", socket.display()));
    ended(&output, 3, "no answer from the agent within 10s; is it hung?");
}

#[test]
fn a_stream_is_a_line_for_each_event_and_its_end_is_exit_3() {
    let agent = Agent::start();
    let output = agent.run("events --follow --from 0 -o json");
    ended(&output, 3, "lost the agent: it ended the stream");
    let text = String::from_utf8(output.stdout).unwrap();
    let seqs = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].clone());
    assert_eq!(seqs.collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn an_interrupt_ends_a_stream_well() {
    let agent = Agent::start();
    let (child, _stdout) = agent.follow("conflicts --follow");
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    ended(&child.wait_with_output().unwrap(), 0, "");
}

#[test]
fn a_reader_that_has_read_enough_ends_a_stream_well() {
    let agent = Agent::start();
    let (child, stdout) = agent.follow("events --follow --from 1");
    drop(stdout);
    ended(&child.wait_with_output().unwrap(), 0, "");
}

/// Also where the agent is another process by then.
#[test]
fn a_stream_goes_on_with_the_agent_that_comes_after_one_that_dies() {
    let mut agent = Agent::start();
    for line in ["events --follow", "conflicts --follow"] {
        let (mut child, mut stdout) = agent.follow(line);
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        agent.restart(&mut stderr);
        let mut next = String::new();
        if line.starts_with("events") {
            stdout.read_line(&mut next).unwrap();
            assert!(next.contains("10.8.64.2"), "{next}");
        }
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{line}");
    }
}

#[test]
fn the_beginning_of_an_id_names_a_sandbox_and_of_a_name_it_does_not() {
    let agent = Agent::start();
    let table = String::from_utf8(agent.run("leases").stdout).unwrap();
    assert!(table.contains(&ID[..12]) && !table.contains(ID), "{table}");
    for (given, meant) in [
        (&ID[..12], ID.repeat(4)),
        (&ID.repeat(3), ID.repeat(4)),
        (&ID[..11], ID[..11].to_owned()),
        ("0123456789ac", "0123456789ac".to_owned()),
    ] {
        let output = agent.run(&format!("leases --sandbox {given} -o json"));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["leases"][0]["sandbox"], *meant, "{given}");
    }
}

#[test]
fn the_last_events_are_a_list_that_ends() {
    let agent = Agent::start();
    for line in ["events -o json", "events --from 0 -o json", "events --since 1h -o json"] {
        let output = agent.run(line);
        ended(&output, 0, "");
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2, "{line}");
    }
    let none = agent.run("events --from 2");
    ended(&none, 0, "");
    assert!(none.stdout.is_empty());
}

#[test]
fn completions_are_scripts_of_their_shells() {
    let agent = Agent::start();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = agent.run(&format!("completions {shell}"));
        ended(&output, 0, "");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("force-release") && text.contains("dry-run"), "{shell}: {text:.200}");
        if shell == "bash" {
            let check = Command::new("bash").args(["-n", "-c", &text]).output().unwrap();
            ended(&check, 0, "");
        }
    }
}

#[test]
fn there_is_a_man_page_for_each_command() {
    let agent = Agent::start();
    let dir = agent.dir.path().join("man/man1");
    ended(&agent.run(&format!("man {}", dir.display())), 0, "");
    for name in ["guardctl", "guardctl-top", "guardctl-quarantine-add", "guardctl-subnets-reserve"]
    {
        let page = std::fs::read_to_string(dir.join(format!("{name}.1"))).unwrap();
        for part in [".TH", "NAME", "SYNOPSIS", "Example"] {
            assert!(page.contains(part), "{part} is not in {name}: {page}");
        }
    }
    let output = agent.run(&format!("man {}/guardctl.1", dir.display()));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("cannot write into "), "{said}");
}
