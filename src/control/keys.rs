//! The Secrets of the operator's namespace while this process leads: keys are put back if they are deleted and rotated when
//! somebody asks; of server records engines are told.

use super::context::Context;
use super::run::certify;
use crate::api::names::{BASE_SECRET_LABEL, MANAGED_BY, OPERATOR, ROOT_SECRET, SIGNING_SECRET};
use crate::api::{Engine, EnginePool};
use crate::channel::hub::HubIdentity;
use crate::clock;
use crate::cluster::installation::{self, InstallationError};
use crate::cluster::{Intention, signing_keys, status};
use crate::telemetry::logs::chain;
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, PartialObjectMeta};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use std::sync::Arc;
use std::time::Duration;

/// Pause after a failure.
const AGAIN: Duration = Duration::from_secs(2);

/// Follows the Secrets of the operator's namespace that are ours.
pub async fn follow(ctx: Arc<Context>, identity: Arc<HubIdentity>) {
    let (records, secrets) = watch(&ctx.client, &ctx.settings.home);
    let mut secrets = std::pin::pin!(secrets);
    loop {
        match secrets.try_next().await {
            Ok(Some(secret)) => {
                let name = secret.name_any();
                if [ROOT_SECRET, SIGNING_SECRET].contains(&name.as_str()) {
                    look_until_done(&ctx, &identity).await;
                } else if secret.labels().contains_key(BASE_SECRET_LABEL) {
                    let record = records.get(&ObjectRef::from_obj(&secret));
                    ctx.guards
                        .record(&name, record.and_then(|record| record.resource_version()));
                }
            }
            Ok(None) => return,
            // The watch backs off and starts anew by itself.
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the watch of the operator's own Secrets was interrupted"
            ),
        }
    }
}

fn watch(
    client: &Client,
    home: &str,
) -> (
    Store<PartialObjectMeta<Secret>>,
    impl Stream<Item = Result<PartialObjectMeta<Secret>, watcher::Error>> + Send + use<>,
) {
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), home);
    let ours = watcher::Config::default().labels(&format!("{MANAGED_BY}={OPERATOR}"));
    let (store, writer) = reflector::store();
    let stream = watcher(api, ours).default_backoff().reflect(writer).touched_objects();
    (store, stream.boxed())
}

async fn look_until_done(ctx: &Context, identity: &HubIdentity) {
    while ctx.still_leading().is_ok() {
        match look(ctx, identity).await {
            Ok(()) => return,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(%error, "the installation's keys could not be looked after; trying again");
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn look(ctx: &Context, identity: &HubIdentity) -> Result<(), InstallationError> {
    let (home, installation) = (&ctx.settings.home, &ctx.installation);
    for secret in installation::put_back(&ctx.client, home, installation).await? {
        tracing::warn!(
            secret,
            "a Secret with a key of the installation was deleted; it is put back with the same key"
        );
    }
    if !signing_keys::follow(&ctx.client, home, installation).await? {
        return Ok(());
    }
    let public_key = installation.signing().public();
    tracing::info!(%public_key, known = installation.signers().len(), "another key signs role comments from now on");
    // Engines hear of it with their next session.
    match certify(installation, &identity.public()) {
        Ok(certificate) => identity.renew(certificate),
        Err(error) => tracing::error!(error = %chain(&error), "could not renew the channel certificate"),
    }
    Ok(())
}

/// Says on every engine and pool that nothing goes on without the root key: whoever looks there does not read our log.
pub async fn say_root_key_missing(client: &Client, message: &str) -> Result<(), crate::cluster::Error> {
    let now = clock::now();
    let engines: Api<Engine> = Api::all(client.clone());
    let pools: Api<EnginePool> = Api::all(client.clone());
    let everything = ListParams::default();
    for engine in engines
        .list(&everything)
        .await
        .to(|| "list the engines".to_owned())?
        .items
    {
        status::amend(client, &engine, |engine| {
            let generation = engine.metadata.generation;
            let conditions = &mut engine.status.get_or_insert_default().conditions;
            say(conditions, message, generation, now)
        })
        .await?;
    }
    for pool in pools.list(&everything).await.to(|| "list the pools".to_owned())?.items {
        status::amend(client, &pool, |pool| {
            let generation = pool.metadata.generation;
            let conditions = &mut pool.status.get_or_insert_default().conditions;
            say(conditions, message, generation, now)
        })
        .await?;
    }
    Ok(())
}

fn say(
    conditions: &mut Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
    message: &str,
    generation: Option<i64>,
    now: jiff::Timestamp,
) -> bool {
    use crate::api::conditions::{Reason, set_ready};
    let before = conditions.clone();
    set_ready(conditions, Reason::RootKeyMissing, message, generation, now);
    *conditions != before
}
