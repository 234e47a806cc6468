//! An image for the containers: an OCI layout of one layer, made by hand, since there is no
//! registry.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Containerd;
use crate::command::output;

/// Works on every file system, overlays among them.
pub(super) const SNAPSHOTTER: &str = "native";

const NAME: &str = "lab.test/busybox:1";

/// Makes the image known to containerd, once, and returns its name.
pub(super) fn import(containerd: &Containerd) -> Result<String> {
    let layout = containerd.dir.join("image");
    if !layout.exists() {
        make(&layout, &containerd.rootfs())?;
        let archive = containerd.dir.join("image.tar");
        pack(&archive, &layout)?;
        // The first container unpacks it: later versions import for their own snapshotter only.
        let import = ["image", "import", "--no-unpack"];
        containerd.ctr(&[&import[..], &[&*archive.to_string_lossy()]].concat())?;
    }
    Ok(NAME.to_owned())
}

fn make(layout: &Path, rootfs: &Path) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).context("an image's blobs")?;
    let layer = layout.join("layer.tar");
    pack(&layer, rootfs)?;
    let (layer, size) = blob(&blobs, &layer)?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    });
    let config = document(&blobs, "image.config.v1", &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "config": config,
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer,
            "size": size,
        }],
    });
    let mut manifest = document(&blobs, "image.manifest.v1", &manifest)?;
    manifest["annotations"] = json!({ "io.containerd.image.name": NAME });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string()).context("an image's index")?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .context("an image's layout")
}

/// Stores a document, and returns what names it.
fn document(blobs: &Path, kind: &str, document: &Value) -> Result<Value> {
    let file = blobs.join("document");
    fs::write(&file, document.to_string()).context("a document of an image")?;
    let (digest, size) = blob(blobs, &file)?;
    let media_type = format!("application/vnd.oci.{kind}+json");
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": size }))
}

/// Moves a file to where its digest says, and returns both its digest and its size.
fn blob(blobs: &Path, file: &Path) -> Result<(String, u64)> {
    let summed = output(Command::new("sha256sum").arg(file))?;
    let digest = summed.split_whitespace().next().context("sha256sum says nothing")?;
    let size = fs::metadata(file).context("a blob")?.len();
    fs::rename(file, blobs.join(digest)).context("a blob's place")?;
    Ok((format!("sha256:{digest}"), size))
}

fn pack(archive: &Path, dir: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    output(tar.arg("--create").arg("--file").arg(archive).arg("--directory").arg(dir).arg("."))
        .map(drop)
}
