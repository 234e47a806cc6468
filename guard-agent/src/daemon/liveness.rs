//! Whether the agent is really well: the store's writer answers, the observer's loop runs, and the
//! runtimes take up what they are given. Only then does the service manager's watchdog hear of it, so that
//! it restarts an agent that is there and does nothing.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{self, Runtime},
    sync::oneshot,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    failpoint,
    health::{Health, Heartbeat, OBSERVER, STORE},
    ledger::{Ledger, writer_answers},
    supervisor::Supervisor,
};

/// The thread's name.
const PART: &str = "vitals";

/// How often it is looked at, unless the watchdog wants to hear more often.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long one round of the observer's loop, which is due each second, may take: far more than a
/// loaded machine lets it wait, since nothing is handed out meanwhile.
const ROUND: Duration = Duration::from_secs(10);
/// How long the runtime may take to run a task that does nothing.
const TASK: Duration = Duration::from_secs(5);

/// Watches the watchers.
pub(super) struct Liveness {
    /// Whose writer is asked.
    pub ledger: Ledger,
    /// The observer's.
    pub observer: Arc<Heartbeat>,
    /// Where everything else runs: what watches and judges, and what answers.
    pub tasks: [runtime::Handle; 2],
    /// Who is told.
    pub health: Arc<Health>,
}

impl Liveness {
    /// Looks again and again, and feeds the watchdog of the service manager, if it has one, while
    /// all is well: until what this returns is dropped.
    ///
    /// It has a thread and a clock of its own, and depends on nothing that it watches. A task that
    /// blocks may leave a runtime of several threads without one that waits for sockets and timers;
    /// the task that each look gives to it makes another thread take that up.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(self, supervisor: &Supervisor) -> io::Result<oneshot::Sender<()>> {
        let (stop, stopped) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
        supervisor.thread(PART, move || self.run(&runtime, stopped))?;
        Ok(stop)
    }

    fn run(&self, runtime: &Runtime, stopped: oneshot::Receiver<()>) {
        runtime.block_on(async {
            tokio::select! {
                _ = stopped => {}
                () = failpoint::with_panic(PART, self.look_on()) => {}
            }
        });
    }

    async fn look_on(&self) {
        // How long the service manager waits for a sign of life (sd_watchdog_enabled(3)).
        let watchdog = sd_notify::watchdog_enabled();
        let every = watchdog.map_or(INTERVAL, |limit| INTERVAL.min(limit / 4));
        let mut turn = interval(every);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            if self.are_good().await && watchdog.is_some() {
                // A manager that has gone away does not wait for it.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
        }
    }

    async fn are_good(&self) -> bool {
        let turns = self.observer.age(Instant::now()) < ROUND;
        if turns {
            self.health.recovered(OBSERVER);
        } else {
            let why = format!("it has not come round for {ROUND:?}: what happens goes unseen");
            self.health.degraded(OBSERVER, &why);
        }
        let [judges, answers] = self.tasks.each_ref().map(|tasks| tasks.spawn(async {}));
        let runs = timeout(TASK, async { tokio::join!(judges, answers) }).await.is_ok();
        if !runs {
            tracing::error!("no task has been taken up for {TASK:?}: nobody is answered");
        }
        let writes = writer_answers(&self.ledger).await;
        if let Err(why) = &writes {
            // Whoever watches the store says when it is over.
            self.health.degraded(STORE, why);
        }
        turns && runs && writes.is_ok()
    }
}
