//! Asking the API server who somebody is, and what he may do. Nothing is kept: each answer is as of now.

use super::{Error, Intention};
use crate::keys::SecretText;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use std::collections::BTreeMap;

/// Somebody whom the API server knows, with all that it authorizes him by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Such as `system:serviceaccount:shop:app`.
    pub name: String,
    /// His UID, where he has one.
    pub uid: Option<String>,
    /// His groups.
    pub groups: Vec<String>,
    /// What else authorizers may look at.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Something that is done to objects of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deed {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Plural of the kind.
    pub resource: &'static str,
    /// Such as `get`.
    pub verb: &'static str,
}

/// Whose token it is, if the API server vouches for it now and for this audience. A token that was made for somebody else,
/// the API server itself among them, is nobody's.
pub async fn holder(client: &Client, token: &SecretText, audience: &str) -> Result<Option<Person>, Error> {
    let review = TokenReview {
        spec: TokenReviewSpec {
            token: Some(token.reveal().to_owned()),
            audiences: Some(vec![audience.to_owned()]),
        },
        ..TokenReview::default()
    };
    let api: Api<TokenReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await;
    let status = answer
        .to(|| "ask whose token it is".to_owned())?
        .status
        .unwrap_or_default();
    // An authenticator that knows nothing of audiences answers without one.
    let meant = status.audiences.iter().flatten().any(|named| named == audience);
    let user = status.user.filter(|_| status.authenticated == Some(true) && meant);
    Ok(user.and_then(|user| {
        let name = user.username.filter(|name| !name.is_empty())?;
        Some(Person {
            name,
            uid: user.uid.filter(|uid| !uid.is_empty()),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        })
    }))
}

/// Whether he may do that to all objects of the kind in the namespace. A right to single names is none here.
pub async fn may(client: &Client, person: &Person, namespace: &str, deed: Deed) -> Result<bool, Error> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(person.name.clone()),
            uid: person.uid.clone(),
            groups: Some(person.groups.clone()),
            extra: Some(person.extra.clone()),
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                group: Some(deed.group.to_owned()),
                resource: Some(deed.resource.to_owned()),
                verb: Some(deed.verb.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await;
    let status = answer.to(|| format!("ask what {} may do", person.name))?.status;
    Ok(status.is_some_and(|status| status.allowed && status.denied != Some(true)))
}
