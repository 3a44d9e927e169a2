//! Custom resources of the group `dsv.dev` and the words they are made of: types, schema and parsing.
//!
//! No client, no clock, no randomness, and nothing that decides.

pub mod base_secret;
pub mod conditions;
pub mod dsv_tenant;
pub mod dynamic_secret;
pub mod engine;
pub mod grants;
pub mod lease;
pub mod names;
pub mod permissions;
pub mod pool;
pub mod secret_sync;
pub mod target;
pub mod ttl;

pub use dsv_tenant::{DsvTenant, DsvTenantSpec, DsvTenantStatus};
pub use dynamic_secret::{DynamicSecret, DynamicSecretSpec, DynamicSecretStatus};
pub use engine::{Engine, EngineSpec, EngineStatus};
pub use lease::{Claim, CredentialLease, CredentialLeaseSpec, CredentialLeaseStatus};
pub use pool::{EnginePool, EnginePoolSpec, EnginePoolStatus};
pub use secret_sync::{SecretSync, SecretSyncSpec, SecretSyncStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

/// The definitions of all kinds, for installation.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        EnginePool::crd(),
        Engine::crd(),
        DynamicSecret::crd(),
        CredentialLease::crd(),
        DsvTenant::crd(),
        SecretSync::crd(),
    ];
    for version in all.iter_mut().flat_map(|definition| &mut definition.spec.versions) {
        if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            forbid_null(schema);
        }
    }
    all
}

/// A null that may be stored counts as a field that is there: `has()` in a rule would take `grants: null` for grants.
/// Where it may not, the API server takes it for absent.
fn forbid_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema
        .properties
        .iter_mut()
        .flat_map(|all| all.values_mut())
        .for_each(forbid_null);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        forbid_null(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        forbid_null(values);
    }
}
