//! The trace of one port: a second program, which is on the port as long as somebody watches.
//!
//! It reads the same maps with the same decision function, and tells of each frame through aya-log.
//! It stands before the other program, so that it meets the maps as that one will, and it is not
//! pinned: it goes with whoever asked for it, with the connection or with the agent.

use std::{
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        tc::{NlOptions, TcAttachOptions},
    },
};
use aya_log::EbpfLogger;
use guard_ebpf::{abi::LAYOUT_VERSION, trace::Traced};
use tokio::io::unix::AsyncFd;

use super::{
    Attach, KernelError,
    attach::{PRIORITY, TRACE_HANDLE},
    loader,
};

/// The program, as `build.rs` compiled it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard-trace"));
const PROGRAM: &str = "guard_trace";

/// A port that is traced. Dropped, it is not.
pub struct Tracer {
    logger: AsyncFd<EbpfLogger<Frames>>,
    frames: Receiver<Traced>,
    _ebpf: Ebpf,
}

impl Tracer {
    /// Puts the program on a port that the other program is on.
    ///
    /// # Errors
    /// The port is gone, or the kernel's refusal.
    pub fn start(bpffs: &Path, interface: &str, attach: Attach) -> Result<Self, KernelError> {
        let pins = bpffs.join(format!("v{LAYOUT_VERSION}"));
        let mut ebpf = loader(&pins).load(OBJECT)?;
        let (sender, frames) = channel();
        let failed = |source: std::io::Error| KernelError::Pin { path: pins.clone(), source };
        let logger = EbpfLogger::init_with_logger(&mut ebpf, Frames(sender))
            .map_err(|error| failed(std::io::Error::other(error)))?;
        #[expect(unsafe_code, reason = "the kernel tells of records by the ring's descriptor")]
        // SAFETY: the logger owns its ring's descriptor, gives the same one always, and keeps it open
        // until it is dropped.
        let logger = unsafe { AsyncFd::register(logger) }.map_err(|error| failed(error.into()))?;
        let program: &mut SchedClassifier =
            ebpf.program_mut(PROGRAM).ok_or(KernelError::Missing(PROGRAM))?.try_into()?;
        program.load()?;
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
        Ok(Self { logger, frames, _ebpf: ebpf })
    }

    /// The next frame; none once the ring cannot be waited on.
    pub async fn next(&mut self) -> Option<Traced> {
        loop {
            if let Ok(traced) = self.frames.try_recv() {
                return Some(traced);
            }
            let mut ready = self.logger.readable_mut().await.ok()?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

/// Takes the program's records out of the log lines that aya makes of them.
struct Frames(Sender<Traced>);

impl log::Log for Frames {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if let Some(traced) = decode(&record.args().to_string()) {
            // Nobody watches any more.
            let _ = self.0.send(traced);
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
}
