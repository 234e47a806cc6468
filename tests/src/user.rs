//! Becoming another user.

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// Makes this process one of another user, by numbers; the groups have commas between them.
///
/// # Errors
/// It may not, or they are no numbers.
pub fn become_user(uid: &str, gid: &str, groups: &str) -> Result<()> {
    let groups: Vec<Gid> = groups
        .split(',')
        .filter(|gid| !gid.is_empty())
        .map(|gid| gid.parse().map(Gid::from_raw))
        .collect::<Result<_, _>>()
        .context("GROUPS")?;
    setgroups(&groups).context("setgroups")?;
    setgid(Gid::from_raw(gid.parse().context("GID")?)).context("setgid")?;
    setuid(Uid::from_raw(uid.parse().context("UID")?)).context("setuid")
}
