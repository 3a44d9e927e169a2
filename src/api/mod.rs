//! Custom resources of the group `dsv.dev` and the words they are made of: types, schema and parsing.
//!
//! No client, no clock, no randomness, and nothing that decides.

pub mod grants;
