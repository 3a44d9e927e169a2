//! The channel between operator and engine: frames, handshake, the operator's hub and the engine's link.
//!
//! Nothing here knows Kubernetes or PostgreSQL: tasks and outcomes are carried, not understood.

pub mod frames;
