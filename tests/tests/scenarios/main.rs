//! The scenarios: the agent and its tools on real bridges, through what its users hold in their
//! hands and nothing else.

mod access;
mod allocate;
mod bad_input;
mod bridge;
mod children;
mod claims;
mod commands;
mod cooling;
mod demo;
mod directory;
mod exhaustion;
mod full;
mod garbage;
mod handover;
mod holds;
mod http;
mod incident;
mod inventory;
mod loss;
mod operators;
mod ordinary_life;
mod peers;
mod ports;
mod quota;
mod reload;
mod replay;
mod restart;
mod retry;
mod silence;
mod store;
mod subscribers;
mod terminal;
mod trace;
mod vlan;
mod watchdog;
