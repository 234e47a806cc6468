//! Runs `cargo test` and counts what it ran, because a run that finds no test passes as well.

use std::io::{self, Read as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::process;

/// Runs `cargo test`, passing its output through, and adds one line with the sum of all binaries.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not run `{}`", process::describe(command)))?;
    let mut output = child.stdout.take().context("cargo test has no standard output")?;
    let mut text = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        // As it comes, and not by lines: a slow test's name is to be seen while it runs.
        let read = output.read(&mut buffer).context("could not read from cargo test")?;
        let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
        let mut stdout = io::stdout().lock();
        stdout.write_all(chunk).and_then(|()| stdout.flush()).context("could not pass it on")?;
        text.extend_from_slice(chunk);
    }
    let status = child.wait()?;
    let total = Total::of(&String::from_utf8_lossy(&text));
    println!("tests: {} passed, {} failed, {} skipped", total.passed, total.failed, total.ignored);
    if !status.success() {
        bail!("`{}` failed ({status})", process::describe(command));
    }
    ensure!(total.passed > 0, "`{}` ran no test", process::describe(command));
    Ok(())
}

/// The sum of the `test result:` lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Total {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Total {
    fn of(output: &str) -> Self {
        let mut total = Self::default();
        let results = output.lines().filter_map(|line| line.strip_prefix("test result: "));
        for part in results.flat_map(|result| result.split([';', '.'])) {
            let mut words = part.split_whitespace();
            let Some(count) = words.next().and_then(|count| count.parse::<u64>().ok()) else {
                continue;
            };
            match words.next() {
                Some("passed") => total.passed += count,
                Some("failed") => total.failed += count,
                Some("ignored") => total.ignored += count,
                _ => {}
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::Total;

    #[test]
    fn results_are_added_up() {
        let output = "running 3 tests\ntest a ... ok\n\
            test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; \
            finished in 2.01s\n\
            test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; \
            finished in 0.00s\n";
        assert_eq!(Total::of(output), Total { passed: 8, failed: 1, ignored: 1 });
    }

    #[test]
    fn nothing_ran_is_seen() {
        assert_eq!(Total::of("error: could not compile\n"), Total::default());
    }
}
