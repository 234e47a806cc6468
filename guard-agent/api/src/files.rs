//! Files that somebody names: never more of one is read than makes sense.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use crate::bounds::Bound;

/// `include/uapi/asm-generic/fcntl.h`: a pipe would wait for a writer.
const O_NONBLOCK: i32 = 0o4000;

/// Reads a file to its end.
///
/// # Errors
/// It cannot be read, is no text, or has more than that: then the bound is named.
pub fn read(path: &Path, bound: Bound) -> io::Result<String> {
    read_from(File::open(path)?, "the file", bound)
}

/// Reads a regular file, or one that a link leads to: `/etc/resolv.conf` is often a link, and so is what
/// Kubernetes mounts.
///
/// # Errors
/// As [`read`], or it is something else.
pub fn read_regular(path: &Path, bound: Bound) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    read_from(file, "the file", bound)
}

/// As [`read`], from what is open already.
///
/// # Errors
/// As [`read`]; `object` is what the error says that there is too much of.
pub fn read_from(file: impl Read, object: &str, bound: Bound) -> io::Result<String> {
    let mut text = String::new();
    let one_more = u64::try_from(bound.most).unwrap_or(u64::MAX).saturating_add(1);
    file.take(one_more).read_to_string(&mut text)?;
    bound.check(object, text.len()).map_err(io::Error::other)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::RESERVATION;

    #[test]
    fn a_file_that_never_ends_is_read_as_far_as_its_bound() {
        let read = |text: io::Repeat| read_from(text, "the file", RESERVATION);
        let error = read(io::repeat(b'x')).unwrap_err();
        assert_eq!(error.to_string(), "the file: more than 4096 bytes");
        let whole = read_from(io::repeat(b'x').take(4096), "the file", RESERVATION);
        assert_eq!(whole.unwrap().len(), 4096);
    }
}
