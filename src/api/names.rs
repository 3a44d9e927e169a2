//! Names that objects, labels, annotations and roles carry. Every constant string that the cluster sees stands here.

use sha2::{Digest, Sha256};

/// API group of the custom resources.
pub const GROUP: &str = "dsv.dev";
/// Label and value that mark what the operator may write.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// See [`MANAGED_BY`].
pub const OPERATOR: &str = "dsv-operator";
/// Label of a base secret; its value is the kind of database.
pub const TYPE_LABEL: &str = "dsv.dev/type";
/// The kind of database that is served.
pub const POSTGRESQL: &str = "postgresql";
/// Label of credential Secrets only: the UID of their lease.
pub const LEASE_LABEL: &str = "dsv.dev/lease";
/// Label of leases: the UID of their dynamic secret.
pub const DYNAMIC_SECRET_LABEL: &str = "dsv.dev/dynamic-secret";
/// Label of leases: the UID of their pool.
pub const POOL_LABEL: &str = "dsv.dev/pool";
/// Label of server records: the UID of the base secret.
pub const BASE_SECRET_LABEL: &str = "dsv.dev/base-secret";
/// Label of managed engines' objects: the UID of the Engine.
pub const ENGINE_LABEL: &str = "dsv.dev/engine";
/// Label of the pod that leads.
pub const LEADER_LABEL: &str = "dsv.dev/leader";

/// Annotations of a credential Secret.
pub mod credential {
    /// Name of the lease.
    pub const LEASE: &str = "dsv.dev/lease-name";
    /// UID of the lease.
    pub const LEASE_UID: &str = "dsv.dev/lease-uid";
    /// UID of the dynamic secret.
    pub const DYNAMIC_SECRET_UID: &str = "dsv.dev/dynamic-secret-uid";
    /// Account name.
    pub const USERNAME: &str = "dsv.dev/username";
    /// Serial of the lease: grows with each credential of one dynamic secret.
    pub const REVISION: &str = "dsv.dev/revision";
    /// End of the lease, RFC 3339.
    pub const EXPIRES_AT: &str = "dsv.dev/expires-at";
    /// Keyed hash of the data: shows an edit without keeping the value.
    pub const DATA_HASH: &str = "dsv.dev/data-hash";
}

/// Annotation on a DynamicSecret: a new value asks for a new credential.
pub const ROTATE_AT: &str = "dsv.dev/rotate-at";

/// Annotation on a Deployment, StatefulSet or DaemonSet: with the value [`RESTART_ALLOWED`] the operator may restart it.
pub const RESTART: &str = "dsv.dev/restart";
/// See [`RESTART`].
pub const RESTART_ALLOWED: &str = "allowed";
/// Beginning of annotations on the pod template of a workload; the DynamicSecret follows, and the value is the lease for
/// which it was restarted. One for each DynamicSecret: of one for all, two would undo each other's without end.
pub const RESTARTED_FOR: &str = "restarted-for.dsv.dev/";

/// Beginning of annotations on an EnginePool; the UID of a CredentialLease or of a DynamicSecret follows, and the value says
/// why: its account, or its group roles, are let go of without proof that they are gone.
pub const ABANDON: &str = "abandon.dsv.dev/";
/// Annotation on an EnginePool: lets an audit end as much as its condition shows.
pub const CONFIRM_REVOCATION: &str = "dsv.dev/confirm-revocation";
/// Annotation on the Secret of the signing key, or on an Engine: a new value asks for another key.
pub const ROTATE_KEY: &str = "dsv.dev/rotate-key";
/// Annotation on the Secret of the signing key: the value of [`ROTATE_KEY`] that was answered last.
pub const ROTATED_KEY: &str = "dsv.dev/rotated-key";

/// Annotation on an Engine: the public key that the operator changed to last; another in the spec is the user's own.
pub const KEY_MADE: &str = "dsv.dev/key-made";
/// Annotation on an Engine: a new value asks for a message to the engine and back.
pub const PING: &str = "dsv.dev/ping";
/// Annotation on pools and engines: the name that a DSV client gave, where it is no object name.
pub const GIVEN_NAME: &str = "dsv.dev/name";

/// Annotation on a SecretSync: a new value asks for a push, also where nothing changed.
pub const PUSH_AT: &str = "dsv.dev/push-at";
/// Annotation on a source Secret: other slugs for its keys, as `key=slug` separated by commas.
pub const SLUGS: &str = "dsv.dev/slugs";
/// Annotation on a source Secret: slugs of fields that are not pushed, separated by commas.
pub const HIDDEN_FIELDS: &str = "dsv.dev/hidden-fields";
/// Finalizer of syncs: what they pushed is removed at the tenant before it comes off.
pub const SYNC_FINALIZER: &str = "dsv.dev/remove-at-tenant";
/// Beginning of the names of Secrets with the numbers of the REST API, in the operator's namespace; the hash of a
/// namespace's UID follows.
pub const NUMBERS_SECRET: &str = "dsv-numbers-";

/// Finalizer of leases: the account is proven gone before it comes off.
pub const LEASE_FINALIZER: &str = "dsv.dev/revoke";
/// Finalizer of dynamic secrets: leases and groups are gone before it comes off.
pub const DYNAMIC_SECRET_FINALIZER: &str = "dsv.dev/drop-groups";
/// Finalizer of engines and pools: open leases need them.
pub const POOL_FINALIZER: &str = "dsv.dev/open-leases";

/// Secret with the root key, in the operator's namespace.
pub const ROOT_SECRET: &str = "dsv-root";
/// Secret with the key that signs role comments, in the operator's namespace.
pub const SIGNING_SECRET: &str = "dsv-signing";
/// Type of the Secrets that only the operator reads.
pub const INTERNAL_SECRET_TYPE: &str = "dsv.dev/internal";
/// Type of registration Secrets.
pub const REGISTRATION_SECRET_TYPE: &str = "dsv.dev/registration";

/// CEL and RE2: the name of a Kubernetes object. Whatever else stands where a name is expected would become part of the
/// path of the operator's own requests.
pub const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
/// CEL and RE2: the name of a Kubernetes namespace.
pub const NAMESPACE_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Longest name of our kinds: other objects are named after them, with something behind.
pub const MAX_OBJECT_NAME: usize = 200;

/// Longest role name in bytes; PostgreSQL cuts longer ones silently.
pub const MAX_ROLE_NAME: usize = 63;
/// Characters of a UID in base32.
pub const UID_CHARS: usize = 26;
/// Longest userPrefix: a role name less the UID and its underscore.
pub const MAX_USER_PREFIX: usize = MAX_ROLE_NAME - UID_CHARS - 1;

/// A Kubernetes UID as 26 characters of lower-case base32 (RFC 4648, no padding); None where it is not a UUID.
pub fn base32_uid(uid: &str) -> Option<String> {
    let parsed = uuid::Uuid::parse_str(uid).ok()?;
    Some(base32(parsed.as_bytes()))
}

/// Lower-case base32 without padding.
pub fn base32(bytes: &[u8]) -> String {
    data_encoding::BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

/// The first 26 characters of the base32 of a SHA-256 over all parts, each with its length, so that no two lists collide.
pub fn base32_hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut text = base32(&hash.finalize());
    text.truncate(UID_CHARS);
    text
}

/// Role name of the keeper of one database: other installations, and other logins of the same server, have their own, since
/// from PostgreSQL 16 on only the login that made a role may use it.
pub fn keeper_name(installation: &str, record: &str, database: &str) -> String {
    format!("dsvk_{}", base32_hash(&[installation, record, database]))
}

/// Role name of a lease: `<userPrefix><slug>_<base32 of the UID>`, at most 63 bytes. Shortening eats the slug, never
/// the prefix or the UID. None where the UID is no UUID or the prefix does not fit.
pub fn role_name(user_prefix: &str, dynamic_secret: &str, lease_uid: &str) -> Option<String> {
    let uid = base32_uid(lease_uid)?;
    let room = MAX_USER_PREFIX.checked_sub(user_prefix.len())?;
    let mut slug: String = dynamic_secret.replace('.', "-").chars().take(room).collect();
    if format!("{user_prefix}{slug}") == "pg" {
        slug.push('-'); // PostgreSQL keeps names that begin with pg_ for itself
    }
    Some(format!("{user_prefix}{slug}_{uid}"))
}

/// Name of a lease made for a dynamic secret: `<name>-<hash of its UID>-<serial>`. The hash keeps a re-created dynamic
/// secret of the same name from meeting its predecessor's leases.
pub fn lease_name(dynamic_secret: &str, dynamic_secret_uid: &str, serial: i64) -> String {
    let hash: String = base32_hash(&[dynamic_secret_uid]).chars().take(5).collect();
    format!("{dynamic_secret}-{hash}-{serial}")
}

/// The annotation on a pod template that tells for which credential of this dynamic secret the workload was restarted.
pub fn restarted_for(dynamic_secret: &str) -> String {
    // What follows the slash has at most 63 characters.
    if dynamic_secret.len() <= 63 {
        format!("{RESTARTED_FOR}{dynamic_secret}")
    } else {
        format!("{RESTARTED_FOR}{}", base32_hash(&[dynamic_secret]))
    }
}

/// The object name of something that a DSV client named: the name itself where it is one, otherwise one made from it.
pub fn object_name(name: &str) -> String {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits =
        (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-');
    if fits {
        name.to_owned()
    } else {
        format!("dsv-{}", base32_hash(&["name", name]))
    }
}

/// Name of a managed engine's Deployment and Secret in the operator's namespace; of an Engine UID.
pub fn managed_engine(engine_uid: &str) -> Option<String> {
    base32_uid(engine_uid).map(|uid| format!("engine-{uid}"))
}

/// Name of the registration Secret beside an Engine that a user wrote.
pub fn registration_secret(engine: &str) -> String {
    format!("{engine}-registration")
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "6f1b9f7e-3a53-4b36-9d0f-0f8e9f6c2a11";

    #[test]
    fn a_role_name_keeps_prefix_and_uid_and_fits() {
        let name = role_name("shop_", &"orders-app.".repeat(20), UID).unwrap();
        assert_eq!(name.len(), MAX_ROLE_NAME);
        assert!(name.starts_with("shop_orders-app-orders"));
        assert!(name.ends_with(&format!("_{}", base32_uid(UID).unwrap())));
        assert_eq!(
            role_name("a", "b", UID).unwrap(),
            format!("ab_{}", base32_uid(UID).unwrap())
        );
        assert!(role_name(&"p".repeat(MAX_USER_PREFIX + 1), "b", UID).is_none());
        assert!(role_name("p", "b", "not-a-uid").is_none());
        for (prefix, name) in [("", "pg"), ("p", "g"), ("pg", "")] {
            let role = role_name(prefix, name, UID).unwrap();
            assert!(role.starts_with("pg-_"), "{role} would be refused as reserved");
        }
    }

    #[test]
    fn names_that_kubernetes_does_not_take_are_mapped_and_others_kept() {
        assert_eq!(object_name("pool1"), "pool1");
        for name in ["Pool_1", "-a", "", &"a".repeat(64)] {
            let mapped = object_name(name);
            assert!(mapped.starts_with("dsv-") && mapped.len() == 30, "{mapped}");
        }
        assert_ne!(object_name("Pool"), object_name("pooL"));
    }

    #[test]
    fn the_annotation_of_a_restart_is_one_that_kubernetes_takes() {
        assert_eq!(restarted_for("orders-app"), "restarted-for.dsv.dev/orders-app");
        let long = restarted_for(&"orders-".repeat(20));
        assert!(
            long.starts_with(RESTARTED_FOR) && long.len() - RESTARTED_FOR.len() <= 63,
            "{long}"
        );
    }

    #[test]
    fn lists_that_differ_hash_differently() {
        assert_ne!(base32_hash(&["ab", "c"]), base32_hash(&["a", "bc"]));
        assert_eq!(base32_hash(&["a"]).len(), UID_CHARS);
    }
}
