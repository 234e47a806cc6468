//! The container runtime, `[inventory.containerd]`.

use std::path::PathBuf;

/// Where containers are and what their labels mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// containerd's socket.
    pub socket: PathBuf,
    /// The namespace of the containers.
    pub namespace: String,
    /// The label that names the sandbox.
    pub sandbox_label: String,
    /// The label that tells its runs apart.
    pub lifecycle_label: String,
    /// What the labels that name addresses begin with.
    pub address_label: String,
}
