//! What a user sees when a credential cannot be issued: a reason and a sentence with the next step, nothing made anywhere,
//! no storm of attempts; and when the fault is mended the credential comes by itself.

// Tables of faults are long, and their rows are plain.
#![allow(
    clippy::too_many_lines,
    clippy::struct_excessive_bools,
    clippy::needless_pass_by_value,
    clippy::similar_names,
    clippy::type_complexity,
    clippy::semicolon_if_nothing_returned
)]

mod access;
mod base_secrets;
mod kube_client;
mod leases;
mod names;
mod pools;
mod servers;
mod targets;
mod tenants;
mod trial;
mod world;
