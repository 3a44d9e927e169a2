//! Pure decisions: what is observed and what time it is -> one next step.
//!
//! Nothing here waits, asks, or rolls dice: no async, no client, no clock of its own. So every decision can be tested as
//! a table, and the whole life of a lease under crashes (`tests/model.rs`).

pub mod abandon;
pub mod audit;
pub mod backoff;
pub mod bound;
pub mod consent;
pub mod dead_man;
pub mod dynamic_secret;
pub mod engine_key;
pub mod lease;
pub mod restart;
pub mod shape;
pub mod sync;
pub mod template;
