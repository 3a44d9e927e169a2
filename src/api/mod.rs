//! Custom resources of the group `dsv.dev` and the words they are made of: types, schema and parsing.
//!
//! No client, no clock, no randomness, and nothing that decides.

pub mod base_secret;
pub mod conditions;
pub mod dynamic_secret;
pub mod engine;
pub mod grants;
pub mod lease;
pub mod names;
pub mod permissions;
pub mod pool;
pub mod ttl;

pub use dynamic_secret::{DynamicSecret, DynamicSecretSpec, DynamicSecretStatus};
pub use engine::{Engine, EngineSpec, EngineStatus};
pub use lease::{Claim, CredentialLease, CredentialLeaseSpec, CredentialLeaseStatus};
pub use pool::{EnginePool, EnginePoolSpec, EnginePoolStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The definitions of all kinds, for installation.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        EnginePool::crd(),
        Engine::crd(),
        DynamicSecret::crd(),
        CredentialLease::crd(),
    ]
}
