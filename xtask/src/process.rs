//! How the workshop runs other programs.

use std::collections::VecDeque;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::terminal::Task;

/// How much of a failed command's output is worth repeating.
const TAIL: usize = 40;

/// A program that runs at the top of the repository and finds what cargo has installed, also
/// where cargo's directory is missing from the caller's PATH.
pub(crate) fn tool(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(crate::top()).env("PATH", path());
    command
}

/// Where `cargo install` puts programs.
pub(crate) fn cargo_bin() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
        .map(|home| home.join("bin"))
}

fn path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let Some(bin) = cargo_bin() else { return path };
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    if !dirs.contains(&bin) {
        dirs.push(bin);
    }
    // Only a directory with a colon in its name cannot be joined.
    env::join_paths(dirs).unwrap_or(path)
}

/// Runs a command and returns its standard output.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not run `{}`", describe(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", describe(command), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command whose output nobody needs unless it fails; its last line is the task's progress.
pub(crate) fn quiet(task: &Task, command: &mut Command) -> Result<()> {
    let (output, writer) = io::pipe().context("could not make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn();
    // The command holds the pipe's writing ends, and reading would never end while it lives.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.with_context(|| format!("could not run `{}`", describe(command)))?;

    let mut tail = VecDeque::with_capacity(TAIL);
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim().to_owned();
        task.progress(&line);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    let status = child.wait()?;
    if !status.success() {
        let tail = Vec::from(tail).join("\n");
        bail!("`{}` failed ({status}); its last lines:\n{tail}", describe(command));
    }
    Ok(())
}

/// Runs a command whose output is for the reader.
pub(crate) fn shown(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("could not run `{}`", describe(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", describe(command));
    }
    Ok(())
}

/// The command as a person would type it. PATH is left out: theirs serves as well.
pub(crate) fn describe(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter(|(name, _)| *name != "PATH")
        .filter_map(|(name, value)| Some(format!("{}={}", name.display(), quoted(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.is_empty()
        || word.contains(|c: char| c.is_whitespace() || "'\"$`\\*?;&|<>()".contains(c))
    {
        format!("'{}'", word.replace('\'', r"'\''"))
    } else {
        word.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_described_command_can_be_typed() {
        let mut command = tool("cargo");
        command.args(["doc", "it's"]).env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(describe(&command), r"RUSTDOCFLAGS='-D warnings' cargo doc 'it'\''s'");
    }

    #[test]
    fn a_failure_repeats_what_the_command_said() {
        let task = Task::start("test", "nothing");
        let error = quiet(&task, tool("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("out\nerr"), "{error}");
    }
}
