//! The trace of one port: a second program, which is on the port as long as somebody watches.
//!
//! It reads the same maps with the same decision function, and tells of each frame through aya-log.
//! It stands before the other program, so that it meets the maps as that one will, and it is not
//! pinned: it goes with whoever asked for it, with the connection or with the agent.

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::{
    Ebpf,
    maps::{MapData, MapError, PerCpuArray},
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        tc::{NlOptions, TcAttachOptions},
    },
};
use aya_log::EbpfLogger;
use guard_ebpf::{abi::LAYOUT_VERSION, trace::Traced};
use parking_lot::Mutex;
use tokio::{io::unix::AsyncFd, runtime::Handle, sync::mpsc, task::spawn_blocking};

use super::{
    Attach, KernelError,
    clsact::{PRIORITY, TRACE_HANDLE},
    loader,
};

/// The program, as `build.rs` compiled it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard-trace"));
const PROGRAM: &str = "guard_trace";
/// How many records the program has told, with those that found no room.
const TOLD: &str = "TOLD";

/// Lines that may wait for whoever reads them. What comes when there are as many is lost.
const BACKLOG: usize = 4096;

/// What there is to say.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A claim of a frame, or a frame without any.
    Traced(Traced),
    /// So many lines were lost.
    Lost(u64),
}

/// The programs of the traces that run.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Whether a program is that of a trace of this agent: it passes everything on.
pub(super) fn is_running(program_id: u32) -> bool {
    RUNNING.lock().contains(&program_id)
}

/// One of [`RUNNING`], until it is dropped.
struct Running(u32);

impl Running {
    fn new(program_id: u32) -> Self {
        RUNNING.lock().insert(program_id);
        Self(program_id)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.lock().remove(&self.0);
    }
}

/// A port that is traced. Dropped, it is not.
pub struct Tracer {
    lines: mpsc::Receiver<Line>,
    _ebpf: Ebpf,
    /// Dropped after the program, which is off the port then.
    _running: Running,
}

impl Tracer {
    /// Puts the program on a port that the other program is on.
    ///
    /// # Errors
    /// The port is gone, or the kernel's refusal.
    pub fn start(bpffs: &Path, interface: &str, attach: Attach) -> Result<Self, KernelError> {
        let pins = bpffs.join(format!("v{LAYOUT_VERSION}"));
        let mut ebpf = loader(&pins).load(OBJECT)?;
        let failed = |source: io::Error| KernelError::Pin { path: pins.clone(), source };
        let told = ebpf.take_map(TOLD).ok_or(KernelError::Missing(TOLD))?.try_into();
        let told = told.map_err(|source| KernelError::Map { name: TOLD, source })?;
        let (sender, lines) = mpsc::channel(BACKLOG);
        let tally = Arc::new(Tally::default());
        let frames = Frames { lines: sender.clone(), tally: tally.clone() };
        let logger = EbpfLogger::init_with_logger(&mut ebpf, frames)
            .map_err(|error| failed(io::Error::other(error)))?;
        #[expect(unsafe_code, reason = "the kernel tells of records by the ring's descriptor")]
        // SAFETY: the logger owns its ring's descriptor, gives the same one always, and keeps it open
        // until it is dropped.
        let logger = unsafe { AsyncFd::register(logger) }.map_err(|error| failed(error.into()))?;
        let program: &mut SchedClassifier =
            ebpf.program_mut(PROGRAM).ok_or(KernelError::Missing(PROGRAM))?.try_into()?;
        program.load()?;
        // Before it is on the port: whoever looks there knows it.
        let running = Running::new(program.info()?.id());
        let options = match attach {
            Attach::Tcx => TcAttachOptions::TcxOrder(LinkOrder::first()),
            Attach::Clsact => TcAttachOptions::Netlink(NlOptions {
                priority: PRIORITY,
                handle: TRACE_HANDLE,
                classid: None,
            }),
        };
        program.attach_with_options(interface, TcAttachType::Ingress, options).map_err(
            |source| KernelError::Attach { interface: interface.to_owned(), source: source.into() },
        )?;
        let reader = Reader { logger, told, tally, lines: sender };
        // aya reads until the ring is empty, which under a flood it never is: on a thread of its own
        // it is in nobody's way, and it ends with the program.
        let runtime = Handle::current();
        drop(spawn_blocking(move || runtime.block_on(reader.run())));
        Ok(Self { lines, _ebpf: ebpf, _running: running })
    }

    /// What comes next; none once the ring cannot be read.
    pub async fn next(&mut self) -> Option<Line> {
        self.lines.recv().await
    }
}

/// What became of the records.
#[derive(Debug, Default)]
struct Tally {
    /// Those that came out of the ring.
    read: AtomicU64,
    /// Those that are lost, and of which it is yet to be told.
    missing: AtomicU64,
}

/// Takes the records off the ring, as long as somebody wants them.
struct Reader {
    logger: AsyncFd<EbpfLogger<Frames>>,
    told: PerCpuArray<MapData, u64>,
    tally: Arc<Tally>,
    lines: mpsc::Sender<Line>,
}

impl Reader {
    async fn run(mut self) {
        let mut lost = 0;
        loop {
            let mut ready = tokio::select! {
                ready = self.logger.readable_mut() => match ready {
                    Ok(ready) => ready,
                    Err(error) => return tracing::error!(%error, "a trace has no ring any more"),
                },
                () = self.lines.closed() => return,
            };
            // Whatever was counted has come out once the ring was found empty, or never will.
            loop {
                let before = self.tally.read.load(Ordering::Relaxed);
                let told = match count(&self.told) {
                    Ok(told) => told,
                    Err(error) => return tracing::error!(%error, "a trace cannot be counted"),
                };
                ready.get_inner_mut().flush();
                let read = self.tally.read.load(Ordering::Relaxed);
                if read == before {
                    let more = told.saturating_sub(read).saturating_sub(lost);
                    lost += more;
                    self.tally.missing.fetch_add(more, Ordering::Relaxed);
                    break;
                }
            }
            ready.clear_ready();
            let missing = self.tally.missing.swap(0, Ordering::Relaxed);
            if missing > 0 && self.lines.send(Line::Lost(missing)).await.is_err() {
                return;
            }
        }
    }
}

fn count(told: &PerCpuArray<MapData, u64>) -> Result<u64, MapError> {
    Ok(told.get(&0, 0)?.iter().sum())
}

/// Takes the program's records out of the log lines that aya makes of them.
struct Frames {
    lines: mpsc::Sender<Line>,
    tally: Arc<Tally>,
}

impl Frames {
    fn pass_on(&self, traced: Traced) {
        let Tally { missing, .. } = &*self.tally;
        let before = missing.load(Ordering::Relaxed);
        if before > 0 && self.lines.try_send(Line::Lost(before)).is_ok() {
            missing.store(0, Ordering::Relaxed);
        }
        if self.lines.try_send(Line::Traced(traced)).is_err() {
            missing.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl log::Log for Frames {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.tally.read.fetch_add(1, Ordering::Relaxed);
        if let Some(traced) = decode(&record.args().to_string()) {
            self.pass_on(traced);
        }
    }

    fn flush(&self) {}
}

/// From the record's bytes in hexadecimal.
fn decode(text: &str) -> Option<Traced> {
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    bytemuck::try_pod_read_unaligned(&bytes?).ok()
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;

    #[test]
    fn a_record_comes_back_from_its_digits_and_nothing_else_does() {
        let traced = Traced { kind: 1, mac: [2, 0, 0, 0, 0, 0xab], ..Traced::zeroed() };
        let digits: String =
            bytemuck::bytes_of(&traced).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(decode(&digits), Some(traced));
        assert_eq!(decode(&digits[2..]), None);
        assert_eq!(decode("not a record"), None);
    }

    #[test]
    fn what_a_slow_reader_misses_is_told_in_its_place() {
        let (sender, mut lines) = mpsc::channel(2);
        let frames = Frames { lines: sender, tally: Arc::default() };
        let traced = Traced::zeroed();
        (0..5).for_each(|_| frames.pass_on(traced));
        assert_eq!(lines.try_recv(), Ok(Line::Traced(traced)));
        assert_eq!(lines.try_recv(), Ok(Line::Traced(traced)));
        frames.pass_on(traced);
        assert_eq!(lines.try_recv(), Ok(Line::Lost(3)));
        assert_eq!(lines.try_recv(), Ok(Line::Traced(traced)));
        assert!(lines.try_recv().is_err());
    }
}
