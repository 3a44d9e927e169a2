//! The first administrator of a tenant: by the stock `dsv init` while the installer has opened the tenant for it, otherwise
//! with a password that lies in a Secret of the operator's namespace.

use super::Vault;
use super::call::Call;
use super::ids::Kind;
use super::policies;
use super::reply::{Refusal, Reply};
use super::tenants::Tenant;
use super::time;
use crate::api::names::{INTERNAL_SECRET_TYPE, MANAGED_BY, OPERATOR};
use crate::cluster::objects;
use crate::keys::{Password, SecretText};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::{Map, json};

/// Beginning of the name of the Secret that opens a tenant for its first administrator; the namespace follows.
pub const OPENING: &str = "dsv-open-";
/// Annotation on it: until when.
pub const UNTIL: &str = "dsv.dev/until";
/// Beginning of the name of the Secret with the first administrator's password; the namespace follows.
pub const ADMIN: &str = "dsv-admin-";
/// Name of the first administrator where nobody chose one.
const NAME: &str = "admin";
/// `dsv init` asks for an administrator.
const NEEDS_ADMIN: u8 = 2;
/// `dsv init` goes on to log in.
const READY: u8 = 1;

impl Vault {
    /// `GET /v1/heartbeat`.
    pub(super) async fn heartbeat(&self, call: &Call) -> Result<Reply, Refusal> {
        let open = !self.has_users(&call.tenant) && self.opening(&call.tenant).await?.is_some();
        let (code, message) = if open {
            (NEEDS_ADMIN, "the tenant has no administrator yet")
        } else {
            (READY, "ready")
        };
        Ok(Reply::ok(json!({"StatusCode": code, "Message": message})))
    }

    /// `POST /v1/initialize`. The opening is used up before the administrator is made, so it serves once whatever happens.
    pub(super) async fn initialize(&self, call: &Call) -> Result<Reply, Refusal> {
        let fields = call.fields()?;
        let (name, password) = (fields.required("username")?, fields.required("password")?);
        super::users::check_name(name)?;
        super::users::check_password(password)?;
        let refused = || {
            Refusal::new(
                403,
                "this tenant is not open for a first administrator; ask who installed it",
            )
        };
        if self.has_users(&call.tenant) {
            return Err(refused());
        }
        let opening = self.opening(&call.tenant).await?.ok_or_else(refused)?;
        let hash = self.hash_password(SecretText::new(password)).await?;
        objects::take(&self.client, &opening).await.map_err(|_| refused())?;
        self.make_admin(&call.tenant, name, &hash).await?;
        Ok(Reply::created(
            json!({"message": "the first administrator was created"}),
        ))
    }

    fn has_users(&self, tenant: &Tenant) -> bool {
        !self.records(tenant, Kind::User).is_empty()
    }

    async fn opening(&self, tenant: &Tenant) -> Result<Option<Secret>, Refusal> {
        let name = format!("{OPENING}{}", tenant.namespace);
        let found = objects::read::<Secret>(&self.client, &self.settings.home, &name).await?;
        let is_open = |secret: &Secret| {
            let until = secret
                .annotations()
                .get(UNTIL)
                .and_then(|text| text.parse::<Timestamp>().ok());
            until.is_some_and(|until| time::now() < until)
        };
        Ok(found.filter(is_open))
    }

    async fn make_admin(&self, tenant: &Tenant, name: &str, hash: &SecretText) -> Result<(), Refusal> {
        let subject = format!("users:{name}");
        for (path, document) in policies::defaults(&subject) {
            let fields: Map<_, _> = [("permissionDocument".to_owned(), document)].into_iter().collect();
            self.make_record(tenant, Kind::Policy, path, fields, (None, &subject))
                .await?;
        }
        let fields = super::users::fields(name, "", "", "");
        self.make_record(tenant, Kind::User, name, fields, (Some(hash), &subject))
            .await?;
        tracing::info!(
            tenant = tenant.namespace,
            user = name,
            "the tenant has its first administrator"
        );
        Ok(())
    }

    /// Sees to it that the default tenant has an administrator. Any replica may do it, and again after a crash: the Secret
    /// with the password comes first and is read by whoever finds it, so all make the same user.
    pub(super) async fn see_to_admin(&self, tenant: &Tenant) -> Result<(), Refusal> {
        if self.has_users(tenant) || self.opening(tenant).await?.is_some() {
            return Ok(());
        }
        let password = Password::generate();
        let name = format!("{ADMIN}{}", tenant.namespace);
        let labels = [(MANAGED_BY.to_owned(), OPERATOR.to_owned())];
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(self.settings.home.clone()),
                labels: Some(labels.into()),
                annotations: Some([(super::records::TENANT_LABEL.to_owned(), tenant.uid.clone())].into()),
                ..ObjectMeta::default()
            },
            type_: Some(INTERNAL_SECRET_TYPE.to_owned()),
            data: Some(
                [
                    ("username".to_owned(), bytes(NAME)),
                    ("password".to_owned(), bytes(password.reveal())),
                ]
                .into(),
            ),
            ..Secret::default()
        };
        let found = match objects::make(&self.client, &self.settings.home, &secret).await {
            Ok(made) => made,
            Err(error) if error.is_conflict() => objects::read::<Secret>(&self.client, &self.settings.home, &name)
                .await?
                .ok_or_else(Refusal::not_found)?,
            Err(error) => return Err(error.into()),
        };
        // One of a namespace of that name that is gone is not this tenant's: its password may be known to others.
        if found.annotations().get(super::records::TENANT_LABEL) != Some(&tenant.uid) {
            objects::delete(&self.client, &found).await?;
            return Err(Refusal::new(
                409,
                "the Secret of a former tenant was in the way and was deleted",
            ));
        }
        let stored = found.data.as_ref().and_then(|data| data.get("password"));
        let stored = stored.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
        let stored =
            stored.ok_or_else(|| Refusal::new(409, "the Secret of the first administrator has no password"))?;
        let hash = self.hash_password(SecretText::new(stored)).await?;
        self.make_admin(tenant, NAME, &hash).await
    }
}
