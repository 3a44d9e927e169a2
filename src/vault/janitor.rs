//! What nobody asks for and must happen all the same: the first administrator of the default tenant, and the end of what was
//! softly deleted or has ended. Where nothing is due, nothing is asked of the API server.

use super::Vault;
use super::ids::Kind;
use super::time;
use crate::cluster::objects;
use k8s_openapi::api::core::v1::Secret;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(600);
/// After something that did not work.
const AGAIN: Duration = Duration::from_secs(5);

/// Runs for ever.
pub async fn run(vault: Arc<Vault>) {
    let mut namespaces = vault.namespaces.subscribe();
    vault.until_ready().await;
    loop {
        let worked = round(&vault).await;
        let pause = if worked { EVERY } else { AGAIN };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // The default tenant's namespace may just have come.
            changed = namespaces.changed(), if worked => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn round(vault: &Vault) -> bool {
    let mut worked = true;
    if let Some(tenant) = vault.tenant(None)
        && let Err(refusal) = vault.see_to_admin(&tenant).await
    {
        tracing::warn!(
            refusal.message,
            "the first administrator could not be made; trying again"
        );
        worked = false;
    }
    for entry in vault.records.everything() {
        let known = &entry.value;
        let ended = known.record.time("expires").is_some_and(|end| time::now() >= end);
        let over = known.record.deleted.is_some_and(time::is_over)
            || (ended && matches!(known.kind, Kind::Refresh | Kind::Session));
        if over {
            worked &= remove(vault, &entry.namespace, &entry.object, &entry.version).await;
        }
    }
    for entry in vault.secrets.everything() {
        if entry.value.item.is_over() {
            worked &= remove(vault, &entry.namespace, &entry.object, &entry.version).await;
        }
    }
    for entry in vault.dynamic.everything() {
        if entry.value.item.is_over()
            && let Some(object) = &entry.value.dynamic
        {
            let deleted = objects::delete(&vault.client, object.as_ref()).await;
            worked &= deleted.is_ok();
        }
    }
    worked
}

/// Only the version that was seen: what somebody restored in this moment stays.
async fn remove(vault: &Vault, namespace: &str, name: &str, version: &str) -> bool {
    let found = objects::read::<Secret>(&vault.client, namespace, name).await;
    match found {
        Ok(Some(secret)) if secret.metadata.resource_version.as_deref() == Some(version) => {
            objects::take(&vault.client, &secret).await.is_ok()
        }
        Ok(_) => true,
        Err(_) => false,
    }
}
