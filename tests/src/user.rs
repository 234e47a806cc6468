//! Becoming another user.

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// The bytes that an argument has, in digits.
///
/// # Errors
/// They are none.
pub fn of_hex(text: &str) -> Result<Vec<u8>> {
    let byte = |at| text.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    (0..text.len()).step_by(2).map(byte).collect::<Option<_>>().context("no hexadecimal digits")
}

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
