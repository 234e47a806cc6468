//! Another boot, and a wall clock that has been set: what no test may do to the machine it runs on.

use anyhow::Result;

use crate::{command::run, lab::Lab, launch::Launch};

/// Stands between a program and its C library.
const SHIFTED: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME)
        now->tv_sec += STEP;
    return result;
}
"#;

impl Launch {
    /// In another boot of the machine, as far as the boot's id tells: it is read from a file. What
    /// else a reboot takes away is the test's to remove.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn in_boot(self, lab: &Lab, number: u32) -> Result<Self> {
        let id = lab.dir().join(format!("boot-{number}"));
        std::fs::write(&id, format!("00000000-0000-4000-8000-{number:012}\n"))?;
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        Ok(self.under(&["unshare", "--mount", "sh", "-c", script, &id.to_string_lossy()]))
    }

    /// With a wall clock that is so many seconds ahead of the machine's.
    ///
    /// # Errors
    /// There is no C compiler.
    pub fn with_clock_ahead(self, lab: &Lab, seconds: i64) -> Result<Self> {
        let file = |end: &str| lab.dir().join(format!("clock{seconds}.{end}"));
        let (source, library) = (file("c"), file("so"));
        std::fs::write(&source, SHIFTED)?;
        let (source, library) = (source.to_string_lossy(), library.to_string_lossy());
        run("cc", &["-shared", "-fPIC", &format!("-DSTEP=({seconds})"), "-o", &library, &source])?;
        Ok(self.under(&["env", &format!("LD_PRELOAD={library}")]))
    }
}
