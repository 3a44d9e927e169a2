//! Which engines may connect: Engine objects as the hub's directory.

use crate::api::names::base32_uid;
use crate::api::{Engine, EnginePool};
use crate::channel::hub::{EngineDirectory, Registration};
use crate::clock;
use crate::keys::EnginePublicKey;
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};

/// The caches of engines and pools. Only an engine whose pool exists connects: its tasks are chosen by the pool's UID. A
/// deleted pool stays until its leases have ended, so until then somebody can take their accounts back.
pub struct Directory {
    /// Engines.
    pub engines: Store<Engine>,
    /// Pools.
    pub pools: Store<EnginePool>,
}

impl EngineDirectory for Directory {
    fn find(&self, namespace: &str, name: &str) -> Option<Registration> {
        let engine = self.engines.get(&ObjectRef::new(name).within(namespace))?;
        let pool = self.pools.get(&ObjectRef::new(&engine.spec.pool).within(namespace))?;
        let uid = engine.uid()?;
        base32_uid(&uid)?;
        let now = clock::now();
        let previous = engine
            .spec
            .previous_public_key
            .as_ref()
            .filter(|key| now < key.until.0)
            .map(|key| key.key.as_str());
        let keys = engine.spec.public_key.as_deref().into_iter().chain(previous);
        Some(Registration {
            engine_uid: uid,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            pool_uid: pool.uid()?,
            public_keys: keys.filter_map(|key| key.parse::<EnginePublicKey>().ok()).collect(),
            disabled: engine.spec.disabled == Some(true),
            revocations_only: engine.metadata.deletion_timestamp.is_some(),
        })
    }
}
