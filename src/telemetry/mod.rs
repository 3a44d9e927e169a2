//! What the programs tell about themselves: logs, metrics, whether they are alive and ready.
//!
//! Nothing here decides anything. Label values come from enums only, never from names of objects, so that the number of
//! series has a limit.

pub mod api_writes;
pub mod http;
pub mod ledger;
pub mod liveness;
pub mod logs;
pub mod metrics;
pub mod readiness;
pub mod version;
