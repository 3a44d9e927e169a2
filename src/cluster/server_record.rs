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
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

/// Annotation: namespace of the base secrets.
const NAMESPACE: &str = "dsv.dev/base-namespace";
/// Annotation: which history the server wrote when its roles and the books agreed last.
const HISTORY: &str = "dsv.dev/history";
/// The key that holds the login.
const LOGIN: &str = "login.json";

/// Name of the record for a login that lies in a namespace.
pub fn name(namespace: &str, login: &ServerLogin) -> String {
    let port = login.port.to_string();
    let hash = base32_hash(&[namespace, &login.host, &port, &login.database, &login.username]);
    format!("server-{hash}")
}

/// A record as read.
#[derive(Debug, Clone)]
pub struct Record {
    /// What it holds; `record` in it is its name.
    pub login: ServerLogin,
    /// Namespace of the base secrets.
    pub namespace: String,
    /// Which history the server wrote when its roles and the books agreed last, if that is known.
    pub history: Option<String>,
    meta: ObjectMeta,
}

/// All records, in one request.
pub async fn all(client: &Client, home: &str) -> Result<Vec<Record>, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), home);
    let ours = ListParams::default().labels(&format!("{MANAGED_BY}={OPERATOR},{BASE_SECRET_LABEL}"));
    let list = api
        .list(&ours)
        .await
        .to(|| format!("list the server records in {home}"))?;
    let record = |secret: Secret| {
        let login = decode(&secret)?;
        Some(Record {
            login,
            namespace: secret.annotations().get(NAMESPACE).cloned().unwrap_or_default(),
            history: secret.annotations().get(HISTORY).cloned(),
            meta: secret.metadata,
        })
    };
    Ok(list.items.into_iter().filter_map(record).collect())
}

/// Writes down the history in which roles and books agree, on exactly the version that was read.
pub async fn note_history(client: &Client, home: &str, record: &Record, history: &str) -> Result<(), Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), home);
    let name = &record.login.record;
    let patch = json!({"metadata": {
        "uid": record.meta.uid,
        "resourceVersion": record.meta.resource_version,
        "annotations": {HISTORY: history},
    }});
    let patched = api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched
        .map(|_| ())
        .to(|| format!("write the history of server record {home}/{name}"))
}

/// Deletes exactly the version of the record that was read. Absent is success.
pub async fn remove(client: &Client, home: &str, record: &Record) -> Result<(), Error> {
    super::credential_secret::delete(client, home, &record.login.record, &record.meta).await
}

/// Makes or refreshes the record; true where there was none. `base` is the base secret that the login was read from.
pub async fn keep(client: &Client, home: &str, base: &Secret, login: &ServerLogin) -> Result<bool, Error> {
    for _ in 0..3 {
        match objects::read::<Secret>(client, home, &login.record).await? {
            None => match objects::make(client, home, &compose(home, base, login)?).await {
                Err(error) if error.is_conflict() => {}
                other => return other.map(|_| true),
            },
            Some(old) if decode(&old).as_ref() == Some(login) => return Ok(false),
            Some(old) => {
                let mut new = compose(home, base, login)?;
                new.metadata.resource_version.clone_from(&old.metadata.resource_version);
                // What was written down about the server stays true with another password.
                let mut annotations = old.annotations().clone();
                annotations.extend(new.annotations().clone());
                new.metadata.annotations = Some(annotations);
                match objects::replace(client, home, &new).await {
                    Err(error) if error.is_conflict() => {}
                    other => return other.map(|_| false),
                }
            }
        }
    }
    // A rival wrote the same record each time: it holds the same login or a newer one.
    Ok(false)
}

/// The login in a record; none where the record is gone or cannot be read.
pub async fn login(client: &Client, home: &str, record: &str) -> Result<Option<ServerLogin>, Error> {
    Ok(objects::read::<Secret>(client, home, record)
        .await?
        .as_ref()
        .and_then(decode))
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
