//! Secrets and homes: reading the path, asking the policies, and then what is asked.

pub mod attributes;
mod base;
mod dynamic;
pub mod item;
mod keep;
pub mod kept;
mod lease;
mod listed;
mod search;
mod shared;

pub use listed::{Listed, follow_dynamic, follow_kept};
pub use shared::Shared;

use super::Vault;
use super::call::Call;
use super::caller::Caller;
use super::ids::{self, Kind};
use super::kubernetes::Thing;
use super::path::{Locator, SecretPath, Suffix, split};
use super::reply::{Refusal, Reply};
use crate::api::DynamicSecret;
use crate::cluster::objects;
use http::Method;
use item::Item;
use k8s_openapi::api::core::v1::Secret;
use kept::Kept;
use kube::ResourceExt;
use uuid::Uuid;

/// Where a secret lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// `/v1/secrets`.
    Secrets,
    /// `/v1/home`.
    Home,
}

impl Space {
    /// What its ids are made of.
    pub fn kind(self) -> Kind {
        match self {
            Self::Secrets => Kind::Secret,
            Self::Home => Kind::Home,
        }
    }
}

/// A secret that was just read. `Debug` is left out: it would show values.
pub enum Found {
    /// One with values.
    Kept(Box<Kept>),
    /// One without: each read makes an account.
    Dynamic(Box<DynamicSecret>),
}

impl Found {
    fn item(&self, vault: &Vault) -> Item {
        match self {
            Self::Kept(kept) => kept.item.clone(),
            Self::Dynamic(object) => vault.dynamic_item(object),
        }
    }
}

/// Whom and what a call is about.
pub struct Asked<'a> {
    /// The call.
    pub call: &'a Call,
    /// Who calls.
    pub caller: &'a Caller,
    /// Where.
    pub space: Space,
}

impl Asked<'_> {
    /// Whether a text names the whole home of the caller, as the stock CLI does when it searches there.
    fn is_own_home(&self, text: &str) -> bool {
        let home = |path: SecretPath| path.as_str() == self.caller.subject;
        self.space == Space::Home && SecretPath::parse(text).is_ok_and(home)
    }
}

impl Vault {
    /// Everything below `/v1/secrets` and `/v1/home`.
    pub(super) async fn secrets(&self, call: &Call, caller: &Caller, space: Space) -> Result<Reply, Refusal> {
        let asked = Asked { call, caller, space };
        let (text, suffix) = split(&call.rest, &call.method, call.has_body());
        let text = text.trim_matches('/');
        if suffix == Suffix::ListPaths {
            return self.list_paths(&asked, text);
        }
        if text.is_empty() || (call.method == Method::GET && suffix == Suffix::None && asked.is_own_home(text)) {
            return match (&call.method, call.asked("id")) {
                (&Method::GET, Some(id)) => self.read_at(&asked, id, &suffix).await,
                (&Method::GET, None) => self.search(&asked),
                _ => Err(Refusal::new(405, "name a path below /v1/secrets")),
            };
        }
        match (&call.method, suffix) {
            (&Method::GET, suffix) => self.read_at(&asked, text, &suffix).await,
            (&Method::POST, Suffix::None) => self.create(&asked, text).await,
            (&Method::PUT, Suffix::None) => self.update(&asked, text).await,
            (&Method::PUT, Suffix::Restore) => self.restore(&asked, text).await,
            (&Method::PUT, Suffix::Rollback(number)) => self.rollback(&asked, text, number).await,
            (&Method::DELETE, Suffix::None) => self.delete(&asked, text).await,
            _ => Err(Refusal::new(405, "this method is not served here")),
        }
    }

    /// The canonical path of a text, in its space: a home path without an owner is the caller's.
    fn place(asked: &Asked<'_>, text: &str) -> Result<Locator, Refusal> {
        let locator = Locator::parse(text).map_err(|error| Refusal::bad(error.to_string()))?;
        Ok(match (asked.space, locator) {
            (Space::Home, Locator::Path(path)) if !owned(&path) => Locator::Path(path.below(&asked.caller.subject)),
            (_, locator) => locator,
        })
    }

    /// A path, where an id makes no sense.
    fn new_place(asked: &Asked<'_>, text: &str) -> Result<SecretPath, Refusal> {
        match Self::place(asked, text)? {
            Locator::Path(path) => Ok(path),
            Locator::Id(_) => Err(Refusal::bad(
                "a path that is a UUID would be taken for an id; choose another one",
            )),
        }
    }

    /// Whether the caller may do that with that path. Homes are their owner's, whatever any policy says.
    pub(super) fn permits(&self, asked: &Asked<'_>, action: &str, path: &str) -> bool {
        match asked.space {
            // A home has no counterpart in Kubernetes.
            Space::Home if asked.caller.is_kubernetes() => false,
            Space::Home => {
                let own = path.strip_prefix(asked.caller.subject.as_str());
                own.is_some_and(|rest| rest.starts_with(':'))
            }
            Space::Secrets => self.may(asked.call, asked.caller, action, &format!("secrets:{path}")),
        }
    }

    /// The same for many paths: the tenant's rules are looked up once.
    fn permitted<'a>(&self, asked: &'a Asked<'_>, action: &'a str) -> impl Fn(&str) -> bool + 'a {
        let rules = self.rules(&asked.call.tenant);
        let home = asked.space == Space::Home;
        let nobody = home && asked.caller.is_kubernetes();
        let own = format!("{}:", asked.caller.subject);
        move |path| {
            if home {
                return !nobody && path.starts_with(&own);
            }
            Self::allows(&rules, asked.call, asked.caller, (action, &format!("secrets:{path}")))
        }
    }

    fn demand(&self, asked: &Asked<'_>, action: &str, path: &str) -> Result<(), Refusal> {
        if self.permits(asked, action, path) {
            return Ok(());
        }
        Err(Refusal::forbidden())
    }

    /// What is at a place, after asking whether the caller may. A path is asked about before anything is read; an id only
    /// afterwards, so to somebody without rights one that does not exist looks like one that he may not touch.
    async fn find(&self, asked: &Asked<'_>, text: &str, action: &str) -> Result<(Found, Item), Refusal> {
        match Self::place(asked, text)? {
            Locator::Path(path) => {
                self.demand(asked, action, path.as_str())?;
                let found = self.at_path(asked, &path).await?.ok_or_else(Refusal::not_found)?;
                asked.caller.demand(action, found.thing())?;
                let item = found.item(self);
                Ok((found, item))
            }
            Locator::Id(id) => {
                let Some(found) = self.at_id(asked, id).await? else {
                    self.demand(asked, action, &id.to_string())?;
                    return Err(Refusal::not_found());
                };
                let item = found.item(self);
                self.demand(asked, action, &item.path)?;
                asked.caller.demand(action, found.thing())?;
                Ok((found, item))
            }
        }
    }

    pub(super) async fn at_path(&self, asked: &Asked<'_>, path: &SecretPath) -> Result<Option<Found>, Refusal> {
        let id = ids::id(&asked.call.tenant.uid, asked.space.kind(), path.as_str());
        if let Some(found) = self.object(asked, &id.to_string()).await? {
            return Ok(Some(found));
        }
        // Made with kubectl: the name is the path.
        let name = path.as_str();
        let is_name = crate::api::names::object_name(name) == name || is_object_name(name);
        if asked.space == Space::Secrets && is_name {
            let found = self.object(asked, name).await?;
            return Ok(found.filter(|found| found.item(self).path == name));
        }
        Ok(None)
    }

    async fn at_id(&self, asked: &Asked<'_>, id: Uuid) -> Result<Option<Found>, Refusal> {
        let id = id.to_string();
        if let Some(found) = self.object(asked, &id).await? {
            return Ok(Some(found));
        }
        match self.by_uid(&asked.call.tenant, &id) {
            Some(name) if asked.space == Space::Secrets => self.object(asked, &name).await,
            _ => Ok(None),
        }
    }

    /// The object of a name, whichever of the two kinds it is; only of this tenant and space, and not past its end. A kind
    /// of which Kubernetes lets the caller see nothing is not there for him.
    async fn object(&self, asked: &Asked<'_>, name: &str) -> Result<Option<Found>, Refusal> {
        let namespace = &asked.call.tenant.namespace;
        let dynamic_first = self.dynamic.get(namespace, name).is_some();
        if dynamic_first && let Some(found) = self.dynamic_object(asked, name).await? {
            return Ok(Some(found));
        }
        let secret = if asked.caller.holds("read", Thing::Secret) {
            objects::read::<Secret>(&self.client, namespace, name).await?
        } else {
            None
        };
        if let Some(kept) = secret.filter(|s| lies_in(s, asked.space)).and_then(Kept::of) {
            let over = kept.item.is_over();
            return Ok((!over).then(|| Found::Kept(Box::new(kept))));
        }
        if dynamic_first {
            return Ok(None);
        }
        self.dynamic_object(asked, name).await
    }

    async fn dynamic_object(&self, asked: &Asked<'_>, name: &str) -> Result<Option<Found>, Refusal> {
        if asked.space == Space::Home || !asked.caller.holds("read", Thing::Dynamic) {
            return Ok(None);
        }
        let found = objects::read::<DynamicSecret>(&self.client, &asked.call.tenant.namespace, name).await?;
        let found = found.filter(|object| object.metadata.deletion_timestamp.is_none());
        let found = found.filter(|object| !Item::of(object).is_over());
        Ok(found.map(|object| Found::Dynamic(Box::new(object))))
    }

    async fn read_at(&self, asked: &Asked<'_>, text: &str, suffix: &Suffix) -> Result<Reply, Refusal> {
        let (found, item) = self.find(asked, text, "read").await?;
        if item.is_marked() {
            return Err(Refusal::marked("secret"));
        }
        match (found, suffix) {
            (_, Suffix::Description) => Ok(Reply::ok(item.description().into())),
            (Found::Kept(kept), Suffix::Version(count)) => {
                let count = usize::try_from((*count).max(1)).unwrap_or(usize::MAX);
                Ok(Reply::ok(serde_json::json!({"data": kept.versions(count)})))
            }
            (Found::Kept(kept), _) => Ok(Reply::ok(kept.item.with(&kept.data))),
            (Found::Dynamic(object), Suffix::Version(count)) => {
                let count = usize::try_from((*count).max(1)).unwrap_or(usize::MAX);
                let versions = self.dynamic_versions(&object, count);
                Ok(Reply::ok(serde_json::json!({"data": versions})))
            }
            // The editor's fetch shows what can be edited, which is not an account.
            (Found::Dynamic(_), _) if asked.call.flag("edit") => Ok(Reply::ok(item.with(&serde_json::Map::new()))),
            (Found::Dynamic(object), _) => {
                asked.caller.demand("create", Thing::Lease)?;
                let data = self.account_for(asked, &object, &item).await?;
                Ok(Reply::ok(item.with(&data)))
            }
        }
    }
}

fn lies_in(secret: &Secret, space: Space) -> bool {
    let label = secret.labels().get(kept::SECRET_LABEL).map(String::as_str);
    match space {
        Space::Home => label == Some(Kind::Home.word()),
        Space::Secrets => label != Some(Kind::Home.word()),
    }
}

fn is_object_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    name.len() <= 253 && bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last())
}

/// Whether a home path names its owner.
fn owned(path: &SecretPath) -> bool {
    path.as_str().starts_with("users:") || path.as_str().starts_with("roles:")
}
