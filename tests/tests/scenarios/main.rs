//! The scenarios: the agent and its tools on real bridges, through what its users hold in their
//! hands and nothing else.

mod allocate;
mod bad_input;
mod bridge;
mod children;
mod claims;
mod commands;
mod cooling;
mod demo;
mod exhaustion;
mod http;
mod incident;
mod loss;
mod operators;
mod ordinary_life;
mod peers;
mod ports;
mod quota;
mod restart;
mod store;
mod vlan;
