//! A sign of life while the agent is busy: on a terminal's standard error only, and only once there
//! is something to wait for.

use std::{future::Future, pin::pin, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::timeout;

/// What takes less is over before anybody wonders.
const BEGINS: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(250);

/// Awaits `work`, and says that it is `what` that takes so long.
pub(crate) async fn shown<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(done) = timeout(BEGINS, &mut work).await {
        return done;
    }
    // Draws nothing where standard error is no terminal.
    let bar = ProgressBar::new_spinner().with_message(what).with_elapsed(BEGINS);
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg} {elapsed}")
            .expect("the template is a constant")
            .tick_chars("|/-\\ "),
    );
    bar.enable_steady_tick(TICK);
    let done = work.await;
    bar.finish_and_clear();
    done
}
