//! Everything that talks to the API server: reading, claiming, writing with preconditions, leadership, Events.
//!
//! No business rules: what to do is decided in `plan`, when to do it in `control`.

pub mod leadership;
pub mod rights;
