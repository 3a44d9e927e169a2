//! Keeping a secret in step at a DSV tenant: what is pushed, when, where to, and what follows from what is there.

pub mod breaker;
pub mod content;
pub mod destination;
pub mod due;
pub mod source;
pub mod step;
