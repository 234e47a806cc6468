//! Files that others name: regular ones only, and no link in their place. What else has a name, a pipe, a
//! device, may never answer.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use guard_api::{bounds::Bound, files};
use nix::libc::{O_NOCTTY, O_NOFOLLOW, O_NONBLOCK};

/// Opens a file for reading.
///
/// # Errors
/// It is no regular file, or cannot be read.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // A pipe would wait for a writer.
    let flags = O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

/// Reads a text of at most so many bytes.
///
/// # Errors
/// As [`open`], or it is longer, or not UTF-8.
pub(crate) fn read_text(path: &Path, most: Bound) -> io::Result<String> {
    files::read_from(open(path)?, "the file", most)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use guard_api::bounds;
    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn a_regular_file_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let most = bounds::RESERVATION;
        fs::write(at("file"), "12345").unwrap();
        fs::write(at("long"), "1".repeat(most.most + 1)).unwrap();
        symlink(at("file"), at("link")).unwrap();
        mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        assert_eq!(read_text(&at("file"), most).unwrap(), "12345");
        assert!(read_text(&at("long"), most).is_err());
        for other in [at("link"), at("pipe"), at("none"), dir.path().to_owned(), "/dev/zero".into()]
        {
            assert!(open(&other).is_err(), "{}", other.display());
        }
    }
}
