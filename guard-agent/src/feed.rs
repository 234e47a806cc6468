//! What the observer learns, on its way to the ledger: in order, and without the observer waiting.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    health::{self, Health},
    lease::command::{Command, Reason, Refusal, Reply},
    ledger::Ledger,
    supervisor::Supervisor,
};

/// What may wait for the ledger. Beyond it nothing is kept: everything is told anew.
const CAPACITY: usize = 65_536;

type Answer = oneshot::Sender<Result<Reply, Refusal>>;

/// The observer's end.
#[derive(Clone)]
pub struct Feed {
    commands: mpsc::Sender<(Command, Option<Answer>)>,
    missed: Arc<AtomicBool>,
}

impl Feed {
    /// Starts the task that hands everything on.
    pub fn start(ledger: Ledger, health: Arc<Health>, supervisor: &Supervisor) -> Self {
        let (commands, mut waiting) = mpsc::channel::<(Command, Option<Answer>)>(CAPACITY);
        let missed = Arc::new(AtomicBool::new(false));
        let feed = Self { commands, missed: missed.clone() };
        supervisor.spawn("feed", async move {
            while let Some((command, answer)) = waiting.recv().await {
                let result = ledger.call(command).await;
                match &result {
                    Ok(_) => health.recovered(health::STORE),
                    Err(refusal) => {
                        missed.store(true, Ordering::Relaxed);
                        if refusal.reason != Reason::Stopping {
                            health.degraded(health::STORE, &refusal.message);
                        }
                    }
                }
                if let Some(answer) = answer {
                    // Whoever asked may have given up.
                    let _ = answer.send(result);
                }
            }
        });
        feed
    }

    /// Tells the ledger. What finds no room, or cannot be stored, is missed.
    pub fn tell(&self, command: Command) {
        if self.commands.try_send((command, None)).is_err() {
            self.missed.store(true, Ordering::Relaxed);
        }
    }

    /// Asks the ledger, after all that it was told before.
    ///
    /// # Errors
    /// As [`Ledger::call`].
    pub async fn ask(&self, command: Command) -> Result<Reply, Refusal> {
        let ended = || Refusal::new(Reason::Stopping, "the agent is ending");
        let (answer, answered) = oneshot::channel();
        self.commands.send((command, Some(answer))).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// Whether something was missed since this was last asked: tell everything anew.
    pub fn take_missed(&self) -> bool {
        self.missed.swap(false, Ordering::Relaxed)
    }
}
