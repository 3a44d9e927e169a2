//! Just-in-time accounts in PostgreSQL: the SQL that issues and revokes them, and how it is run.
//!
//! What may be said here: SQL, sessions, and what a server's answers mean. What may not: Kubernetes, the operator, and any
//! decision about *whether* an account should live. A task comes in as the frames carry it ([`crate::channel::frames`]), an
//! outcome goes out; [`Servers`] is the only way in.
//!
//! Rules that every statement here keeps:
//! - A name or value reaches SQL text only as [`sql::Ident`] or [`sql::Literal`], which quote or refuse; as a parameter; or in
//!   a statement that the server composed and quoted itself.
//! - No statement holds a plaintext password: accounts get a SCRAM verifier, checked for its exact shape.
//! - What must not race is done under `pg_advisory_xact_lock` in the maintenance database: on the lease UID for an account,
//!   on the name for a group role.
//! - A role is ours by its signed comment, compared null-safely and under the lock, never by its name.
//! - `search_path` is `pg_catalog`: a function planted in `public` never runs with our rights.

mod barrier;
mod blockers;
mod clock;
mod connect;
mod dead_man;
mod failure;
mod functions;
mod grants;
mod group;
mod handover;
mod history;
mod inventory;
mod issue;
mod keeper;
mod names;
mod pace;
mod pool;
mod probe;
mod proof;
mod revoke;
mod servers;
mod sessions;
mod sql;
mod standby;
mod tls;
mod ungroup;
mod zombies;

pub use dead_man::Swept;
pub use functions::install;
pub use issue::preview;
pub use proof::{Proof, Signers};
pub use servers::Servers;
