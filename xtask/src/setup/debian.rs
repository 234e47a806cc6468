//! Debian's packages.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::Profile;
use crate::terminal::Task;
use crate::{process, root};

/// A package, what it is for, and the profiles that need it.
struct Package {
    name: &'static str,
    why: &'static str,
    profiles: &'static [Profile],
}

const ALL: &[Profile] =
    &[Profile::Demo, Profile::Bench, Profile::Release, Profile::Test, Profile::Kernels];

const PACKAGES: &[Package] = &[
    Package { name: "build-essential", why: "compiles the bundled SQLite", profiles: ALL },
    Package { name: "iproute2", why: "lays out namespaces and bridges", profiles: ALL },
    Package {
        name: "containernetworking-plugins",
        why: "host-local and bridge, which guard works beside",
        profiles: ALL,
    },
    Package {
        name: "netsniff-ng",
        why: "its trafgen floods bridges",
        profiles: &[Profile::Bench, Profile::Test, Profile::Kernels],
    },
    Package {
        name: "musl-tools",
        why: "links programs that run on any distribution",
        profiles: &[Profile::Release],
    },
    Package { name: "iperf3", why: "measures what a bridge carries", profiles: &[Profile::Bench] },
    Package { name: "arpwatch", why: "guard is measured against it", profiles: &[Profile::Bench] },
    Package { name: "arpalert", why: "guard is measured against it", profiles: &[Profile::Bench] },
    Package {
        name: "python3-venv",
        why: "holds the Python peers",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "containerd",
        why: "the inventory of the scenarios",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "runc",
        why: "runs its containers",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "prometheus",
        why: "checks metrics, alert rules and the dashboard",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "systemd-container",
        why: "boots a Debian",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package { name: "mmdebstrap", why: "makes it", profiles: &[Profile::Test, Profile::Kernels] },
    Package {
        name: "lintian",
        why: "checks the package",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "systemd",
        why: "checks the unit",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "jq",
        why: "the guide's commands, which a test types",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "iputils-arping",
        why: "announces an address, as the guide and the runbook say",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "tcpdump",
        why: "captures what the guide replays",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "tmux",
        why: "the terminal of the tests",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "buildah",
        why: "builds the container image",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "golang-go",
        why: "compiles the controller in Go",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    // Before gRPC, which would as well take an earlier one that Go's generator is not for.
    Package {
        name: "golang-github-golang-protobuf-1-5-dev",
        why: "its messages",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "golang-google-grpc-dev",
        why: "its gRPC",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "protoc-gen-go-grpc",
        why: "its client",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "protoc-gen-go",
        why: "and what that sends",
        profiles: &[Profile::Test, Profile::Kernels],
    },
    Package {
        name: "iputils-ping",
        why: "whose answers show that a connection holds",
        profiles: &[Profile::Test],
    },
    Package {
        name: "dsniff",
        why: "its arpspoof and macof attack a bridge",
        profiles: &[Profile::Test],
    },
    Package {
        name: "ettercap-text-only",
        why: "so does it, in both families",
        profiles: &[Profile::Test],
    },
    Package { name: "thc-ipv6", why: "so do its tools, in IPv6", profiles: &[Profile::Test] },
    Package {
        name: "yersinia",
        why: "so does it, as switches and DHCP clients speak",
        profiles: &[Profile::Test],
    },
    Package { name: "nmap", why: "so does its nping", profiles: &[Profile::Test] },
    Package {
        name: "dnsmasq-base",
        why: "gives addresses by DHCP, by right and not",
        profiles: &[Profile::Test],
    },
    Package { name: "udhcpc", why: "takes one", profiles: &[Profile::Test] },
    Package { name: "isc-dhcp-client", why: "so does its dhclient", profiles: &[Profile::Test] },
    Package {
        name: "qemu-system-x86",
        why: "boots the kernels that guard supports",
        profiles: &[Profile::Kernels],
    },
    Package {
        name: "busybox-static",
        why: "runs in containers and guests",
        profiles: &[Profile::Test, Profile::Kernels],
    },
];

/// Installs what is missing; true if something was.
pub(super) fn ensure(profile: Profile) -> Result<bool> {
    let wanted = PACKAGES.iter().filter(|package| package.profiles.contains(&profile));
    let wanted: Vec<&Package> = wanted.collect();
    install(&missing(&wanted)?)
}

/// Installs npm, which only those need who have asked for what comes by it.
pub(super) fn ensure_npm() -> Result<bool> {
    install(&[&Package { name: "npm", why: "brings helm", profiles: &[] }])
}

fn install(missing: &[&Package]) -> Result<bool> {
    if missing.is_empty() {
        return Ok(false);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    root::require(&format!("install {}", names.join(", ")), "setup")?;

    let task = Task::start("Debian's package lists", "to install from");
    process::quiet(&task, apt_get().arg("update"))?;
    task.done();
    for package in missing {
        let task = Task::start(package.name, package.why);
        let mut install = apt_get();
        install.args(["install", "--yes", "--no-install-recommends", package.name]);
        process::quiet(&task, &mut install)?;
        task.done();
    }
    Ok(true)
}

fn missing<'a>(wanted: &[&'a Package]) -> Result<Vec<&'a Package>> {
    // It fails where a package is unknown, and still lists the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${binary:Package} ${db:Status-Status}\n"])
        .args(wanted.iter().map(|package| package.name))
        .output()
        .context("could not run `dpkg-query`: set-up knows Debian and its derivatives only")?;
    let listed = String::from_utf8_lossy(&output.stdout);
    Ok(wanted.iter().copied().filter(|package| !is_installed(&listed, package.name)).collect())
}

fn is_installed(listed: &str, name: &str) -> bool {
    listed.lines().filter_map(|line| line.split_once(' ')).any(|(package, status)| {
        // A multi-arch package is listed as `name:architecture`.
        package.split(':').next() == Some(name) && status == "installed"
    })
}

fn apt_get() -> Command {
    let mut command = process::tool("apt-get");
    // dpkg may be in use by an unattended upgrade for a while.
    command.args(["--quiet", "--option", "DPkg::Lock::Timeout=300"]);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_package_is_missing() {
        let listed = "iproute2 installed\nlibc6:amd64 installed\npython3-venv config-files\n";
        assert!(is_installed(listed, "iproute2"));
        assert!(is_installed(listed, "libc6"));
        assert!(!is_installed(listed, "python3-venv"));
        assert!(!is_installed(listed, "build-essential"));
    }
}
