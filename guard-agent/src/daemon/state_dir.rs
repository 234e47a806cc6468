//! The state directory: nobody else writes there, and nobody else reads what is in it.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    sys::stat::{Mode, umask},
    unistd::geteuid,
};

/// What the agent makes in its state directory.
const OURS: [&str; 3] = ["leases.db", "incidents.db", "port-modes.json"];

/// Others could put a store of theirs in the place of ours.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateDirError {
    /// Another user's.
    #[error(
        "state_dir {path} belongs to uid {owner}, and the agent runs as uid {own}; give it to the \
         agent, or set state_dir to another directory"
    )]
    NotOurs {
        /// Which one.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who the agent is.
        own: u32,
    },
    /// Others may make files in it.
    #[error(
        "state_dir {path} can be written by others (mode {mode:04o}); `chmod go-w` it, or set \
         state_dir to a directory for the agent alone"
    )]
    Writable {
        /// Which one.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// From now on what the agent makes is for itself alone, where it does not say otherwise.
pub fn keep_to_ourselves() {
    umask(Mode::from_bits_truncate(0o077));
}

/// Makes the state directory, or sees that an existing one is the agent's own; files from before are
/// closed to others. A disk that cannot be written is the store's to tell.
///
/// # Errors
/// It is not for the agent alone.
pub(super) fn prepare(path: &Path) -> anyhow::Result<()> {
    match fs::create_dir_all(path) {
        Err(error) if !is_of_the_disk(&error) => {
            let what = format!("cannot make state_dir {}", path.display());
            return Err(anyhow::Error::new(error).context(what));
        }
        _ => {}
    }
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    let (owner, own, mode) = (found.uid(), geteuid().as_raw(), found.mode() & 0o7777);
    if owner != own {
        return Err(StateDirError::NotOurs { path: path.to_owned(), owner, own }.into());
    }
    if mode & 0o022 != 0 {
        return Err(StateDirError::Writable { path: path.to_owned(), mode }.into());
    }
    close_files(path);
    Ok(())
}

fn is_of_the_disk(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::ReadOnlyFilesystem)
}

fn close_files(state_dir: &Path) {
    for entry in fs::read_dir(state_dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = OURS.iter().any(|ours| name.to_string_lossy().starts_with(ours));
        let open = entry.metadata().is_ok_and(|it| it.is_file() && it.mode() & 0o077 != 0);
        if ours && open {
            let (path, mode) = (entry.path(), fs::Permissions::from_mode(0o600));
            match fs::set_permissions(&path, mode) {
                Ok(()) => tracing::info!(path = %path.display(), "closed to others from now on"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "others can read this file");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_could_read_is_closed_and_what_is_not_ours_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("leases.db-wal");
        let other = directory.path().join("notes");
        for file in [&store, &other] {
            fs::write(file, "").unwrap();
            set_mode(file, 0o644);
        }
        set_mode(directory.path(), 0o755);
        prepare(directory.path()).unwrap();
        assert_eq!((mode_of(&store), mode_of(&other)), (0o600, 0o644));
        assert_eq!(mode_of(directory.path()), 0o755, "it may hold more than ours");
    }

    #[test]
    fn a_directory_that_others_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o777, 0o775, 0o1777] {
            set_mode(directory.path(), mode);
            let error = prepare(directory.path()).unwrap_err().to_string();
            assert!(error.contains("can be written by others"), "{error}");
        }
        set_mode(directory.path(), 0o700);
        prepare(directory.path()).unwrap();
    }
}
