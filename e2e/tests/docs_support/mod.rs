//! What the tests of the documentation stand on.

pub mod accounts;
pub mod argocd;
mod generated;
mod monitoring;
pub mod tenant;
pub mod text;
pub mod tutorial;
pub mod world;
