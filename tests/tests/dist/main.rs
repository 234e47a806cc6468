//! What surrounds the programs: metrics, alert rules, the dashboard and the unit, each checked by the
//! tool that its users have, and against the real agent.

mod alerts;
mod container;
mod dashboard;
mod metrics;
mod readdress;
mod service;
mod unit;
mod vitals;
