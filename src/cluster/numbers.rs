//! Numbers of the REST API for tenants, syncs and their sources: small, and the same for good.
//!
//! They stand in one Secret for each namespace, in the operator's own: a Secret that is somebody else's is never written to.
//! A number belongs to an object's UID; an object of the same kind and name that comes after it, as after a restore from a
//! backup, takes it over.

use super::{Error, objects};
use crate::api::names::{INTERNAL_SECRET_TYPE, MANAGED_BY, NUMBERS_SECRET, OPERATOR};
use crate::api::secret_sync::{SourceKind, SyncSource};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const KEY: &str = "numbers";
/// Attempts before a conflict is reported.
const ATTEMPTS: usize = 8;

/// What is numbered. Each kind counts by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Numbered {
    /// `DsvTenant`.
    Tenant,
    /// `SecretSync`.
    Sync,
    /// A Secret or DynamicSecret.
    Source,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// UID of the object.
    pub uid: String,
    /// Its name; of a source with its kind and a slash before.
    pub name: String,
}

/// All numbers of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers(BTreeMap<Numbered, BTreeMap<i64, Entry>>);

impl Numbers {
    /// The number of an object.
    pub fn of(&self, kind: Numbered, uid: &str) -> Option<i64> {
        let found = self.0.get(&kind)?.iter().find(|(_, entry)| entry.uid == uid);
        found.map(|(number, _)| *number)
    }

    /// The number of what has this name now.
    pub fn of_name(&self, kind: Numbered, name: &str) -> Option<i64> {
        let found = self.0.get(&kind)?.iter().find(|(_, entry)| entry.name == name);
        found.map(|(number, _)| *number)
    }

    /// The object of a number.
    pub fn get(&self, kind: Numbered, number: i64) -> Option<&Entry> {
        self.0.get(&kind)?.get(&number)
    }

    /// The number of an object, which it is given where it has none; with whether that is news.
    pub fn assign(&mut self, kind: Numbered, uid: &str, name: &str) -> (i64, bool) {
        let all = self.0.entry(kind).or_default();
        if let Some((number, _)) = all.iter().find(|(_, entry)| entry.uid == uid) {
            return (*number, false);
        }
        let entry = Entry {
            uid: uid.to_owned(),
            name: name.to_owned(),
        };
        let heir = all
            .iter()
            .find(|(_, entry)| entry.name == name)
            .map(|(number, _)| *number);
        let number = heir.unwrap_or_else(|| all.last_key_value().map_or(1, |(last, _)| last + 1));
        all.insert(number, entry);
        (number, true)
    }
}

/// What a source is called among the numbers.
pub fn source_name(source: &SyncSource) -> String {
    match source.kind() {
        SourceKind::Secret => format!("secret/{}", source.name),
        SourceKind::DynamicSecret => format!("dynamic/{}", source.name),
    }
}

/// All numbers of a namespace, as they are now.
pub async fn read(client: &Client, home: &str, namespace: &str) -> Result<Numbers, Error> {
    let found = objects::read::<Secret>(client, home, &name(namespace)).await?;
    Ok(found.as_ref().map(numbers_in).unwrap_or_default())
}

/// The number of an object, which it is given where it has none.
pub async fn assign(
    client: &Client,
    home: &str,
    namespace: &str,
    (kind, uid, object): (Numbered, &str, &str),
) -> Result<i64, Error> {
    let one = [(uid.to_owned(), object.to_owned())];
    let numbers = assign_all(client, home, namespace, (kind, &one)).await?;
    Ok(numbers.of(kind, uid).unwrap_or_default())
}

/// The numbers after all of these objects, by UID and name, were given one.
pub async fn assign_all(
    client: &Client,
    home: &str,
    namespace: &str,
    (kind, all): (Numbered, &[(String, String)]),
) -> Result<Numbers, Error> {
    let mut attempt = 1;
    loop {
        let found = objects::read::<Secret>(client, home, &name(namespace)).await?;
        let mut numbers = found.as_ref().map(numbers_in).unwrap_or_default();
        let mut is_new = false;
        for (uid, object) in all {
            is_new |= numbers.assign(kind, uid, object).1;
        }
        if !is_new {
            return Ok(numbers);
        }
        let written = match found {
            None => objects::make(client, home, &compose(namespace, &numbers)).await,
            Some(mut secret) => {
                secret.data = compose(namespace, &numbers).data;
                objects::replace(client, home, &secret).await
            }
        };
        match written {
            Ok(_) => return Ok(numbers),
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

fn name(namespace: &str) -> String {
    format!("{NUMBERS_SECRET}{namespace}")
}

fn numbers_in(secret: &Secret) -> Numbers {
    let bytes = secret.data.as_ref().and_then(|data| data.get(KEY));
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes.0).ok())
        .unwrap_or_default()
}

fn compose(namespace: &str, numbers: &Numbers) -> Secret {
    let text = serde_json::to_vec(numbers).unwrap_or_default();
    Secret {
        metadata: ObjectMeta {
            name: Some(name(namespace)),
            labels: Some([(MANAGED_BY.to_owned(), OPERATOR.to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some(INTERNAL_SECRET_TYPE.to_owned()),
        data: Some([(KEY.to_owned(), ByteString(text))].into()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_an_heir_of_the_name_has_its_number() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.assign(Numbered::Tenant, "a", "one"), (1, true));
        assert_eq!(numbers.assign(Numbered::Tenant, "b", "two"), (2, true));
        assert_eq!(
            numbers.assign(Numbered::Sync, "c", "one"),
            (1, true),
            "each kind by itself"
        );
        assert_eq!(numbers.assign(Numbered::Tenant, "a", "one"), (1, false));
        assert_eq!(
            numbers.assign(Numbered::Tenant, "d", "one"),
            (1, true),
            "restored from a backup"
        );
        let secret = compose("shop", &numbers);
        let read = numbers_in(&secret);
        assert_eq!(read, numbers);
        assert_eq!(
            (read.of(Numbered::Tenant, "d"), read.of(Numbered::Tenant, "a")),
            (Some(1), None)
        );
        assert_eq!(read.get(Numbered::Tenant, 2).unwrap().name, "two");
    }
}
