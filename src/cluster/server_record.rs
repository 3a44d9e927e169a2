//! Server records: the operator's own copies of base secrets, so that revoking needs nobody else's objects.
//!
//! A record's identity (namespace, host, port, database, user) is in its name and never changes; password and TLS are
//! refreshed. Two base secrets of one namespace that mean the same login share one record.

use super::{Error, Intention, objects};
use crate::api::names::{BASE_SECRET_LABEL, INTERNAL_SECRET_TYPE, MANAGED_BY, OPERATOR, base32_hash};
use crate::channel::frames::ServerLogin;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, ResourceExt};

/// Annotation: namespace of the base secrets.
const NAMESPACE: &str = "dsv.dev/base-namespace";
/// The key that holds the login.
const LOGIN: &str = "login.json";

/// Name of the record for a login that lies in a namespace.
pub fn name(namespace: &str, login: &ServerLogin) -> String {
    let port = login.port.to_string();
    let hash = base32_hash(&[namespace, &login.host, &port, &login.database, &login.username]);
    format!("server-{hash}")
}

/// Makes or refreshes the record. `base` is the base secret that the login was read from.
pub async fn keep(client: &Client, home: &str, base: &Secret, login: &ServerLogin) -> Result<(), Error> {
    for _ in 0..3 {
        match objects::read::<Secret>(client, home, &login.record).await? {
            None => match objects::make(client, home, &compose(home, base, login)?).await {
                Err(error) if error.is_conflict() => {}
                other => return other.map(|_| ()),
            },
            Some(old) if decode(&old).as_ref() == Some(login) => return Ok(()),
            Some(old) => {
                let mut new = compose(home, base, login)?;
                new.metadata.resource_version.clone_from(&old.metadata.resource_version);
                match objects::replace(client, home, &new).await {
                    Err(error) if error.is_conflict() => {}
                    other => return other.map(|_| ()),
                }
            }
        }
    }
    // A rival wrote the same record each time: it holds the same login or a newer one.
    Ok(())
}

/// The login in a record; none where the record is gone or cannot be read.
pub async fn login(client: &Client, home: &str, record: &str) -> Result<Option<ServerLogin>, Error> {
    Ok(objects::read::<Secret>(client, home, record)
        .await?
        .as_ref()
        .and_then(decode))
}

/// Deletes a record that nothing needs any more.
pub async fn drop(client: &Client, home: &str, record: &str) -> Result<(), Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), home);
    let seen = api
        .get_metadata_opt(record)
        .await
        .to(|| format!("read secret {home}/{record}"))?;
    match seen {
        Some(seen) => super::credential_secret::delete(client, home, record, &seen.metadata).await,
        None => Ok(()),
    }
}

fn compose(home: &str, base: &Secret, login: &ServerLogin) -> Result<Secret, Error> {
    let text = serde_json::to_vec(login)
        .map_err(kube::Error::SerdeError)
        .to(|| "write down a server record".to_owned())?;
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(login.record.clone()),
            namespace: Some(home.to_owned()),
            labels: Some(
                [
                    (MANAGED_BY, OPERATOR.to_owned()),
                    (BASE_SECRET_LABEL, base.uid().unwrap_or_default()),
                ]
                .map(|(key, value)| (key.to_owned(), value))
                .into(),
            ),
            annotations: Some([(NAMESPACE.to_owned(), base.namespace().unwrap_or_default())].into()),
            ..ObjectMeta::default()
        },
        type_: Some(INTERNAL_SECRET_TYPE.to_owned()),
        data: Some([(LOGIN.to_owned(), ByteString(text))].into()),
        ..Secret::default()
    })
}

fn decode(secret: &Secret) -> Option<ServerLogin> {
    let bytes = secret.data.as_ref()?.get(LOGIN)?;
    let mut login: ServerLogin = serde_json::from_slice(&bytes.0).ok()?;
    login.record = secret.name_any();
    Some(login)
}
