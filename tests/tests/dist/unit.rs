//! The systemd unit, by systemd's own tools. Under a running systemd: `cargo xtask test package`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use guard_tests::{checked, dist};

const UNIT: &str = "systemd/guard-agent.service";
const SOCKET: &str = "systemd/guard-agent.socket";

/// Exposure in tenths: a user with the four capabilities.
const MOST_EXPOSED: &str = "--threshold=17";

#[test]
fn systemd_has_nothing_to_say_about_the_unit() -> Result<()> {
    let dir = tempfile::tempdir()?;
    // The programs are not installed here; what is checked is the rest.
    let text = fs::read_to_string(dist(UNIT))?.replace("/usr/sbin/guard-agent", "/bin/true");
    let unit = dir.path().join("guard-agent.service");
    fs::write(&unit, text)?;
    let socket = dir.path().join("guard-agent.socket");
    fs::copy(dist(SOCKET), &socket)?;
    let mut verify = Command::new("systemd-analyze");
    assert_eq!(checked(verify.args(["verify", "--man=no"]).arg(&unit).arg(&socket), b"")?, "");
    let mut security = Command::new("systemd-analyze");
    let said =
        checked(security.args(["security", "--offline=true", MOST_EXPOSED]).arg(&unit), b"")?;
    println!("{}", said.lines().last().unwrap_or_default());
    Ok(())
}

#[test]
fn the_socket_is_where_the_configuration_is_by_default() -> Result<()> {
    let (unit, defaults) =
        (fs::read_to_string(dist(SOCKET))?, include_str!("../../../docs/agent.toml"));
    let listens = unit.lines().filter_map(|line| line.strip_prefix("ListenStream="));
    let says = |key: &str| {
        let line = defaults.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.map(|value| value.trim_matches('"')).with_context(|| key.to_owned())
    };
    assert_eq!(listens.collect::<Vec<_>>(), [says("socket")?, says("http")?]);
    Ok(())
}

#[test]
fn the_unit_gives_the_four_capabilities_and_no_more() -> Result<()> {
    let text = fs::read_to_string(dist(UNIT))?;
    for setting in ["CapabilityBoundingSet=", "AmbientCapabilities="] {
        let line = text.lines().find_map(|line| line.strip_prefix(setting));
        let given: BTreeSet<_> = line.context(setting)?.split(' ').collect();
        let wanted = ["CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_PERFMON"];
        assert_eq!(given, wanted.into(), "{setting}");
    }
    for setting in [
        "User=guard",
        "NoNewPrivileges=yes",
        "SecureBits=noroot noroot-locked",
        "LimitCORE=0",
        "IPAddressDeny=any",
    ] {
        assert!(text.lines().any(|line| line == setting), "{setting}");
    }
    assert!(text.contains("\nMemoryMax=") && text.contains("\nTasksMax="));
    Ok(())
}
