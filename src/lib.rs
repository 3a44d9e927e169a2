//! Just-in-time PostgreSQL accounts for Kubernetes: the library behind `dsv-operator`, `dsv-engine` and `kubectl-dsv`.
//!
//! The layers, lowest first; a module uses only modules of the layers before its own (held by `tests/layers.rs`):
//! `api`, `channel`, `keys` <- `plan` <- `postgres`, `sync`, `cluster` <- `engine`, `control`, `vault` <- the programs.

#[macro_use]
mod failpoint;

pub mod api;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod control;
pub mod engine;
pub mod keys;
pub mod plan;
pub mod postgres;
pub mod reference;
pub mod sync;
pub mod telemetry;
pub mod vault;
