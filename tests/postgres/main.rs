//! The `postgres` module against real servers. Each test's name is the guarantee that it holds.

// Clippy's leave for tests covers only functions marked as tests, not those that they share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_in_result
)]

mod blocked;
mod connect;
mod dead_man;
mod engine;
mod functions;
mod functions_refuse;
mod group;
mod inventory;
mod issue;
mod proxy;
mod resist;
mod resist_by_hand;
mod revoke;
mod signers;
mod snapshot;
mod standby;
mod ungroup;
mod world;
