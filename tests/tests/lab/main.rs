//! The lab itself, without an agent in it: that it carries frames, that it shows the incident, and
//! that it goes.

mod agent;
mod clean_up;
mod incident;
mod wire;
