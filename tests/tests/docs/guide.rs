//! The guide and the README, each typed from top to bottom on a machine of its own: namespaces for
//! mounts, network and processes, in which `/etc`, `/run`, `/var/lib` and `/tmp` begin anew.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result};
use guard_tests::{binary, peers_python, require_root};

use crate::{blocks, read, top};

/// What makes the machine, with a clone of what the documents name, before the first line is typed.
const MACHINE: &str = "
mkdir $DIR/upper $DIR/work
mount -t overlay -o lowerdir=/etc,upperdir=$DIR/upper,workdir=$DIR/work overlay /etc
for dir in /run /var/lib /tmp; do mount -t tmpfs tmpfs $dir; done
mkdir /run/netns
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
mkdir /tmp/clone
cd /tmp/clone
ln -s $TOP/guard-agent $TOP/docs .
";

/// What the README takes for granted.
const BRIDGE: &str = "
ip link add br0 type bridge
ip address add 10.8.64.1/24 dev br0
ip link set br0 up
";

/// What comes of a line that serves until it is stopped: the other terminal may go on.
const SERVE: &str = " 2> /tmp/log &\nuntil guardctl status; do kill -0 $!; sleep 0.1; done";

/// How long a command is followed that would go on until somebody ends it.
const FOLLOW: &str = "timeout --preserve-status --signal INT 5";

/// What is typed, in one shell that ends with the first command that fails.
fn script(document: &str) -> Result<String> {
    let mut script = String::new();
    for (info, block) in blocks(document) {
        match info.as_str() {
            "sh" => script.push_str(&block),
            "sh serve" => {
                for line in block.lines() {
                    let ends = if line.contains(" run ") { SERVE } else { "" };
                    writeln!(script, "{line}{ends}")?;
                }
            }
            "sh follow" => {
                for line in block.lines() {
                    writeln!(script, "{FOLLOW} {line}")?;
                }
            }
            "toml file" => write!(script, "cat > /etc/guard/agent.toml <<'END'\n{block}END\n")?,
            // Shown: what is printed, and what is written by others or elsewhere.
            "" | "console" | "toml" | "json" | "python" | "go" | "sh no-run" => {}
            info => anyhow::bail!("nobody knows what to do with a block of {info:?}"),
        }
    }
    Ok(script)
}

/// Types it, and returns what was printed.
fn typed(script: &str) -> Result<String> {
    require_root()?;
    let (bins, python) = (binary("guardctl")?, peers_python()?);
    let (bins, python) = (bins.parent().context("a place")?, python.parent().context("a place")?);
    let dir = tempfile::tempdir()?;
    let path = std::env::var("PATH").context("PATH")?;
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["bash", "-e", "-u", "-x", "-o", "pipefail", "-c", &format!("{MACHINE}{script}")])
        .env("DIR", dir.path())
        .env("TOP", top().canonicalize()?)
        .env("PATH", format!("{}:{}:{path}", bins.display(), python.display()))
        // Ours is not there on a machine whose `/tmp` begins anew.
        .env("TMPDIR", "/tmp")
        .env_remove("GUARD_SOCKET")
        .output()
        .context("cannot start unshare")?;
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    Ok(format!("{stdout}\n{stderr}"))
}

#[test]
fn the_guide_can_be_typed_from_top_to_bottom() -> Result<()> {
    let script = script(&read("docs/guide.md")?)?;
    assert!(script.matches("guardctl ").count() > 30, "{script}");
    let printed = typed(&script)?;
    let shown = [
        "the program is on 2 of 2 ports",
        "impostor",
        "silenced until",
        "arp from",
        "of other ports:",
        "releasing",
        "conflict.opened",
        "/24 via 10.8.64.1",
        "OUTCOME_COOLING",
        "frames on",
    ];
    for shown in shown {
        assert!(printed.contains(shown), "{shown} is not in:\n{printed}");
    }
    Ok(())
}

#[test]
fn the_readme_can_be_typed_from_top_to_bottom() -> Result<()> {
    let script = script(&read("README.md")?)?;
    let checks = "kill %1\nwait %1\ntest -s guard/v1/guard_pb2_grpc.py\n";
    let printed = typed(&format!("{BRIDGE}{script}{checks}"))?;
    for shown in ["agent.toml: good", "the program is on 0 of 0 ports", "10.8.64.2"] {
        assert!(printed.contains(shown), "{shown} is not in:\n{printed}");
    }
    Ok(())
}
