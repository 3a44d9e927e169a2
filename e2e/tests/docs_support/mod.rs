//! What the tests of the documentation stand on.

pub mod argocd;
mod monitoring;
pub mod text;
pub mod tutorial;
pub mod world;
