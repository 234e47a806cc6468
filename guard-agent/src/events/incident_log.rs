//! The incidents of the past, on disk: written after everybody has been notified, on a thread of its own.
//!
//! It is a record for people, and no lease rests on it: one that cannot be read is put aside, and
//! one that cannot be written costs the record only.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use guard_core::incident::{Incident, Kept};
use parking_lot::Mutex;
use rusqlite::{Connection, params};

use crate::{clock, failpoint, supervisor::Supervisor};

/// Incidents that may wait to be written.
const QUEUE: usize = 4096;
/// Incidents that are kept.
const KEPT: usize = 1024;

/// There is no history.
#[derive(Debug, thiserror::Error)]
pub enum IncidentLogError {
    /// It cannot be opened, not even anew.
    #[error("the history of incidents {path}: {source}")]
    Open {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// Nobody would write it.
    #[error("starting the thread that writes the history of incidents: {0}")]
    Thread(#[from] std::io::Error),
}

/// The thread's name.
const PART: &str = "incident log";

/// Handle to the thread that writes the incidents.
#[derive(Clone, Debug)]
pub struct IncidentLog {
    waiting: Arc<Mutex<Waiting>>,
    wake: SyncSender<()>,
}

/// Incidents as they are to be written: of one that changes while it waits only the last counts.
#[derive(Debug)]
struct Waiting {
    incidents: BTreeMap<u64, Incident>,
    kept: Kept,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { incidents: BTreeMap::new(), kept: Kept::new(QUEUE) }
    }
}

impl IncidentLog {
    /// Opens the log, or puts one that cannot be read aside, and returns what is in it, the oldest
    /// first. Incidents of an earlier boot are over: their ports are gone.
    ///
    /// # Errors
    /// It cannot be made anew either.
    pub fn open(
        path: &Path,
        boot_id: &str,
        supervisor: &Supervisor,
    ) -> Result<(Self, Vec<Incident>), IncidentLogError> {
        let (connection, incidents) = read(path, boot_id).or_else(|error| {
            let aside = path.with_extension("db.unreadable");
            tracing::warn!(path = %path.display(), aside = %aside.display(), %error,
                "the history of incidents cannot be read; it is put aside");
            // What cannot be moved fails again below, with its reason.
            let _ = std::fs::rename(path, &aside);
            read(path, boot_id).map_err(|source| {
                let path = path.to_owned();
                IncidentLogError::Open { path, source }
            })
        })?;
        let waiting = Arc::<Mutex<Waiting>>::default();
        let (wake, woken) = sync_channel(1);
        let mut writer = Writer { connection, boot_id: boot_id.to_owned(), kept: Kept::new(KEPT) };
        if let Err(error) = writer.begin(&incidents) {
            tracing::warn!(%error, "the history of incidents keeps more than it should");
        }
        let to_write = waiting.clone();
        // Ends with the last sender.
        supervisor.thread(PART, move || writer.run(&to_write, &woken))?;
        Ok((Self { waiting, wake }, incidents))
    }

    /// Writes an incident down, later. Where too many wait, the least of them is not recorded.
    pub fn write(&self, incident: Incident) {
        {
            let Waiting { incidents, kept } = &mut *self.waiting.lock();
            let goes = kept.keep(&incident);
            incidents.insert(incident.id, incident);
            if let Some(goes) = goes {
                incidents.remove(&goes);
                tracing::debug!(id = goes, "an incident was not recorded: too many are waiting");
            }
        }
        // Full, it is awake already.
        let _ = self.wake.try_send(());
    }
}

fn read(path: &Path, boot_id: &str) -> rusqlite::Result<(Connection, Vec<Incident>)> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS incident (
             id INTEGER PRIMARY KEY, boot TEXT NOT NULL, incident TEXT NOT NULL
         ) STRICT",
    )?;
    let mut incidents = Vec::new();
    {
        let mut rows = connection.prepare("SELECT boot, incident FROM incident ORDER BY id")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let (boot, text) = (row.get::<_, String>(0)?, row.get::<_, String>(1)?);
            // One that another version wrote is no reason to lose the others.
            let Ok(mut incident) = serde_json::from_str::<Incident>(&text) else { continue };
            if boot != boot_id {
                (incident.silence_ends, incident.closed) = (None, None);
                incident.closed_at.get_or_insert_with(|| clock::now().wall);
            }
            incidents.push(incident);
        }
    }
    Ok((connection, incidents))
}

struct Writer {
    connection: Connection,
    boot_id: String,
    /// What is on disk.
    kept: Kept,
}

impl Writer {
    /// Takes over what is on disk, which can be more than is kept.
    fn begin(&mut self, there: &[Incident]) -> rusqlite::Result<()> {
        let over: Vec<_> = there.iter().filter_map(|incident| self.kept.keep(incident)).collect();
        let mut delete = self.connection.prepare("DELETE FROM incident WHERE id = ?1")?;
        over.iter().try_for_each(|id| delete.execute([id.cast_signed()]).map(drop))
    }

    fn run(&mut self, waiting: &Mutex<Waiting>, woken: &Receiver<()>) {
        for () in woken {
            failpoint::panic_here(PART);
            let Waiting { incidents, .. } = std::mem::take(&mut *waiting.lock());
            if let Err(error) = self.write(incidents.values()) {
                let many = incidents.len();
                tracing::warn!(many, %error, "incidents were not recorded");
            }
        }
    }

    fn write<'a>(&mut self, incidents: impl Iterator<Item = &'a Incident>) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT OR REPLACE INTO incident (id, boot, incident) VALUES (?1, ?2, ?3)",
            )?;
            let mut delete = transaction.prepare_cached("DELETE FROM incident WHERE id = ?1")?;
            for incident in incidents {
                let text = serde_json::to_string(incident)
                    .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                insert.execute(params![incident.id.cast_signed(), self.boot_id, text])?;
                if let Some(goes) = self.kept.keep(incident) {
                    delete.execute([goes.cast_signed()])?;
                }
            }
        }
        transaction.commit()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, num::NonZeroU32, time::Duration};

    use guard_core::{
        incident::{Claimant, Flaps, Incidents, Kind, Role, Sighting, Target},
        segment::Segment,
    };

    use super::*;

    fn incident(incidents: &mut Incidents, address: [u8; 4]) -> Incident {
        let now = clock::now();
        let challenger = Claimant {
            role: Role::Impostor,
            mac: None,
            interface: Some("veth".into()),
            ifindex: Some(7),
            owner: None,
            first_seen: now.wall,
            last_seen: now.wall,
            last: now.boot,
            frames: 1,
            dropped: 0,
            is_dropped: false,
            counter: 0,
            gone: false,
        };
        let (segment, target) = (Segment::new("rt0", 0), Target::Address(IpAddr::from(address)));
        let sighting = Sighting {
            segment,
            target,
            kind: Kind::Gateway,
            mild: false,
            critical: false,
            holder: None,
            challenger,
            detail: None,
            unanswered: false,
        };
        incidents.sighted(sighting, now).unwrap().1
    }

    fn reopen(path: &Path, boot_id: &str, wanted: usize) -> Vec<Incident> {
        for _ in 0..1000 {
            let (_, found) = IncidentLog::open(path, boot_id, &Supervisor::new().0).unwrap();
            if found.len() == wanted {
                return found;
            }
            std::thread::yield_now();
        }
        panic!("{wanted} incidents were not written");
    }

    #[test]
    fn what_was_written_is_there_and_open_ones_end_with_their_boot() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("incidents.db");
        let minute = Duration::from_secs(60);
        let mut incidents = Incidents::new(minute, Flaps::new(minute, NonZeroU32::MIN), 5);
        let (log, none) = IncidentLog::open(&path, "one", &Supervisor::new().0).unwrap();
        assert!(none.is_empty());
        let first = incident(&mut incidents, [10, 0, 0, 1]);
        let first = incidents.silence(first.id, minute, clock::now()).unwrap();
        log.write(first.clone());
        log.write(incident(&mut incidents, [10, 0, 0, 2]));
        drop(log);
        let found = reopen(&path, "one", 2);
        assert_eq!(found[0], first);
        let later = reopen(&path, "two", 2);
        assert!(later.iter().all(|i| i.closed_at.is_some() && i.silence_ends.is_none()));
    }

    #[test]
    fn a_history_that_cannot_be_read_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("incidents.db");
        std::fs::write(&path, "not a database, and longer than a header is ".repeat(9)).unwrap();
        assert!(IncidentLog::open(&path, "one", &Supervisor::new().0).unwrap().1.is_empty());
        assert!(dir.path().join("incidents.db.unreadable").exists());
    }
}
