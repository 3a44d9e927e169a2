//! The agent: keeps a link to the operator and does its tasks on databases.
//!
//! It has no Kubernetes rights and decides nothing: what may be issued, for whom and for how long was decided by the
//! operator. Databases are behind [`Accounts`]; this module never speaks SQL.

mod accounts;
mod config;
mod databases;
mod dead_man;
mod dispatch;
mod health;
mod keygen;
mod metrics;
mod proven;
mod register;
mod run;
mod service;
mod start;
mod wizard;

pub use accounts::Accounts;
pub use config::{ConfigError, RunArgs, Settings};
pub use dispatch::Dispatcher;
pub use health::router as health_router;
pub use keygen::{KeygenArgs, KeygenError, keygen};
pub use metrics::EngineMetrics;
pub use register::{RegisterArgs, RegisterError, Registration, register};
pub use run::{RunError, run};
pub use service::{ServiceArgs, ServiceError, service};
pub use start::{StartError, register_and_store, settings};
