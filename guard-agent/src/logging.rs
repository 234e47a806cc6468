//! The way of the log out of the agent: one queue with a bound, and one thread that writes. Nobody who
//! logs waits for whoever reads, and nobody ends with it. What finds no room, or cannot be written, is
//! dropped and counted.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

/// What may wait, in bytes.
const ROOM: usize = 4 << 20;
/// What a line takes beside its bytes.
const LINE: usize = 64;
/// How long the end of the agent waits for what is not written yet.
const END: Duration = Duration::from_secs(1);

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many lines this process has dropped.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

enum Message {
    Line(Vec<u8>),
    /// The last word, for standard error, and who waits for it.
    Last(String, Sender<()>),
}

/// The queue. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Queue {
    messages: Sender<Message>,
    waiting: Arc<AtomicUsize>,
}

impl Queue {
    /// A queue, and the thread that has `write` write each line of it.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start(write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let (messages, lines) = channel();
        let waiting = Arc::<AtomicUsize>::default();
        let queue = Self { messages, waiting: waiting.clone() };
        let writer = thread::Builder::new().name("log".to_owned());
        writer.spawn(move || write_all(&lines, &waiting, write))?;
        Ok(queue)
    }

    /// Has a line written, if there is room.
    pub fn put(&self, line: Vec<u8>) {
        let size = line.len() + LINE;
        let before = self.waiting.fetch_add(size, Ordering::Relaxed);
        if before + size > ROOM || self.messages.send(Message::Line(line)).is_err() {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes a last word to standard error, and waits for it and all before, but not for long: the
    /// agent ends also where nobody reads.
    pub fn end(&self, word: &str) {
        let (done, written) = channel();
        if self.messages.send(Message::Last(word.to_owned(), done)).is_ok() {
            // An error says that it takes too long.
            let _ = written.recv_timeout(END);
        }
    }
}

fn write_all(
    messages: &Receiver<Message>,
    waiting: &AtomicUsize,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) {
    for message in messages {
        match message {
            Message::Line(line) => {
                if write(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
                waiting.fetch_sub(line.len() + LINE, Ordering::Relaxed);
            }
            Message::Last(word, done) => {
                // Where standard error is closed, nobody reads it.
                let _ = io::stderr().write_all(word.as_bytes());
                let _ = done.send(());
            }
        }
    }
}

/// Each write is a line.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line.to_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::sync_channel, time::Instant};

    use super::*;

    #[test]
    fn who_logs_does_not_wait_for_a_writer_that_is_stuck_and_what_is_left_out_is_counted() {
        let (go_on, stuck) = sync_channel::<()>(0);
        let written = Arc::new(AtomicUsize::new(0));
        let count = written.clone();
        let queue = Queue::start(move |_| {
            let _ = stuck.recv();
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
        let (before, began) = (dropped(), Instant::now());
        let lines = 3 * ROOM / 1024;
        for _ in 0..lines {
            queue.put(vec![b'a'; 1024 - LINE]);
        }
        queue.end("");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        drop(go_on);
        queue.end("");
        let written = written.load(Ordering::Relaxed);
        // The first one is out of the queue already.
        assert!((ROOM / 1024..=ROOM / 1024 + 1).contains(&written), "{written} of {lines}");
        // Other tests count, too.
        assert!(dropped() - before >= (lines - written) as u64);
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted() {
        let before = dropped();
        let queue = Queue::start(|_| Err(io::ErrorKind::StorageFull.into())).unwrap();
        queue.put(b"a line\n".to_vec());
        queue.end("");
        assert!(dropped() > before);
    }
}
