//! The Secret that an engine is started with, where the operator made its key: beside the Engine, or for managed ones beside
//! their Deployment. When a key is changed is decided in `plan::engine_key`.

use super::context::Context;
use super::hold::{Error, Hold};
use crate::api::Engine;
use crate::api::conditions::Reason;
use crate::api::names::{
    ENGINE_LABEL, MANAGED_BY, OPERATOR, REGISTRATION_SECRET_TYPE, managed_engine, registration_secret,
};
use crate::cluster::objects;
use crate::keys::{EngineKey, SecretText};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;

/// Key of the Secret with the private key.
const PRIVATE_KEY: &str = "DSV_PRIVATE_KEY";

/// Where the registration Secret of an engine is.
pub struct Place {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    managed: bool,
}

impl Place {
    /// Whether the engine runs in the cluster.
    pub fn is_managed(&self) -> bool {
        self.managed
    }
}

/// Where the registration Secret of an engine is.
pub fn place(ctx: &Context, engine: &Engine, managed: bool) -> Place {
    let (namespace, name) = if managed {
        let uid = engine.uid().unwrap_or_default();
        (ctx.settings.home.clone(), managed_engine(&uid).unwrap_or_default())
    } else {
        let own = engine.namespace().unwrap_or_default();
        (own, registration_secret(&engine.name_any()))
    };
    Place {
        namespace,
        name,
        managed,
    }
}

/// What is there.
pub async fn read(ctx: &Context, place: &Place) -> Result<Option<Secret>, Error> {
    Ok(objects::read::<Secret>(&ctx.client, &place.namespace, &place.name).await?)
}

/// A key for this engine, not yet known to anybody.
pub fn new_key(ctx: &Context, engine: &Engine) -> Result<EngineKey, Error> {
    let namespace = engine.namespace().unwrap_or_default();
    EngineKey::generate(ctx.installation.root.hash(), &namespace).map_err(|error| surprise(&error).into())
}

/// The key to begin with: a Secret that is already there is read, so a crash after it makes no second key.
pub async fn first_key(ctx: &Context, engine: &Engine, place: &Place) -> Result<Result<EngineKey, Hold>, Error> {
    if let Some(found) = read(ctx, place).await? {
        return Ok(key_in(&found, engine, place));
    }
    let made = new_key(ctx, engine)?;
    match objects::make(&ctx.client, &place.namespace, &compose(ctx, engine, place, &made)).await {
        Ok(_) => Ok(Ok(made)),
        Err(error) if error.is_conflict() => {
            let rival = read(ctx, place).await?;
            Ok(rival.map_or_else(|| Err(not_ours(place)), |found| key_in(&found, engine, place)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Hands a new key out: in the Secret that was read, or in a new one where there was none.
pub async fn hand_out(
    ctx: &Context,
    engine: &Engine,
    place: &Place,
    found: Option<Secret>,
    key: &EngineKey,
) -> Result<(), Error> {
    let Some(mut secret) = found else {
        objects::make(&ctx.client, &place.namespace, &compose(ctx, engine, place, key)).await?;
        return Ok(());
    };
    let bytes = ByteString(key.text().reveal().as_bytes().to_vec());
    secret
        .data
        .get_or_insert_default()
        .insert(PRIVATE_KEY.to_owned(), bytes);
    objects::replace(&ctx.client, &place.namespace, &secret).await?;
    Ok(())
}

fn surprise(error: &dyn std::error::Error) -> crate::cluster::Error {
    crate::cluster::Error {
        intention: format!("make an engine key: {error}"),
        source: Box::new(kube::Error::Service(error.to_string().into())),
    }
}

fn not_ours(place: &Place) -> Hold {
    let Place { namespace, name, .. } = place;
    Hold::new(
        Reason::TargetNotOurs,
        format!("Secret {namespace}/{name} exists and is not this engine's registration; delete or rename it"),
    )
}

/// The key in a registration Secret, if the Secret is this Engine's.
pub fn key_in(secret: &Secret, engine: &Engine, place: &Place) -> Result<EngineKey, Hold> {
    let refused = || not_ours(place);
    let ours = secret.labels().get(ENGINE_LABEL) == engine.uid().as_ref()
        && secret.labels().get(MANAGED_BY).map(String::as_str) == Some(OPERATOR);
    let bytes = secret
        .data
        .as_ref()
        .and_then(|data| data.get(PRIVATE_KEY))
        .filter(|_| ours)
        .ok_or_else(refused)?;
    let text = String::from_utf8(bytes.0.clone()).map_err(|_| refused())?;
    EngineKey::parse(&SecretText::new(text)).map_err(|_| refused())
}

fn compose(ctx: &Context, engine: &Engine, place: &Place, key: &EngineKey) -> Secret {
    let data = [
        ("ENGINE_NAME", engine.name_any()),
        ("DSV_ENDPOINT", ctx.settings.engine_endpoints.join(",")),
        (PRIVATE_KEY, key.text().reveal().to_owned()),
    ];
    let labels: BTreeMap<String, String> = [
        (MANAGED_BY, OPERATOR.to_owned()),
        (ENGINE_LABEL, engine.uid().unwrap_or_default()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    Secret {
        metadata: ObjectMeta {
            name: Some(place.name.clone()),
            namespace: Some(place.namespace.clone()),
            labels: Some(labels),
            // An owner in another namespace is not allowed; a managed engine's Secret is deleted with its Engine by us.
            owner_references: (!place.managed).then(|| engine.controller_owner_ref(&()).into_iter().collect()),
            ..ObjectMeta::default()
        },
        type_: Some(REGISTRATION_SECRET_TYPE.to_owned()),
        data: Some(
            data.into_iter()
                .map(|(k, v)| (k.to_owned(), ByteString(v.into_bytes())))
                .collect(),
        ),
        ..Secret::default()
    }
}
