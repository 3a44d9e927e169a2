//! What the tests of the documentation stand on.

pub mod text;
pub mod world;
