//! What has happened: the numbered stream that everyone follows, and the incidents with their log.

mod bus;
mod incident_log;
mod incident_reporter;
mod unowned;

pub use bus::{DroppedFrames, EventBus, Subject};
pub(crate) use bus::{Event, Subscription};
pub use incident_log::{IncidentLog, IncidentLogError};
pub use incident_reporter::IncidentReporter;
