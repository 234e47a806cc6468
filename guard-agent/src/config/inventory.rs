//! Who is asked what there is.

use std::path::PathBuf;

use super::containerd;

/// Who is to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The container runtime.
    pub containerd: Option<containerd::Settings>,
    /// The controller's directory.
    pub directory: Option<Directory>,
}

/// The controller's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Where it serves.
    pub socket: PathBuf,
    /// The user that has to serve there; `None`: any.
    pub uid: Option<u32>,
}
