//! `cargo xtask chart`: the Helm chart, rendered and held against the schemas of Kubernetes. No
//! cluster is asked.

use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result};

use crate::{process, setup, terminal};

const CHART: &str = "guard-agent/dist/helm/guard";

/// The oldest that the chart names, and the newest that there is a schema of.
const KUBERNETES: [&str; 2] = ["1.25", "1.37"];

/// Ways to set it that change what is rendered.
const SETTINGS: [&[&str]; 3] = [
    &[],
    &["cni.install=false", "privileged=true"],
    &[
        "containerd.enabled=true",
        "podLabels.team=net",
        "podAnnotations.note=x",
        "imagePullSecrets[0].name=registry",
        "image.tag=1.2.3",
    ],
];

const CONFIG: &str = "import sys, yaml; print(yaml.safe_load(sys.stdin)['data']['agent.toml'])";

/// Fails where a check has something to say.
pub(crate) fn run() -> Result<()> {
    let tools = setup::chart()?;
    let helm = || process::tool(tools.helm());
    process::shown(helm().args(["lint", "--strict", "--quiet", CHART]))?;
    let scratch = tempfile::tempdir().context("could not make a directory")?;
    for settings in SETTINGS {
        let mut template = helm();
        template.args(["template", "guard", CHART, "--namespace", "guard"]);
        for setting in settings {
            template.args(["--set", setting]);
        }
        let manifest = scratch.path().join("manifest.yaml");
        fs::write(&manifest, process::read(&mut template)?)?;
        for version in KUBERNETES {
            let mut validate = process::tool(tools.python("kubernetes-validate"));
            validate.args(["--strict", "--quiet", "--kubernetes-version", version]).arg(&manifest);
            process::shown(&mut validate).with_context(|| settings.join(","))?;
        }
    }
    the_agent_takes_its_configuration(&tools, scratch.path())?;
    let (ways, versions) = (SETTINGS.len(), KUBERNETES.join(" and "));
    terminal::line(&format!("{CHART}: good in {ways} ways, for Kubernetes {versions}"));
    Ok(())
}

fn the_agent_takes_its_configuration(
    tools: &setup::Chart,
    scratch: &std::path::Path,
) -> Result<()> {
    let mut template = process::tool(tools.helm());
    template.args(["template", "guard", CHART, "--show-only", "templates/configmap.yaml"]);
    let map = scratch.join("configmap.yaml");
    fs::write(&map, process::read(&mut template)?)?;
    let mut read = process::tool(tools.python("python"));
    let output = read.args(["-c", CONFIG]).stdin(Stdio::from(fs::File::open(map)?)).output()?;
    let file = scratch.join("agent.toml");
    fs::write(&file, output.stdout)?;
    process::shown(process::build().arg("--quiet"))?;
    let own = std::env::current_exe().context("could not find out where this program is")?;
    let agent = own.with_file_name("guard-agent");
    process::shown(process::tool(agent).arg("check-config").arg(file))
}
