//! The arbiter over frames, without a kernel.

mod above;
mod cases;
mod histories;
mod incidents;
mod left;
mod missed;
mod neighbours;
mod questions;
mod reflected;
mod rows;
mod strangers;
mod tentative;
mod world;
