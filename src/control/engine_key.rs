//! Changing the key of an engine, one record after the other. What is due, and what an interrupted change needs, is decided in
//! `plan::engine_key`; the Secret is `registration`'s.

use super::context::Context;
use super::hold::Error;
use super::registration::{self, Place};
use crate::api::conditions::Reason;
use crate::api::engine::PreviousKey;
use crate::api::names::{KEY_MADE, ROTATE_KEY};
use crate::api::{Engine, EnginePool};
use crate::cluster::{Intention, status};
use crate::plan::engine_key::{self, Due, Facts, Held, OVERLAP, Step, USUAL_AGE};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt};

/// Whether this pass changed the key, so that another pass follows.
pub enum Pass {
    /// It is another one now.
    Changed,
    /// Nothing to do before this.
    Until(Option<Timestamp>),
}

/// Changes the key if that is due. Only for an engine whose key the operator made.
pub async fn change(ctx: &Context, engine: &Engine, pool: Option<&EnginePool>, place: &Place) -> Result<Pass, Error> {
    let uid = engine.uid().unwrap_or_default();
    // An engine elsewhere has to be told by a person, so its key changes only when one asks.
    let facts = facts(ctx, engine, pool.filter(|_| place.is_managed()), &uid);
    match engine_key::due(&facts) {
        Due::Never => return Ok(Pass::Until(None)),
        Due::At(then) => return Ok(Pass::Until(Some(then))),
        Due::Now => {}
    }
    ctx.still_leading()?;
    let found = registration::read(ctx, place).await?;
    match engine_key::step(&facts, held(engine, found.as_ref(), place)) {
        Step::Change => {
            let (engine, since) = replace(ctx, engine, place, found).await?;
            told(ctx, &engine, since).await?;
            let message = format!(
                "the engine has another key, in Secret {}/{}; the one before is accepted for {} hours more",
                place.namespace,
                place.name,
                OVERLAP.as_hours()
            );
            tracing::info!(engine = engine.name_any(), "the key of an engine was changed");
            ctx.tell(&engine, Reason::KeyChanged, &message, EventType::Normal).await;
            Ok(Pass::Changed)
        }
        Step::Tell => {
            let since = facts.previous_until.and_then(|until| until.checked_sub(OVERLAP).ok());
            told(ctx, engine, since.unwrap_or(facts.now)).await?;
            Ok(Pass::Changed)
        }
        Step::Leave => {
            told(ctx, engine, facts.now).await?;
            let message = "the engine's key was not made by the operator, so it is not changed by it; \
                           put another one into spec.publicKey, and the one before into spec.previousPublicKey";
            ctx.tell(engine, Reason::KeyChanged, message, EventType::Warning).await;
            Ok(Pass::Until(None))
        }
    }
}

fn facts<'a>(ctx: &Context, engine: &'a Engine, pool: Option<&EnginePool>, uid: &'a str) -> Facts<'a> {
    let status = engine.status.as_ref();
    let made = engine.metadata.creation_timestamp.as_ref();
    let since = status.and_then(|status| status.key_since.as_ref()).or(made);
    let previous = engine.spec.previous_public_key.as_ref();
    Facts {
        now: ctx.now(),
        since: since.map_or(Timestamp::UNIX_EPOCH, |since| since.0),
        age: pool.and_then(age),
        asked: engine.annotations().get(ROTATE_KEY).map(String::as_str),
        answered: status.and_then(|status| status.answered_rotate_key.as_deref()),
        ours: engine
            .annotations()
            .get(KEY_MADE)
            .is_some_and(|made| engine.spec.public_key.as_ref() == Some(made)),
        previous_until: previous.map(|previous| previous.until.0),
        uid,
    }
}

/// Age at which keys of a pool's managed engines are changed; none: never.
fn age(pool: &EnginePool) -> Option<SignedDuration> {
    let Some(wish) = &pool.spec.engines.as_ref()?.key_rotation else {
        return Some(USUAL_AGE);
    };
    let age = SignedDuration::try_from(wish.length()?).ok()?;
    (!age.is_zero()).then_some(age)
}

fn held(engine: &Engine, found: Option<&Secret>, place: &Place) -> Held {
    let Some(found) = found else { return Held::Nothing };
    let Ok(key) = registration::key_in(found, engine, place) else {
        return Held::Foreign;
    };
    let key = key.public().to_string();
    let previous = engine.spec.previous_public_key.as_ref();
    if engine.spec.public_key.as_ref() == Some(&key) {
        Held::Current
    } else if previous.is_some_and(|previous| previous.key == key) {
        Held::Previous
    } else {
        Held::Foreign
    }
}

/// First both keys are accepted, then the new one is handed out: the Secret never holds one that is refused.
async fn replace(
    ctx: &Context,
    engine: &Engine,
    place: &Place,
    found: Option<Secret>,
) -> Result<(Engine, Timestamp), Error> {
    let key = registration::new_key(ctx, engine)?;
    let now = ctx.now();
    let in_use = found
        .as_ref()
        .and_then(|found| registration::key_in(found, engine, place).ok())
        .map(|key| key.public().to_string())
        .or_else(|| engine.spec.public_key.clone());
    let previous = in_use.map(|key| PreviousKey {
        key,
        until: Time(now.saturating_add(OVERLAP).unwrap_or(Timestamp::MAX)),
    });
    let patch = serde_json::json!({
        "metadata": {
            "uid": engine.uid(),
            "resourceVersion": engine.resource_version(),
            "annotations": {KEY_MADE: key.public().to_string()},
        },
        "spec": {"publicKey": key.public().to_string(), "previousPublicKey": previous},
    });
    let (namespace, name) = (engine.namespace().unwrap_or_default(), engine.name_any());
    let api: Api<Engine> = Api::namespaced(ctx.client.clone(), &namespace);
    let written = api
        .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .to(|| format!("write the new public key of engine {namespace}/{name}"))?;
    registration::hand_out(ctx, engine, place, found, &key).await?;
    Ok((written, now))
}

async fn told(ctx: &Context, engine: &Engine, since: Timestamp) -> Result<(), Error> {
    let asked = engine.annotations().get(ROTATE_KEY).cloned();
    status::amend(&ctx.client, engine, |engine| {
        let status = engine.status.get_or_insert_default();
        status.key_since = Some(Time(since));
        status.answered_rotate_key.clone_from(&asked);
        true
    })
    .await?;
    Ok(())
}
