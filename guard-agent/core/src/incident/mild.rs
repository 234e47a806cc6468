//! Incidents that hurt nobody: one alert an hour for an address (claims.md A14).

use std::{collections::BTreeMap, time::Duration};

use super::Target;
use crate::{segment::Segment, time::Now};

/// From one alert to the next.
const APART: Duration = Duration::from_secs(3600);
/// So many addresses are told apart; of any others nobody is alerted.
const MOST: usize = 1024;

/// When an alert was last sent, on `CLOCK_BOOTTIME`, by what it was about.
#[derive(Debug, Default)]
pub(super) struct MildAlerts(BTreeMap<(Segment, Target), Duration>);

impl MildAlerts {
    /// Whether an alert is due, which is sent then.
    pub(super) fn take(&mut self, key: &(Segment, Target), now: Now) -> bool {
        if self.0.contains_key(key) || self.0.len() >= MOST {
            return false;
        }
        self.0.insert(key.clone(), now.boot);
        true
    }

    /// Forgets those that are longer ago.
    pub(super) fn forget_old(&mut self, now: Now) {
        self.0.retain(|_, at| now.boot.saturating_sub(*at) < APART);
    }
}
