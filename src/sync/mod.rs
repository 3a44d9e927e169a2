//! The client of a DSV tenant that secrets are pushed to: logging in, reading, writing and deleting one secret.
//!
//! Where it connects to is checked after the name was resolved, and the checked address is the one that is used. Nothing here
//! knows Kubernetes or decides what is pushed. No error, log line or `Debug` holds a value, nor what a tenant answered.

mod guard;
mod tenant;
mod transport;

pub use tenant::{Login, Tenant, TenantHolds};
pub use transport::{PushError, Settings};
