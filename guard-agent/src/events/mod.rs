//! What has happened: the numbered stream that everyone follows, and the incidents with their log.

mod bus;
mod incident_log;
mod incidents;

pub(crate) use bus::{Event, Subscription};
pub use bus::{Hub, Subject};
pub use incident_log::{History, HistoryError};
pub use incidents::Alerts;
