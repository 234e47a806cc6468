//! The guide, typed from top to bottom on a machine of its own: namespaces for mounts, network and
//! processes, in which `/etc`, `/run`, `/var/lib` and `/tmp` begin anew.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result};
use guard_tests::{binary, require_root};

use crate::{blocks, read};

/// What makes the machine, before the first line of the guide.
const MACHINE: &str = "
mkdir $DIR/upper $DIR/work
mount -t overlay -o lowerdir=/etc,upperdir=$DIR/upper,workdir=$DIR/work overlay /etc
for dir in /run /var/lib /tmp; do mount -t tmpfs tmpfs $dir; done
mkdir /run/netns
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
cd /tmp
";

/// How long a command is followed that would go on until somebody ends it.
const FOLLOW: &str = "timeout --preserve-status --signal INT 2";

/// What is typed, in one shell that ends with the first command that fails.
fn script(guide: &str) -> Result<String> {
    let mut script = String::from(MACHINE);
    for (info, block) in blocks(guide) {
        match info.as_str() {
            "sh" => script.push_str(&block),
            "sh follow" => {
                for line in block.lines() {
                    writeln!(script, "{FOLLOW} {line}")?;
                }
            }
            // Shown: what is printed, and what is written by others or elsewhere.
            "console" | "toml" | "json" | "python" | "go" | "sh no-run" => {}
            info => anyhow::bail!("nobody knows what to do with a block of {info:?}"),
        }
    }
    Ok(script)
}

#[test]
fn the_guide_can_be_typed_from_top_to_bottom() -> Result<()> {
    require_root()?;
    let script = script(&read("docs/guide.md")?)?;
    assert!(script.matches("guardctl ").count() > 30, "{script}");
    let bins = binary("guardctl")?.parent().context("a directory")?.to_owned();
    let dir = tempfile::tempdir()?;
    let path = std::env::var("PATH").context("PATH")?;
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["bash", "-e", "-u", "-x", "-o", "pipefail", "-c", &script])
        .env("DIR", dir.path())
        .env("PATH", format!("{}:{path}", bins.display()))
        .env_remove("GUARD_SOCKET")
        .output()
        .context("cannot start unshare")?;
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    for shown in ["the program is on 2 of 2 ports", "impostor", "releasing", "conflict.opened"] {
        assert!(stdout.contains(shown), "{shown} is not in:\n{stdout}\n{stderr}");
    }
    Ok(())
}
