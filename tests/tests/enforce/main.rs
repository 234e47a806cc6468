//! Enforcement, judged from outside: real tools and raw frames attack sandboxes on a real bridge, in observe
//! and in enforce, and what their neighbours' kernels believe is what counts. Scenarios are named after
//! those of docs/rules/enforce.md.

mod bindings;
mod control;
mod exceptions;
mod forged;
mod ipv6;
mod life;
mod poisoners;
mod stations;
mod under_fire;
mod watch;
mod world;
