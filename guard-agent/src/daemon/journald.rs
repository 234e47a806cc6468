//! The log as journald has it: each field of an event a field of the entry, and the text what the
//! other formats show.
//!
//! The protocol is that of systemd's `sd_journal_send`, the [native protocol]. tracing-journald, which speaks it too,
//! puts only an event's message into `MESSAGE`: `journalctl` would show a conflict without its
//! address.
//!
//! [native protocol]: https://systemd.io/JOURNAL_NATIVE_PROTOCOL

use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
    os::{fd::AsFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
};

use nix::sys::stat::fstat;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::logging::Queue;
use guard_core::text;

/// Where journald listens; systemd holds the socket, also while journald restarts.
const SOCKET: &str = "/run/systemd/journal/socket";

/// What the fields of an event are called in the journal: `GUARD_ADDRESS`.
const PREFIX: &str = "GUARD_";

/// What begins an entry.
const MESSAGE: &str = "MESSAGE";

/// journald's socket.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// The journal, if a service manager has made it our standard error (`JOURNAL_STREAM` in
    /// systemd.exec(5)).
    pub(super) fn of_service() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let stderr = fstat(io::stderr().as_fd()).ok()?;
        (stream == format!("{}:{}", stderr.st_dev, stderr.st_ino)).then_some(())?;
        Self::at(Path::new(SOCKET)).ok()
    }

    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::unbound()?, path: path.to_owned() })
    }

    /// Starts the thread that sends to it, and returns what makes entries for that.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub(super) fn start(self) -> io::Result<(Queue, Entries)> {
        let queue = Queue::start(move |entry| self.send(entry))?;
        Ok((queue.clone(), Entries(queue)))
    }

    fn send(&self, entry: &[u8]) -> io::Result<()> {
        let Err(error) = self.socket.send_to(entry, &self.path) else { return Ok(()) };
        // Standard error is the journal's, too. The message has no line breaks.
        let message = entry.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let message = String::from_utf8_lossy(message.get(MESSAGE.len() + 1..).unwrap_or_default());
        io::stderr().write_all(format!("{message} (not sent whole: {error})\n").as_bytes())
    }
}

/// Makes an entry of each event.
#[derive(Debug)]
pub(super) struct Entries(Queue);

impl<S: Subscriber> Layer<S> for Entries {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.put(fields.entry(*event.metadata().level(), event.metadata().target()));
    }
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    /// All others, as a line shows them.
    text: String,
    others: Vec<(&'static str, String)>,
}

impl Fields {
    fn entry(&self, level: Level, target: &str) -> Vec<u8> {
        let mut entry = Vec::new();
        put(&mut entry, MESSAGE, &format!("{}{}", text::value(&self.message), self.text));
        put(&mut entry, "PRIORITY", priority(level));
        put(&mut entry, "SYSLOG_IDENTIFIER", "guard-agent");
        put(&mut entry, "TARGET", target);
        for (name, value) in &self.others {
            let name = name.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            put(&mut entry, &format!("{PREFIX}{name}"), value);
        }
        entry
    }

    fn add(&mut self, field: &Field, value: String, shown: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = value,
            // What the bridge from the crate `log` adds, about places in the source.
            name if name.starts_with("log.") => {}
            name => {
                // Writing to a string does not fail.
                let _ = write!(self.text, " {name}={}", text::value(&format!("{shown:?}")));
                self.others.push((name, value));
            }
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned(), &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"), value);
    }
}

/// A value with a line break in it is sent with its length.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend((value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend(value.as_bytes());
    entry.push(b'\n');
}

/// As in syslog(3).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn entry(log: impl FnOnce()) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let (_queue, entries) = Journal::at(&path).unwrap().start().unwrap();
        let subscriber = tracing_subscriber::registry().with(entries);
        tracing::subscriber::with_default(subscriber, log);
        let mut buffer = [0; 4096];
        let read = journald.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    }

    #[test]
    fn an_entry_has_the_text_and_each_field() {
        let entry = entry(|| {
            let address = std::net::Ipv4Addr::LOCALHOST;
            tracing::warn!(id = 7, %address, kind = "flap", "conflict");
        });
        let lines: Vec<_> = entry.lines().collect();
        for line in [
            "MESSAGE=conflict id=7 address=127.0.0.1 kind=\"flap\"",
            "PRIORITY=4",
            "SYSLOG_IDENTIFIER=guard-agent",
            "TARGET=guard_agent::daemon::journald::tests",
            "GUARD_ID=7",
            "GUARD_ADDRESS=127.0.0.1",
            "GUARD_KIND=flap",
        ] {
            assert!(lines.contains(&line), "{line} is not in {entry}");
        }
    }

    #[test]
    fn a_value_of_several_lines_cannot_make_a_field() {
        let entry = entry(|| tracing::error!(why = "a\nPRIORITY=0", "bad"));
        assert!(entry.contains("GUARD_WHY\n\u{c}\0\0\0\0\0\0\0a\nPRIORITY=0\n"), "{entry:?}");
        assert!(entry.contains("MESSAGE=bad why=\"a\\nPRIORITY=0\"\n"), "{entry:?}");
        let entry = self::entry(|| {
            let name = "a\nforged\u{202e}";
            tracing::error!(%name, "{name}");
        });
        let message = "MESSAGE=a\\nforged\\u{202e} name=a\\nforged\\u{202e}\n";
        assert!(entry.starts_with(message), "{entry:?}");
    }
}
