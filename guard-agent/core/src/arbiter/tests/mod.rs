//! The arbiter over frames, without a kernel.

mod cases;
mod histories;
mod rows;
mod world;
