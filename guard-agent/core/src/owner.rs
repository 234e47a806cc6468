//! Whose a lease is.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Who holds a lease. A sandbox that stops and starts again keeps its name and gets a new
/// lifecycle, and for a while both can exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// The sandbox's name.
    pub sandbox: Arc<str>,
    /// One run of it; empty where the controller does not tell runs apart.
    pub lifecycle: Arc<str>,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sandbox)?;
        if self.lifecycle.is_empty() { Ok(()) } else { write!(f, "/{}", self.lifecycle) }
    }
}
