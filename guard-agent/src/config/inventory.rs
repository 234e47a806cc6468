//! Who is asked what there is.

use std::path::PathBuf;

use super::containerd;

/// Who is to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The container runtime.
    pub containerd: Option<containerd::Settings>,
    /// The socket of the controller's directory.
    pub directory: Option<PathBuf>,
}
