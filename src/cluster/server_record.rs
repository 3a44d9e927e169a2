//! Server records: the operator's own copies of base secrets, so that revoking needs nobody else's objects.
//!
//! A record's identity (namespace, host, port, database, user) is in its name and never changes; password and TLS are
//! refreshed. Two base secrets of one namespace that mean the same login share one record. A record also keeps the public
//! halves of all keys that may have signed role comments on that server; none is ever taken away, so a signing key that was
//! rotated or lost orphans no role.

use super::{Error, Intention, objects};
use crate::api::names::{BASE_SECRET_LABEL, INTERNAL_SECRET_TYPE, MANAGED_BY, OPERATOR, base32_hash};
use crate::channel::frames::ServerLogin;
use crate::keys::SigningPublicKey;
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
/// The key that holds public signing keys, one a line.
const SIGNERS: &str = "signers";

/// What a record holds.
#[derive(Debug, Clone)]
pub struct Record {
    /// How to log in; `record` in it is the record's name.
    pub login: ServerLogin,
    /// Public halves of the keys that may have signed role comments there.
    pub signers: Vec<SigningPublicKey>,
    /// Namespace of the base secrets.
    pub namespace: String,
    /// Which history the server wrote when its roles and the books agreed last, if that is known.
    pub history: Option<String>,
    meta: ObjectMeta,
}

#[cfg(test)]
impl Record {
    /// With this login and nothing else.
    pub fn seen(login: ServerLogin) -> Self {
        Self {
            login,
            signers: Vec::new(),
            namespace: String::new(),
            history: None,
            meta: ObjectMeta::default(),
        }
    }
}

/// Name of the record for a login that lies in a namespace.
pub fn name(namespace: &str, login: &ServerLogin) -> String {
    let port = login.port_text();
    let hash = base32_hash(&[namespace, &login.host, &port, &login.database, &login.username]);
    format!("server-{hash}")
}

/// All records, in one request.
pub async fn all(client: &Client, home: &str) -> Result<Vec<Record>, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), home);
    let ours = ListParams::default().labels(&format!("{MANAGED_BY}={OPERATOR},{BASE_SECRET_LABEL}"));
    let list = api
        .list(&ours)
        .await
        .to(|| format!("list the server records in {home}"))?;
    Ok(list.items.into_iter().filter_map(record_in).collect())
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
    let patched = api
        .patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    patched
        .map(|_| ())
        .to(|| format!("write the history of server record {home}/{name}"))
}

/// Deletes exactly the version of the record that was read. Absent is success.
pub async fn remove(client: &Client, home: &str, record: &Record) -> Result<(), Error> {
    let name = &record.login.record;
    super::credential_secret::delete(client, home, name, &record.meta).await?;
    Ok(())
}

/// Makes or refreshes the record; true where there was none. `base` is the base secret that the login was read from; `signers` are added to those
/// that the record has.
pub async fn keep(
    client: &Client,
    home: &str,
    base: &Secret,
    login: &ServerLogin,
    signers: &[SigningPublicKey],
) -> Result<bool, Error> {
    for _ in 0..3 {
        match objects::read::<Secret>(client, home, &login.record).await? {
            None => match objects::make(client, home, &compose(home, base, login, signers)?).await {
                Err(error) if error.is_conflict() => {}
                other => return other.map(|_| true),
            },
            Some(old) if is_kept(&old, login, signers) => return Ok(false),
            Some(old) => {
                let all = union(&signers_in(&old), signers);
                let mut new = compose(home, base, login, &all)?;
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

fn is_kept(old: &Secret, login: &ServerLogin, signers: &[SigningPublicKey]) -> bool {
    let known = signers_in(old);
    decode(old).as_ref() == Some(login) && signers.iter().all(|key| known.contains(key))
}

/// The record; none where it is gone or cannot be read.
pub async fn read(client: &Client, home: &str, record: &str) -> Result<Option<Record>, Error> {
    let secret = objects::read::<Secret>(client, home, record).await?;
    Ok(secret.and_then(record_in))
}

fn record_in(secret: Secret) -> Option<Record> {
    Some(Record {
        login: decode(&secret)?,
        signers: signers_in(&secret),
        namespace: secret.annotations().get(NAMESPACE).cloned().unwrap_or_default(),
        history: secret.annotations().get(HISTORY).cloned(),
        meta: secret.metadata,
    })
}

/// The login in a record; none where the record is gone or cannot be read.
pub async fn login(client: &Client, home: &str, record: &str) -> Result<Option<ServerLogin>, Error> {
    Ok(read(client, home, record).await?.map(|record| record.login))
}

/// Writes these keys into every record that lacks one of them, and returns the keys of all records. To be done before a key
/// signs its first comment: whoever revokes must know it, whatever becomes of the key itself.
pub async fn note_signers(
    client: &Client,
    home: &str,
    signers: &[SigningPublicKey],
) -> Result<Vec<SigningPublicKey>, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), home);
    let params = ListParams::default().labels(&format!("{MANAGED_BY}={OPERATOR},{BASE_SECRET_LABEL}"));
    let records = api.list(&params).await.to(|| "list the server records".to_owned())?;
    let mut all = signers.to_vec();
    for record in records.items {
        all = union(&all, &signers_in(&record));
        add_signers(client, home, record, signers).await?;
    }
    Ok(all)
}

async fn add_signers(client: &Client, home: &str, seen: Secret, signers: &[SigningPublicKey]) -> Result<(), Error> {
    let name = seen.name_any();
    let mut seen = Some(seen);
    for attempt in 1.. {
        let Some(mut record) = seen else { break };
        let known = signers_in(&record);
        if signers.iter().all(|key| known.contains(key)) {
            break;
        }
        let text = text(&union(&known, signers));
        record.data.get_or_insert_default().insert(SIGNERS.to_owned(), text);
        match objects::replace(client, home, &record).await {
            Err(error) if error.is_conflict() && attempt < 5 => {}
            Err(error) if error.is_not_found() => break,
            other => return other.map(|_| ()),
        }
        seen = objects::read(client, home, &name).await?;
    }
    Ok(())
}

/// Both lists without repetition, the first one's order first.
pub fn union(first: &[SigningPublicKey], second: &[SigningPublicKey]) -> Vec<SigningPublicKey> {
    let mut all = first.to_vec();
    all.extend(second.iter().filter(|key| !first.contains(key)));
    all
}

fn text(signers: &[SigningPublicKey]) -> ByteString {
    let lines: Vec<String> = signers.iter().map(ToString::to_string).collect();
    ByteString(lines.join("\n").into_bytes())
}

/// The keys in a Secret. A line that is none is left out: the others must go on to count.
pub fn signers_in(secret: &Secret) -> Vec<SigningPublicKey> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(SIGNERS));
    let text = bytes
        .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
        .unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

fn compose(home: &str, base: &Secret, login: &ServerLogin, signers: &[SigningPublicKey]) -> Result<Secret, Error> {
    let json = serde_json::to_vec(login)
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
        data: Some(
            [
                (LOGIN.to_owned(), ByteString(json)),
                (SIGNERS.to_owned(), text(signers)),
            ]
            .into(),
        ),
        ..Secret::default()
    })
}

fn decode(secret: &Secret) -> Option<ServerLogin> {
    let bytes = secret.data.as_ref()?.get(LOGIN)?;
    let mut login: ServerLogin = serde_json::from_slice(&bytes.0).ok()?;
    login.record = secret.name_any();
    Some(login)
}
