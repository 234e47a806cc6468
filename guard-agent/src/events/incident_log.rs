//! The incidents of the past, on disk: written after everybody has been notified, on a thread of its own.
//!
//! It is a record for people, and no lease rests on it: one that cannot be read is put aside, and
//! one that cannot be written costs the record only.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use guard_core::incident::Incident;
use rusqlite::{Connection, params};

use crate::{clock, failpoint, supervisor::Supervisor};

/// Incidents that may wait to be written.
const QUEUE: usize = 4096;
/// Incidents that are kept.
const KEPT: u32 = 1024;

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
pub struct IncidentLog(SyncSender<Incident>);

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
        let (sender, receiver) = sync_channel(QUEUE);
        let boot_id = boot_id.to_owned();
        // Ends with the last sender.
        supervisor.thread(PART, move || write_all(&connection, &boot_id, &receiver))?;
        Ok((Self(sender), incidents))
    }

    /// Writes an incident down, later. Where too many wait, this one is not recorded.
    pub fn write(&self, incident: Incident) {
        if self.0.try_send(incident).is_err() {
            tracing::debug!("an incident was not recorded: too many are waiting");
        }
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

fn write_all(connection: &Connection, boot_id: &str, incidents: &Receiver<Incident>) {
    for incident in incidents {
        failpoint::panic_here(PART);
        if let Err(error) = write(connection, boot_id, &incident) {
            tracing::warn!(id = incident.id, %error, "an incident was not recorded");
        }
    }
}

fn write(connection: &Connection, boot_id: &str, incident: &Incident) -> rusqlite::Result<()> {
    let text = serde_json::to_string(incident)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let id = incident.id.cast_signed();
    connection
        .prepare_cached("INSERT OR REPLACE INTO incident (id, boot, incident) VALUES (?1, ?2, ?3)")?
        .execute(params![id, boot_id, text])?;
    connection
        .prepare_cached(
            "DELETE FROM incident WHERE id <=
                 (SELECT id FROM incident ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        )?
        .execute([KEPT])?;
    Ok(())
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
