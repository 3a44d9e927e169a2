//! The controllers: observe -> plan -> act -> report, one file per kind.
//!
//! What to do next is decided in `plan`; how to talk to the API server is in `cluster`; engines are asked through
//! `channel::hub`. Nothing here keeps state that a restart could miss, except passwords on their way into a Secret.

pub mod abandon;
pub mod admission;
pub mod audit;
pub mod bound;
pub mod cached_lease;
pub mod closing;
pub mod context;
pub mod controllers;
pub mod credential_cache;
pub mod crowd;
pub mod deferred_wakes;
pub mod definitions;
pub mod deployment;
pub mod directory;
pub mod door;
pub mod dynamic_secret;
pub mod engine;
pub mod engine_key;
pub mod group_commit;
pub mod guards;
pub mod hold;
pub mod keys;
pub mod leap;
pub mod lease;
pub mod lease_index;
pub mod making;
pub mod memory;
pub mod occupied;
pub mod once;
pub mod operator;
pub mod own_writes;
pub mod password_stock;
pub mod ping;
pub mod places;
pub mod pool;
pub mod prepare;
pub mod recent_records;
pub mod registration;
pub mod report;
pub mod revocations;
pub mod run;
pub mod servers;
pub mod silence;
pub mod sweep;
pub mod sync;
pub mod takeon;
pub mod tasks;
pub mod trial;
pub mod uninstall;
pub mod watches;
