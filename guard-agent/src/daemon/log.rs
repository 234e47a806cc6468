//! The log: what is logged, how it looks, and where it goes.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::{self, Debug},
    io::{self, IsTerminal as _, Write as _},
    panic,
};

use guard_core::text;
use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    field::MakeExt as _,
    filter::{FilterExt as _, LevelFilter, Targets},
    fmt::format::{Writer, debug_fn},
    layer::{Filter, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

use super::journald::Journal;
use crate::{config::LogFormat, logging::Queue, server::audit};

/// What is logged where `RUST_LOG` does not say. Libraries have their say where something is wrong;
/// h2 not even then, since it warns of what its peers do.
const FILTER: &str =
    "warn,guard_agent=info,guard_core=info,guard_api=info,guard_ebpf=info,h2=error";

/// Starts it: to journald where systemd has made that our standard error, else to standard error in
/// the format that is configured. `RUST_LOG` narrows or widens what is logged, all but the audit.
///
/// # Errors
/// The system has no room for a thread.
pub fn start(format: LogFormat) -> io::Result<Queue> {
    let filter = filter(&std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default());
    let queue;
    if let Some(journal) = Journal::of_service() {
        let layer;
        (queue, layer) = journal.start()?;
        tracing_subscriber::registry().with(layer.with_filter(filter)).init();
    } else {
        queue = Queue::start(|line| io::stderr().write_all(line))?;
        let lines = queue.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || lines.clone())
            .with_ansi(io::stderr().is_terminal());
        let layer = match format {
            LogFormat::Text => layer.fmt_fields(debug_fn(field).delimited(" ")).boxed(),
            LogFormat::Json => layer.json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry().with(layer.with_filter(filter)).init();
    }
    let last = queue.clone();
    panic::set_hook(Box::new(move |panic| {
        let trace = Backtrace::capture();
        let trace = (trace.status() == BacktraceStatus::Captured).then_some(trace);
        tracing::error!(%panic, trace = trace.map(tracing::field::display), "a panic");
        if cfg!(panic = "abort") {
            // It is the end of the agent, and what waits would not be written.
            last.end("");
        }
    }));
    Ok(queue)
}

/// What is logged: what is asked for, else [`FILTER`], and the audit whatever is asked for: whoever wants
/// less of a library, or more, does not mean that one.
fn filter(asked: &str) -> impl Filter<Registry> + use<> {
    let asked = Some(asked).filter(|asked| !asked.is_empty());
    let asked = asked.and_then(|asked| EnvFilter::builder().parse(asked).ok());
    let asked = asked.unwrap_or_else(|| EnvFilter::builder().parse_lossy(FILTER));
    asked.or(Targets::new().with_target(audit::TARGET, LevelFilter::INFO))
}

/// A field of a line of text.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    match field.name() {
        "message" => writer.write_str(&text::value(&format!("{value:?}"))),
        // What the bridge from the crate `log` adds, about places in the source.
        name if name.starts_with("log.") => Ok(()),
        name => {
            let value = text::value(&format!("{value:?}"));
            write!(writer, "{}={value}", name.trim_start_matches("r#"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc::channel};

    use super::*;

    #[test]
    fn a_name_cannot_make_a_line_or_turn_one_around() {
        let (lines, written) = channel();
        let queue = Queue::start(move |line| {
            let _ = lines.send(String::from_utf8_lossy(line).into_owned());
            Ok(())
        });
        let queue = queue.unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || queue.clone())
            .with_ansi(false)
            .fmt_fields(debug_fn(field).delimited(" "))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let name = "a\n2026 ERROR forged\u{1b}[2J\u{202e}";
            tracing::warn!(id = 7, %name, kind = "b\nc", "conflict of {name}");
            let name = "a port=veth0";
            tracing::warn!(%name, "{name}");
        });
        let line = written.recv().unwrap();
        assert_eq!(line.matches(text::is_hidden).count(), 1, "{line:?}");
        assert!(line.ends_with('\n'), "{line:?}");
        let name = "a\\n2026 ERROR forged\\u{1b}[2J\\u{202e}";
        let fields = format!("conflict of {name} id=7 name={name} kind=\"b\\nc\"");
        assert!(line.contains(&fields), "{line:?}");
        // Nor can it make a field of its own.
        let line = written.recv().unwrap();
        assert!(line.ends_with(" \"a port=veth0\" name=\"a port=veth0\"\n"), "{line:?}");
    }

    #[test]
    fn what_a_peer_makes_a_library_say_is_not_logged() {
        assert_eq!(filter("").max_level_hint(), Some(LevelFilter::INFO));
        assert_eq!(said(""), ["aya", "agent", "audit"]);
    }

    #[test]
    fn a_filter_for_libraries_hides_nothing_of_the_audit() {
        for asked in ["off", "audit=off", "h2=off", "error", "[{uid}]=off", "audit[{uid}]=off"] {
            assert_eq!(said(asked), ["audit"], "{asked}");
        }
        assert_eq!(said("h2=warn"), ["h2", "audit"]);
        assert_eq!(said("info"), ["h2", "hyper", "aya", "agent", "audit"]);
        assert_eq!(said("no=such=thing"), ["aya", "agent", "audit"]);
    }

    /// What is logged where so much is asked for.
    fn said(asked: &str) -> Vec<String> {
        let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let sink = seen.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || Sink(sink.clone()));
        let layer = layer.with_level(false).with_target(false).without_time();
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter(asked)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "h2::proto::streams::recv", "h2");
            tracing::info!(target: "hyper_util::client", "hyper");
            tracing::warn!(target: "aya::maps", "aya");
            tracing::info!(target: "guard_agent::events", "agent");
            tracing::info!(target: audit::TARGET, "audit");
        });
        let text = String::from_utf8(seen.lock().clone()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    struct Sink(Arc<parking_lot::Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
