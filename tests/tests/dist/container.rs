//! The container image: built of the package as its file says, on a Debian that stands in for the
//! registry's, and run by containerd with what the DaemonSet gives it and no more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use guard_tests::{BRIDGE, Lab, POOL, binary, checked, dist, eventually, run};
use serde_json::Value;

use crate::service::package;

const TEMPLATE: &str = "helm/guard/templates/daemonset.yaml";

/// What `ctr` gives a container that Kubernetes is told to drop all of.
const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// buildah, with a storage of its own that is nothing but directories.
struct Builder {
    environment: [String; 2],
}

impl Builder {
    fn new(dir: &Path) -> Result<Self> {
        let settings = dir.join("storage.conf");
        let path = |name| dir.join(name);
        let text = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            path("storage"),
            path("run")
        );
        fs::write(&settings, text)?;
        let settings = format!("CONTAINERS_STORAGE_CONF={}", settings.display());
        Ok(Self { environment: [settings, format!("TMPDIR={}", dir.display())] })
    }

    fn buildah(&self, args: &[&str]) -> Result<String> {
        let [settings, directory] = &self.environment;
        Ok(run("env", &[&[settings, directory, "buildah"], args].concat())?.trim().to_owned())
    }

    /// Debian, by the name that the file begins with.
    fn base(&self) -> Result<()> {
        let home = std::env::home_dir().context("no home directory")?;
        let debian = home.join(".cache/guard/rootfs").to_string_lossy().into_owned();
        let base = self.buildah(&["from", "scratch"])?;
        self.buildah(&["copy", "--quiet", &base, &debian, "/"])?;
        let name = "localhost/debian:bookworm-slim";
        self.buildah(&["commit", "--quiet", "--rm", &base, name]).map(drop)
    }

    /// The image's root, and what a container of it runs.
    fn image(&self, packages: &Path) -> Result<(PathBuf, Vec<String>)> {
        let file = dist("container/Containerfile").to_string_lossy().into_owned();
        let packages = packages.to_string_lossy();
        let build = ["build", "--quiet", "--pull-never", "--isolation=chroot"];
        self.buildah(&[&build[..], &["--tag=guard", "--file", &file, &packages]].concat())?;
        let about = self.buildah(&["inspect", "--type=image", "guard"])?;
        let about: Value = serde_json::from_str(&about)?;
        let words = ["Entrypoint", "Cmd"].map(|key| about["OCIv1"]["config"][key].clone());
        let words = words.into_iter().map(serde_json::from_value::<Vec<String>>);
        let words = words.collect::<Result<Vec<_>, _>>()?.concat();
        let container = self.buildah(&["from", "--pull-never", "guard"])?;
        Ok((self.buildah(&["mount", &container])?.into(), words))
    }
}

/// `securityContext` in the words of `ctr`.
fn restricted(added: &[&str]) -> Vec<String> {
    let mut options = vec!["--read-only".to_owned(), "--seccomp".to_owned()];
    for dropped in DEFAULT.iter().filter(|capability| !added.contains(capability)) {
        options.extend(["--cap-drop".to_owned(), format!("CAP_{dropped}")]);
    }
    for added in added.iter().filter(|capability| !DEFAULT.contains(capability)) {
        options.extend(["--cap-add".to_owned(), format!("CAP_{added}")]);
    }
    options
}

fn mount(from: &Path, to: &str, options: &str) -> [String; 2] {
    let mount = format!("type=bind,src={},dst={to},options={options}", from.display());
    ["--mount".to_owned(), mount]
}

#[test]
fn the_image_is_built_offline_and_runs_with_what_the_daemonset_gives() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let builder = Builder::new(dir.path())?;
    let packages = dir.path().join("packages");
    package(&packages, 1)?;
    builder.base()?;
    let (root, words) = builder.image(&packages)?;
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    assert_eq!(words, ["/usr/sbin/guard-agent", "run", "--config", "/etc/guard/agent.toml"]);

    let lab = Lab::new()?;
    let containerd = lab.containerd()?;
    let template = fs::read_to_string(dist(TEMPLATE))?;
    installs_the_plugin(&lab, &template, |options, words| {
        containerd.run_to_end("install-cni", &[restricted(&[]), options].concat(), &root, words)
    })?;

    let added = template.lines().find_map(|line| line.trim().strip_prefix("add: ["));
    let added = added.and_then(|line| line.strip_suffix(']')).context("no capabilities")?;
    let mut options = restricted(&added.split(", ").collect::<Vec<_>>());
    options.extend(["--with-ns".to_owned(), format!("network:{}", lab.host().path().display())]);
    let [etc, state, socket] =
        ["etc", "state", "run"].map(|name| dir.path().join("node").join(name));
    for dir in [&etc, &state, &socket] {
        fs::create_dir_all(dir)?;
    }
    let config = format!(
        "[[bridge]]\nname = {BRIDGE:?}\n\
         [[pool]]\nname = {POOL:?}\nbridge = {BRIDGE:?}\nprefix = \"{}\"\n",
        lab.prefix().trunc()
    );
    fs::write(etc.join("agent.toml"), config)?;
    options.extend(mount(&etc, "/etc/guard", "rbind:ro"));
    let pins = lab.dir().join("bpf/guard");
    fs::create_dir(&pins)?;
    // In sysfs there is no directory to mount it on.
    let above = dir.path().join("above");
    fs::create_dir(&above)?;
    options.extend(mount(&above, "/sys/fs/bpf", "rbind:rw"));
    options.extend(mount(&pins, "/sys/fs/bpf/guard", "rbind:rw"));
    options.extend(mount(&state, "/var/lib/guard", "rbind:rw"));
    options.extend(mount(&socket, "/run/guard", "rbind:rw"));

    let (program, socket) = (binary("guardctl")?, socket.join("guard.sock"));
    let guardctl = |args: &[&str]| -> Result<Value> {
        let always = ["--socket", &socket.to_string_lossy(), "-o", "json"];
        let printed = run(&program.to_string_lossy(), &[&always, args].concat())?;
        serde_json::from_str(&printed).context(printed)
    };
    let ready = || {
        eventually("a ready agent", || {
            Ok(guardctl(&["status", "--live"])
                .ok()
                .filter(|status| status["ready"] == true)
                .map(drop))
        })
    };
    containerd.run_on("first", &options, &root, &words)?;
    ready()?;
    let owner = lab.sandbox("owner")?;
    let lease = guardctl(&["allocate", "--pool", POOL, "--sandbox", "owner"])?;
    let generation = lease["generation"].to_string();
    let (mac, port) = (owner.mac().to_string(), owner.port());
    let bind = ["bind", "--generation", &generation, "--mac", &mac, "--interface", port];
    let bound = guardctl(&bind)?;
    assert_eq!(bound["lease"]["interface"], port, "{bound}");
    // The next pod goes on where the last one was.
    containerd.remove("first")?;
    assert!(!lab.programs_on(port)?.is_empty(), "the program is to go on watching");
    containerd.run_on("second", &options, &root, &words)?;
    ready()?;
    let leases = guardctl(&["leases", "--sandbox", "owner"])?;
    assert_eq!(leases["leases"][0]["generation"], lease["generation"], "{leases}");
    containerd.remove("second")
}

/// As the init container does.
fn installs_the_plugin(
    lab: &Lab,
    template: &str,
    run: impl FnOnce(Vec<String>, &[&str]) -> Result<String>,
) -> Result<()> {
    let lines = template.lines().map(str::trim).filter(|line| line.contains(" /host/cni/"));
    let script = lines.collect::<Vec<_>>().join("\n");
    let plugins = lab.dir().join("cni-bin");
    fs::create_dir(&plugins)?;
    let options = mount(&plugins, "/host/cni", "rbind:rw").to_vec();
    run(options, &["/bin/sh", "-ec", &script])?;
    let mut plugin = Command::new(plugins.join("guard-ipam"));
    plugin.env("CNI_COMMAND", "VERSION");
    let told = checked(&mut plugin, b"{\"cniVersion\":\"1.0.0\"}")?;
    assert!(told.contains("supportedVersions"), "{told}");
    Ok(())
}
