//! Bodies and queries, field by field.

use serde_json::{Value, json};

/// What a field holds.
#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    /// A text that nobody must see.
    Secret,
    Time,
    Number,
    Flag,
    Texts,
    Numbers,
    Object,
    Any,
    /// Another shape.
    Of(&'static str),
    /// Many of another shape.
    List(&'static str),
}

/// A field of a body.
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    pub says: &'static str,
}

/// A body.
pub struct Shape {
    pub name: &'static str,
    pub says: &'static str,
    pub fields: &'static [Field],
}

/// A value in the query.
pub struct Query {
    pub name: &'static str,
    pub says: &'static str,
}

impl Query {
    /// As a parameter.
    pub fn described(&self) -> Value {
        let schema = json!({"type": "string"});
        json!({"name": self.name, "in": "query", "required": false, "description": self.says, "schema": schema})
    }
}

const fn query(name: &'static str, says: &'static str) -> Query {
    Query { name, says }
}

/// A field that may be there.
const fn may(name: &'static str, kind: Kind, says: &'static str) -> Field {
    Field {
        name,
        kind,
        required: false,
        says,
    }
}

/// A field that is always there, or must be given.
const fn must(name: &'static str, kind: Kind, says: &'static str) -> Field {
    Field {
        name,
        kind,
        required: true,
        says,
    }
}

const LIMIT: Query = query("limit", "Most items of this page; 25 without it, 1000 at most");
const CURSOR: Query = query("cursor", "The cursor of the page before");
const SORT: Query = query("sort", "asc or desc");
const BY: Query = query("sortedBy", "name or created");
const TERM: Query = query("searchTerm", "What is searched for");
const SKIP: Query = query("skip", "Records to leave out");
const TAKE: Query = query("take", "Most records of this page; 10 without it");
const SORT_BY: Query = query("sortBy[0].name", "The field to sort by");
const DIRECTION: Query = query("sortBy[0].direction", "asc or desc");

pub const PAGE: &[Query] = &[];
pub const SEARCH: &[Query] = &[
    TERM,
    query(
        "search.field",
        "path, description, id or attributes.<name>; path without it",
    ),
    query("search.comparison", "contains, equal or begins_with"),
    query("search.type", "string or number"),
    query("search.links", "true: secrets whose base secret is the term"),
    query("id", "Read the secret of this id instead"),
    LIMIT,
    CURSOR,
    SORT,
];
pub const PATHS: &[Query] = &[LIMIT];
pub const EDIT: &[Query] = &[query("edit", "true: show what can be edited; issues nothing")];
pub const FORCE: &[Query] = &[query("force", "true: for good")];
pub const LIST: &[Query] = &[TERM, LIMIT, CURSOR, SORT, BY];
pub const ROLE: &[Query] = &[query("role", "Of this role only"), LIMIT, CURSOR, SORT, BY];
pub const ENGINES: &[Query] = &[TERM, query("poolName", "Of this pool only"), LIMIT, CURSOR, SORT, BY];
pub const LINES: &[Query] = &[
    query("startDate", "The first day, such as 2027-01-01"),
    query("endDate", "The last day"),
    query("principal", "Part of who called"),
    query("path", "Part of the path"),
    query("action", "The method, or ISSUE, REVOKE or ABANDON"),
    LIMIT,
    CURSOR,
    SORT,
];
pub const USAGE: &[Query] = &[
    query("startDate", "The first day, such as 2027-01-01"),
    query("endDate", "The last day"),
];
pub const RECORDS: &[Query] = &[
    query("filter.searchText", "Part of the name"),
    SKIP,
    TAKE,
    SORT_BY,
    DIRECTION,
];
pub const SOURCES: &[Query] = RECORDS;
pub const TENANTS: &[Query] = &[
    query("filter.nameSearch", "Part of the name"),
    query("filter.includeInactive", "true: those too"),
    SKIP,
    TAKE,
    SORT_BY,
    DIRECTION,
];
pub const AUDITS: &[Query] = &[
    query("filter.tenantId", "Of this tenant only"),
    query("filter.searchText", "Part of the record"),
    SKIP,
    TAKE,
    SORT_BY,
    DIRECTION,
];
pub const SYNCS: &[Query] = &[
    query("filter.secretId", "Of this secret only"),
    query("filter.tenantId", "Of this tenant only"),
    query("filter.includeInactive", "true: those too"),
    SKIP,
    TAKE,
    SORT_BY,
    DIRECTION,
];

macro_rules! stored {
    ($name:literal, $says:literal, [$($field:expr),* $(,)?]) => {
        Shape {
            name: $name,
            says: $says,
            fields: &[
                must("id", Kind::Text, ""),
                must("version", Kind::Text, "Counts the changes, from 0"),
                must("created", Kind::Time, ""),
                must("createdBy", Kind::Text, ""),
                must("lastModified", Kind::Time, ""),
                must("lastModifiedBy", Kind::Text, ""),
                $($field),*
            ],
        }
    };
}

macro_rules! paged {
    ($name:literal, $key:literal, $of:literal) => {
        Shape {
            name: $name,
            says: "A page",
            fields: &[
                must($key, Kind::List($of), ""),
                must("length", Kind::Number, "Items of this page"),
                must("limit", Kind::Number, ""),
                must("total", Kind::Number, "Items of all pages"),
                must("cursor", Kind::Text, "For the next page; empty on the last"),
                must("sort", Kind::Text, ""),
            ],
        }
    };
}

macro_rules! shape {
    ($name:literal, $says:literal, [$($field:expr),* $(,)?]) => {
        Shape { name: $name, says: $says, fields: &[$($field),*] }
    };
}

const ROLE_NAME: Field = must("name", Kind::Text, "3 to 100 characters");
const POLICY_TEXT: Field = must(
    "policy",
    Kind::Text,
    "The document as a text: permissionDocument is a list of statements",
);
const SERIALIZATION: Field = may("serialization", Kind::Text, "json or yaml");

/// All of them.
#[rustfmt::skip]
pub const SHAPES: &[Shape] = &[
    shape!("Error", "A failure", [
        must("code", Kind::Number, "The status"), must("message", Kind::Text, "What went wrong, with the next step"),
        may("errors", Kind::Object, "The same by field"),
    ]),
    shape!("ApiError", "A failure in Secret Server's form", [
        must("message", Kind::Text, ""), may("messageDetail", Kind::Any, ""), may("errorCode", Kind::Text, ""),
        may("modelState", Kind::Object, "The same by field"),
    ]),
    shape!("Message", "A sentence", [must("message", Kind::Text, "")]),
    shape!("TokenRequest", "A login; which fields are needed follows from grant_type", [
        must("grant_type", Kind::Text, "password, client_credentials, refresh_token or kubernetes"),
        may("username", Kind::Text, "For password"), may("password", Kind::Secret, "For password"),
        may("client_id", Kind::Text, "For client_credentials"), may("client_secret", Kind::Secret, "For client_credentials"),
        may("refresh_token", Kind::Secret, "For refresh_token"),
        may("jwt", Kind::Secret, "For kubernetes: a ServiceAccount's token with the audience dsv.dev"),
    ]),
    shape!("Token", "An access token", [
        must("accessToken", Kind::Secret, ""), must("tokenType", Kind::Text, "bearer"),
        must("expiresIn", Kind::Number, "Seconds"), must("refreshToken", Kind::Secret, "Empty where there is none"),
    ]),
    shape!("Heartbeat", "Whether the tenant is ready", [
        must("StatusCode", Kind::Number, "2: the tenant waits for its first administrator"), must("Message", Kind::Text, ""),
    ]),
    shape!("FirstAdmin", "The first administrator", [
        must("UserName", Kind::Text, ""), must("Password", Kind::Secret, "8 to 100 characters"),
    ]),
    shape!("SecretWrite", "A secret, as it is written", [
        may("data", Kind::Object, "The values, 64 KiB at most; empty in a dynamic secret"),
        may("description", Kind::Text, ""),
        may("attributes", Kind::Object, "type postgresql makes a base secret, linkConfig a dynamic one"),
        may("overwrite", Kind::Flag, "Replace values and description instead of merging"),
    ]),
    stored!("SecretDescription", "A secret without its values", [
        must("path", Kind::Text, "With : between its parts"), must("attributes", Kind::Object, ""), must("description", Kind::Text, ""),
    ]),
    stored!("Secret", "A secret", [
        must("path", Kind::Text, "With : between its parts"), must("attributes", Kind::Object, ""), must("description", Kind::Text, ""),
        must("data", Kind::Object, "The values; of a dynamic secret username, password, host, port, database, uri, ttl and expiresAt"),
    ]),
    shape!("SecretVersions", "Versions, newest first", [must("data", Kind::List("Secret"), "")]),
    paged!("SecretPage", "data", "SecretDescription"),
    shape!("PathList", "Paths", [must("data", Kind::Texts, "")]),
    shape!("PoolWrite", "An engine pool, as it is written", [must("name", Kind::Text, "Letters, numbers, underscores and dashes")]),
    stored!("Pool", "An engine pool", [must("name", Kind::Text, "")]),
    paged!("PoolPage", "pools", "Pool"),
    shape!("EngineWrite", "An engine, as it is written", [
        must("name", Kind::Text, "Letters, numbers, underscores and dashes"), must("poolName", Kind::Text, "A pool that exists"),
    ]),
    stored!("Engine", "An engine", [
        must("name", Kind::Text, ""), must("poolName", Kind::Text, ""), must("endpoint", Kind::Text, "Where it dials"),
        must("publicKey", Kind::Text, ""), must("lastHeartbeat", Kind::Text, "Empty where it was never connected"),
    ]),
    stored!("EngineMade", "An engine that was just made", [
        must("name", Kind::Text, ""), must("poolName", Kind::Text, ""), must("endpoint", Kind::Text, "Where it dials"),
        must("publicKey", Kind::Text, ""), must("lastHeartbeat", Kind::Text, ""),
        must("privateKey", Kind::Secret, "Shown this once and kept by nobody but you"),
    ]),
    paged!("EnginePage", "engines", "Engine"),
    shape!("UserWrite", "A user, as it is written", [
        must("userName", Kind::Text, "3 to 100 characters"), must("password", Kind::Secret, "8 to 100 characters"),
        may("displayName", Kind::Text, ""), may("provider", Kind::Text, "None is served"), may("externalId", Kind::Text, "Needs a provider"),
    ]),
    shape!("UserChange", "What changes", [may("password", Kind::Secret, ""), may("displayName", Kind::Text, "")]),
    shape!("PasswordChange", "Both passwords", [must("currentPassword", Kind::Secret, ""), must("newPassword", Kind::Secret, "")]),
    stored!("User", "A user", [
        must("userName", Kind::Text, ""), must("displayName", Kind::Text, ""), must("provider", Kind::Text, ""), must("externalId", Kind::Text, ""),
    ]),
    paged!("UserPage", "data", "User"),
    shape!("UserVersions", "Versions, newest first", [must("data", Kind::List("User"), "")]),
    shape!("Groups", "Names of groups", [must("groups", Kind::Texts, "")]),
    shape!("RoleWrite", "A role, as it is written", [
        ROLE_NAME, may("description", Kind::Text, ""), may("provider", Kind::Text, ""), may("externalId", Kind::Text, "Needs a provider"),
    ]),
    shape!("RoleChange", "What changes", [may("description", Kind::Text, "")]),
    stored!("Role", "A role", [
        must("name", Kind::Text, ""), must("description", Kind::Text, ""), must("provider", Kind::Text, ""), must("externalId", Kind::Text, ""),
        must("groups", Kind::Texts, ""),
    ]),
    paged!("RolePage", "data", "Role"),
    shape!("RoleVersions", "Versions, newest first", [must("data", Kind::List("Role"), "")]),
    shape!("ClientWrite", "Client credentials, as they are written", [
        must("role", Kind::Text, "The role that they act as"), may("description", Kind::Text, ""),
        may("ttl", Kind::Number, "Seconds until they end"), may("usesLimit", Kind::Number, "Most logins"),
        may("url", Kind::Flag, "Answer with a bootstrap URL in place of the secret"), may("urlTTL", Kind::Number, "Seconds in which it can be used"),
    ]),
    stored!("Client", "Client credentials", [
        must("clientId", Kind::Text, ""), must("role", Kind::Text, ""), must("description", Kind::Text, ""), must("TTL", Kind::Number, ""),
        must("expiredAt", Kind::Text, ""), must("usesLimit", Kind::Number, ""), must("usedCount", Kind::Number, ""),
        may("urlTTL", Kind::Number, "Of a bootstrap URL: the seconds it was made for"), may("urlExpires", Kind::Time, "Until when it can be used"),
        may("accessed", Kind::Text, "When it was used; empty before"), may("status", Kind::Text, "waiting or used"),
    ]),
    stored!("ClientMade", "Client credentials that were just made", [
        must("clientId", Kind::Text, ""), must("role", Kind::Text, ""), must("description", Kind::Text, ""), must("TTL", Kind::Number, ""),
        must("expiredAt", Kind::Text, ""), must("usesLimit", Kind::Number, ""), must("usedCount", Kind::Number, ""),
        may("clientSecret", Kind::Secret, "Shown this once"), may("url", Kind::Secret, "With url: the whole address"),
        may("urlPath", Kind::Secret, "The same without the host"),
        may("urlTTL", Kind::Number, "Of a bootstrap URL: the seconds it was made for"), may("urlExpires", Kind::Time, "Until when it can be used"),
        may("accessed", Kind::Text, "When it was used; empty before"), may("status", Kind::Text, "waiting or used"),
    ]),
    paged!("ClientPage", "data", "Client"),
    shape!("GroupWrite", "A group, as it is written", [
        must("groupName", Kind::Text, "3 to 100 characters"), may("members", Kind::Texts, "Names of users, or users:… and roles:…"),
    ]),
    stored!("Group", "A group", [
        must("groupName", Kind::Text, ""), must("members", Kind::Texts, ""), must("total", Kind::Number, ""), must("metaData", Kind::Object, ""),
    ]),
    stored!("GroupMade", "A group that was just made", [
        must("groupName", Kind::Text, ""), must("members", Kind::Texts, ""), must("total", Kind::Number, ""), must("metaData", Kind::Object, ""),
        must("addedMemberNames", Kind::Texts, ""), must("errors", Kind::Object, "Who could not be added, and why"),
    ]),
    paged!("GroupPage", "data", "Group"),
    shape!("Members", "Members", [must("memberNames", Kind::Texts, "")]),
    shape!("MembersAdded", "Who was added", [
        must("addedMemberNames", Kind::Texts, ""), must("errors", Kind::Object, "Who could not be added, and why"),
    ]),
    shape!("Config", "What the policies say, in one document", [
        must("tenantName", Kind::Text, ""), must("permissionDocument", Kind::List("Statement"), "Of the policies that the caller may read"),
        must("settings", Kind::Object, "Empty"),
    ]),
    shape!("PolicyWrite", "A policy, as it is written", [must("path", Kind::Text, "Such as secrets:servers"), POLICY_TEXT, SERIALIZATION]),
    shape!("PolicyChange", "What changes", [POLICY_TEXT, SERIALIZATION]),
    stored!("Policy", "A policy", [must("path", Kind::Text, ""), must("permissionDocument", Kind::List("Statement"), "")]),
    shape!("Statement", "One statement of a policy", [
        may("id", Kind::Text, ""), may("description", Kind::Text, ""),
        must("subjects", Kind::Any, "Such as users:<.*>; a list, or one text"), must("actions", Kind::Any, "create, read, update, delete, list, assign"),
        may("resources", Kind::Any, "Without any: the policy's path and all below it"), must("effect", Kind::Text, "allow or deny"),
        may("conditions", Kind::Object, "CIDRCondition and TimeCondition"), may("meta", Kind::Any, ""),
    ]),
    paged!("PolicyPage", "data", "Policy"),
    shape!("PolicyVersions", "Versions, newest first", [must("data", Kind::List("Policy"), "")]),
    shape!("AuditLine", "One line of the stream", [
        must("number", Kind::Number, "Counts from 1 in each start of a replica"), must("time", Kind::Time, ""), must("replica", Kind::Text, ""),
        must("tenant", Kind::Text, ""), must("principal", Kind::Text, "Who called; empty before a login"), must("remote", Kind::Text, ""),
        must("action", Kind::Text, "The method, or ISSUE, REVOKE or ABANDON of an account"), must("path", Kind::Text, ""),
        must("status", Kind::Number, "499: the reader went away"), may("account", Kind::Text, "Of an account: its name"),
        may("dynamicSecret", Kind::Text, "Of an account: what it was issued for"), must("previous", Kind::Text, "Hash of the line before"),
        must("hash", Kind::Text, "SHA-256 of this line"),
    ]),
    paged!("AuditPage", "data", "AuditLine"),
    shape!("Usage", "Calls by day", [
        must("startDate", Kind::Text, ""), must("endDate", Kind::Text, ""), must("totalSecrets", Kind::Number, ""), must("totalKeys", Kind::Number, ""),
        must("requestsUsed", Kind::Object, ""), must("totalRequestsUsed", Kind::Number, ""),
    ]),
    shape!("ApiLogin", "A login of Secret Server", [
        must("grant_type", Kind::Text, "password"), must("username", Kind::Text, ""), must("password", Kind::Secret, ""),
    ]),
    shape!("ApiToken", "An access token in Secret Server's form", [
        must("access_token", Kind::Secret, ""), must("token_type", Kind::Text, ""), must("expires_in", Kind::Number, ""),
        must("refresh_token", Kind::Secret, ""),
    ]),
    shape!("FormField", "A field of a form; only dirty ones count", [must("value", Kind::Any, ""), must("dirty", Kind::Flag, "")]),
    shape!("TenantFields", "The fields of a DSV tenant", [
        may("secretId", Kind::Of("FormField"), "Number of the secret with the login"), may("tenantName", Kind::Of("FormField"), ""),
        may("syncInterval", Kind::Of("FormField"), "Minutes"), may("active", Kind::Of("FormField"), ""),
    ]),
    shape!("TenantForm", "A DSV tenant, as it is written", [must("data", Kind::Of("TenantFields"), "")]),
    shape!("Tenant", "A DSV tenant", [
        may("id", Kind::Number, ""), must("dsvTenantId", Kind::Number, ""), must("tenantName", Kind::Text, ""), must("secretId", Kind::Any, ""),
        must("secretName", Kind::Text, ""), must("syncInterval", Kind::Number, "Minutes"), must("active", Kind::Flag, ""),
        must("dateAdded", Kind::Any, ""), must("lastSynced", Kind::Any, ""),
    ]),
    shape!("SyncFields", "The fields of a sync map", [
        may("secretId", Kind::Of("FormField"), ""), may("dsvTenantId", Kind::Of("FormField"), ""), may("active", Kind::Of("FormField"), ""),
        may("fieldNamesPath", Kind::Of("FormField"), "Parts of the path; $slug stands for a field's value"),
    ]),
    shape!("SyncForm", "A sync map, as it is written", [must("data", Kind::Of("SyncFields"), "")]),
    shape!("SyncIds", "Numbers of sync maps", [must("data", Kind::Numbers, "")]),
    shape!("SyncStatus", "A sync map", [
        must("devOpsSyncMapId", Kind::Number, ""), must("secretId", Kind::Any, ""), must("secretName", Kind::Text, ""), must("tenantId", Kind::Any, ""),
        must("tenantName", Kind::Text, ""), must("devOpsSecretVaultPath", Kind::Text, ""), must("status", Kind::Text, "Pending, Synced, Failed, SourceMissing or Inactive"),
        must("active", Kind::Flag, ""), must("dateAdded", Kind::Any, ""), must("lastSyncTime", Kind::Any, ""), must("nextSyncTime", Kind::Any, ""),
        must("lastError", Kind::Any, ""),
    ]),
    shape!("SourceField", "A field of a secret", [
        may("fieldName", Kind::Text, ""), may("slug", Kind::Text, ""), must("itemValue", Kind::Secret, ""),
    ]),
    shape!("SourceWrite", "A secret with fields, as it is written", [
        must("name", Kind::Text, ""), may("secretTemplateId", Kind::Number, ""), may("items", Kind::List("SourceField"), ""),
    ]),
    shape!("Source", "A secret with fields", [
        must("id", Kind::Number, ""), must("name", Kind::Text, ""), must("path", Kind::Text, ""), must("secretTemplateId", Kind::Number, ""),
        must("secretTemplateName", Kind::Text, ""), must("active", Kind::Flag, ""), must("items", Kind::List("SourceField"), ""),
    ]),
    shape!("Template", "A template", [
        must("id", Kind::Number, ""), must("name", Kind::Text, ""), must("active", Kind::Flag, ""), must("fields", Kind::Any, "Its fields"),
    ]),
    shape!("RecordPage", "A page in Secret Server's form", [
        must("records", Kind::Any, "The items"), must("skip", Kind::Number, ""), must("take", Kind::Number, ""), must("total", Kind::Number, ""),
        must("hasNext", Kind::Flag, ""), must("hasPrev", Kind::Flag, ""), must("nextSkip", Kind::Number, ""), must("prevSkip", Kind::Number, ""),
        must("currentPage", Kind::Number, ""), must("pageCount", Kind::Number, ""), must("batchCount", Kind::Number, ""), must("sortBy", Kind::Any, ""),
        must("success", Kind::Flag, ""), must("severity", Kind::Text, ""),
    ]),
];
