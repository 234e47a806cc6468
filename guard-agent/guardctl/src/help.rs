//! The commands in the help, by what they are for.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};

use crate::cli::Cli;

/// The groups; a command that none of them names stands in the last.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "How is it",
        &["status", "top", "conflicts", "events", "why", "live", "ports", "trace", "drops"],
    ),
    ("Addresses", &["pools", "leases", "allocate", "confirm", "bind", "release", "holds"]),
    ("Subnets and names", &["subnets", "interfaces"]),
    ("Act", &["silence", "enforce", "port", "quarantine", "force-release", "source"]),
    (
        "Look after the store",
        &["reconcile", "gc", "watchdog", "check", "backup", "recover", "adopt"],
    ),
    ("Without an agent", &["replay", "completions", "man"]),
    ("Other", &[]),
];

/// The command line, with a help in which the commands are grouped.
pub(crate) fn command() -> Command {
    let command = Cli::command();
    let groups = groups(&command);
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}\nOptions:\n{{options}}{{after-help}}"
    ))
}

fn groups(command: &Command) -> String {
    let all: Vec<_> = command.get_subcommands().collect();
    let width = all.iter().map(|command| command.get_name().len()).max().unwrap_or(0);
    let mut text = String::new();
    for (title, names) in GROUPS {
        let named = |command: &&&Command| match names {
            [] => !GROUPS.iter().any(|(_, names)| names.contains(&command.get_name())),
            names => names.contains(&command.get_name()),
        };
        let mut members: Vec<_> = all.iter().filter(named).collect();
        members.sort_by_key(|command| names.iter().position(|name| *name == command.get_name()));
        if members.is_empty() {
            continue;
        }
        // Into memory, which takes all.
        let _ = writeln!(text, "{title}:");
        for command in members {
            let (name, about) = (command.get_name(), command.get_about());
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {name:<width$}  {}", about.trim_end_matches('.'));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group_and_its_line_is_whole() {
        let text = groups(&Cli::command());
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let lines = text.lines().filter(|line| line.split_whitespace().next() == Some(name));
            assert_eq!(lines.filter(|line| line.starts_with("  ")).count(), 1, "{name}: {text}");
            let groups = GROUPS.iter().filter(|(_, names)| names.contains(&name));
            assert_eq!(groups.count(), 1, "{name} is in no group, or in several");
        }
        for (_, names) in GROUPS {
            for name in *names {
                assert!(Cli::command().find_subcommand(name).is_some(), "{name} is no command");
            }
        }
        let help = command().render_help().to_string();
        assert!(help.contains("How is it:\n  status") && help.contains("Options:\n"), "{help}");
    }
}
