//! A VFS of SQLite's that tells a [`Disk`] what is done to its files: `unix`, with some of its
//! methods replaced.
#![expect(unsafe_code, reason = "SQLite calls it")]

use std::{
    ffi::{CStr, OsStr, c_char, c_int, c_void},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    ptr, slice,
    sync::{Arc, Once, OnceLock},
};

use rusqlite::ffi::{
    self, SQLITE_CANTOPEN, SQLITE_IOERR_DELETE, SQLITE_IOERR_FSYNC, SQLITE_IOERR_READ,
    SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_WRITE, SQLITE_OK, SQLITE_OPEN_MAIN_DB,
    SQLITE_OPEN_MAIN_JOURNAL, SQLITE_OPEN_WAL, sqlite3_file, sqlite3_io_methods, sqlite3_vfs,
};

use super::disk::{Change, Disk, Off};

/// What is done by `unix`.
struct Base(*mut sqlite3_vfs);

// SAFETY: SQLite's VFS is used by all threads, and this one lives as long as the process.
unsafe impl Send for Base {}
// SAFETY: as above; nothing is written through the pointer.
unsafe impl Sync for Base {}

static BASE: OnceLock<Base> = OnceLock::new();

/// A file of a disk. A pointer to it stands behind what `unix` has of the file.
struct Tracked {
    /// Those of `unix`, with ours in the place of some.
    methods: sqlite3_io_methods,
    unix: *const sqlite3_io_methods,
    disk: Arc<Disk>,
    path: PathBuf,
    /// Its first sync puts the names in the directory on disk.
    names: bool,
}

/// From now on every database of this process is opened through it.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the name is a C string; null stands for none, and then nothing is read.
        let unix = unsafe { ffi::sqlite3_vfs_find(c"unix".as_ptr()) };
        assert!(!unix.is_null(), "SQLite without its VFS");
        // SAFETY: it is not null, and a registered VFS is never freed.
        let mut ours = unsafe { *unix };
        let _ = BASE.set(Base(unix));
        let pointer = c_int::try_from(size_of::<*mut Tracked>()).unwrap();
        ours.szOsFile = pointer_at(ours.szOsFile) + pointer;
        ours.pNext = ptr::null_mut();
        ours.zName = c"power-cut".as_ptr();
        ours.xOpen = Some(open);
        ours.xDelete = Some(delete);
        // SAFETY: it is never freed, and all that it points to is as long-lived.
        let result = unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 1) };
        assert_eq!(result, SQLITE_OK);
    });
}

/// Where our pointer stands, behind so many bytes of `unix`.
fn pointer_at(bytes: c_int) -> c_int {
    (bytes + 7) / 8 * 8
}

fn base() -> *mut sqlite3_vfs {
    BASE.get().expect("`install` has set it").0
}

/// Where a file has its pointer to what we know of it.
///
/// # Safety
/// The file was opened by [`open`], which has as many bytes.
unsafe fn place(file: *mut sqlite3_file) -> *mut *mut Tracked {
    // SAFETY: the VFS is never freed; SQLite gives every file `szOsFile` bytes, aligned to 8.
    unsafe {
        let at = usize::try_from(pointer_at((*base()).szOsFile)).expect("a size");
        file.cast::<u8>().add(at).cast()
    }
}

/// # Safety
/// The file has our methods: [`open`] has put its pointer there, and `close` has not been called.
unsafe fn tracked<'a>(file: *mut sqlite3_file) -> &'a Tracked {
    // SAFETY: as the caller says.
    unsafe { &**place(file) }
}

fn path(name: *const c_char) -> PathBuf {
    // SAFETY: SQLite gives names as C strings.
    let name = unsafe { CStr::from_ptr(name) };
    Path::new(OsStr::from_bytes(name.to_bytes())).to_owned()
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let kinds = SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL;
    let known = (!name.is_null() && flags & kinds != 0).then(|| path(name));
    let on_disk = known.and_then(|path| Some((Disk::with(&path)?, path)));
    let is_new = on_disk.as_ref().is_some_and(|(_, path)| !path.exists());
    if on_disk.as_ref().is_some_and(|(disk, _)| disk.is_off()) {
        // SAFETY: SQLite gives a file to fill; without methods it does not close it.
        unsafe { (*file).pMethods = ptr::null() };
        return SQLITE_CANTOPEN;
    }
    // SAFETY: the arguments are SQLite's own, and there is room for what `unix` has of the file.
    let result = unsafe { (*base()).xOpen.expect("unix opens")(base(), name, file, flags, out) };
    let Some((disk, path)) = on_disk.filter(|_| result == SQLITE_OK) else { return result };
    // It may be there now, and not after the cut.
    let _ = disk.opened(&path, is_new && path.exists());
    // SAFETY: `unix` has opened it, and its methods are never freed.
    let (unix, mut methods) = unsafe { ((*file).pMethods, *(*file).pMethods) };
    methods.xClose = Some(close);
    methods.xRead = Some(read);
    methods.xWrite = Some(write);
    methods.xTruncate = Some(truncate);
    methods.xSync = Some(sync);
    let names = is_new && flags & SQLITE_OPEN_MAIN_DB == 0;
    let tracked = Box::into_raw(Box::new(Tracked { methods, unix, disk, path, names }));
    // SAFETY: there is room for the pointer; what it points to lives until `close`.
    unsafe {
        *place(file) = tracked;
        (*file).pMethods = &raw const (*tracked).methods;
    }
    result
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    let file = path(name);
    if let Some(disk) = Disk::with(&file) {
        if disk.deleted(&file).is_err() {
            return SQLITE_IOERR_DELETE;
        }
        if sync != 0 {
            disk.directory_synced();
        }
    }
    // SAFETY: the arguments are SQLite's own.
    unsafe { (*base()).xDelete.expect("unix deletes")(base(), name, sync) }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: the file has our methods, and is used no more after this.
    unsafe {
        let tracked = Box::from_raw(*place(file));
        (*file).pMethods = tracked.unix;
        (*tracked.unix).xClose.expect("unix closes")(file)
    }
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    into: *mut c_void,
    amount: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: the file has our methods; the other arguments are SQLite's own.
    unsafe {
        let tracked = tracked(file);
        if tracked.disk.is_off() {
            return SQLITE_IOERR_READ;
        }
        (*tracked.unix).xRead.expect("unix reads")(file, into, amount, at)
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    from: *const c_void,
    amount: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: the file has our methods; SQLite gives as many bytes as it says.
    let (tracked, data) = unsafe {
        let amount = usize::try_from(amount).expect("an amount");
        (tracked(file), slice::from_raw_parts(from.cast::<u8>(), amount))
    };
    let change = Change::Write(usize::try_from(at).expect("an offset"), data.to_vec());
    if let Err(Off) = tracked.disk.changed(&tracked.path, change) {
        return SQLITE_IOERR_WRITE;
    }
    // SAFETY: as above.
    unsafe { (*tracked.unix).xWrite.expect("unix writes")(file, from, amount, at) }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: the file has our methods.
    let tracked = unsafe { tracked(file) };
    let change = Change::Truncate(usize::try_from(size).expect("a size"));
    if let Err(Off) = tracked.disk.changed(&tracked.path, change) {
        return SQLITE_IOERR_TRUNCATE;
    }
    // SAFETY: as above.
    unsafe { (*tracked.unix).xTruncate.expect("unix truncates")(file, size) }
}

/// The real file need not be synced: nobody cuts this machine's power.
unsafe extern "C" fn sync(file: *mut sqlite3_file, _: c_int) -> c_int {
    // SAFETY: the file has our methods.
    let tracked = unsafe { tracked(file) };
    match tracked.disk.synced(&tracked.path, tracked.names) {
        Ok(()) => SQLITE_OK,
        Err(Off) => SQLITE_IOERR_FSYNC,
    }
}
