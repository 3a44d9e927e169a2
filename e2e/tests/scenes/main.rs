//! Scenarios in one installation: a team's databases and another team's dynamic secrets, in namespaces of their own. Whoever
//! ends the operator, changes its settings or counts its requests has a program of his own and does not belong here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod abandon;
mod deletions;
mod engine_keys;
mod engines;
mod fields;
mod functions;
mod modes;
mod refusals;
