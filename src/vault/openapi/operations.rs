//! The rows: one for each thing that can be asked.

use super::shapes::{
    AUDITS, EDIT, ENGINES, FORCE, LINES, LIST, PAGE, PATHS, Query, RECORDS, ROLE, SEARCH, SOURCES, SYNCS, TENANTS,
    USAGE,
};

/// One thing that can be asked.
pub struct Operation {
    pub method: &'static str,
    pub path: &'static str,
    pub says: &'static str,
    pub body: Option<&'static str>,
    pub query: &'static [Query],
    /// Status and shape of the answers that are no failure.
    pub replies: &'static [(u16, Option<&'static str>)],
}

/// What may stand behind a path, and how it is written in the template.
const SUFFIXES: [(&str, &str); 5] = [
    ("::description", "::description"),
    ("::listpaths", "::listpaths"),
    ("/version/{count}", "/version/"),
    ("/rollback/{version}", "/rollback/"),
    ("/restore", "/restore"),
];

impl Operation {
    /// The template as calls have it, without what stands behind it, and that.
    pub fn parts(&self) -> (String, &'static str) {
        let bare = self.path.strip_prefix("/v1/").map(str::to_owned);
        let bare = bare.unwrap_or_else(|| match self.path.strip_prefix("/api/v1/") {
            Some(rest) => format!("api/{rest}"),
            None => self.path.trim_start_matches('/').to_owned(),
        });
        for (written, word) in SUFFIXES {
            if let Some(rest) = bare.strip_suffix(written) {
                return (rest.to_owned(), word);
            }
        }
        (bare, "")
    }

    /// What it is filed under: its area, or Secret Server.
    pub fn tag(&self) -> &'static str {
        let area = self
            .path
            .strip_prefix("/v1/")
            .and_then(|rest| rest.split(['/', ':']).next());
        match area {
            None => "secret server",
            Some("token" | "revoke" | "heartbeat" | "initialize") => "login",
            Some("config") => "policies",
            Some(area) => area,
        }
    }

    /// Such as `put-v1-secrets-path-restore`.
    pub fn id(&self) -> String {
        let words = self.path.split(|c: char| !c.is_ascii_alphanumeric());
        let words = words.filter(|word| !word.is_empty());
        let words: Vec<String> = std::iter::once(self.method)
            .chain(words)
            .map(str::to_lowercase)
            .collect();
        words.join("-")
    }

    /// Whether its body may be a form.
    pub fn is_login(&self) -> bool {
        self.path.ends_with("/token")
    }

    /// Whether it needs no token.
    pub fn is_open(&self) -> bool {
        self.is_login() || self.tag() == "login" || self.path.contains("/bootstrap/")
    }
}

const NONE: &[Query] = &[];

const fn get(path: &'static str, reply: &'static [(u16, Option<&'static str>)], says: &'static str) -> Operation {
    Operation {
        method: "GET",
        path,
        says,
        body: None,
        query: NONE,
        replies: reply,
    }
}

const fn send(
    method: &'static str,
    path: &'static str,
    body: Option<&'static str>,
    replies: &'static [(u16, Option<&'static str>)],
    says: &'static str,
) -> Operation {
    Operation {
        method,
        path,
        says,
        body,
        query: NONE,
        replies,
    }
}

impl Operation {
    const fn with(self, query: &'static [Query]) -> Self {
        Self { query, ..self }
    }
}

type Replies = &'static [(u16, Option<&'static str>)];
const DONE: Replies = &[(204, None)];
/// A soft deletion is told, one for good is not.
const DELETED: Replies = &[(200, Some("Message")), (204, None)];
const SECRET: Replies = &[(200, Some("Secret"))];
const SECRET_MADE: Replies = &[(201, Some("Secret"))];
const DESCRIPTION: Replies = &[(200, Some("SecretDescription"))];
const SECRET_VERSIONS: Replies = &[(200, Some("SecretVersions"))];
const FOUND: Replies = &[(200, Some("SecretPage"))];
const NAMES: Replies = &[(200, Some("PathList"))];
const TOKEN: Replies = &[(200, Some("Token"))];
const MESSAGE: Replies = &[(200, Some("Message"))];

/// All of them.
#[rustfmt::skip]
pub const ALL: &[Operation] = &[
    send("POST", "/v1/token", Some("TokenRequest"), TOKEN, "Log in with a password, client credentials, a refresh token or a Kubernetes ServiceAccount's token"),
    send("POST", "/v1/revoke/{refreshToken}", None, DONE, "End a refresh token"),
    get("/v1/heartbeat", &[(200, Some("Heartbeat"))], "Say whether the tenant waits for its first administrator"),
    send("POST", "/v1/initialize", Some("FirstAdmin"), &[(201, Some("Message"))], "Make the first administrator of a tenant that was opened"),

    get("/v1/secrets", FOUND, "Search secrets; no value is shown").with(SEARCH),
    get("/v1/secrets/{prefix}::listpaths", NAMES, "List paths that begin so").with(PATHS),
    send("POST", "/v1/secrets/{path}", Some("SecretWrite"), SECRET_MADE, "Create a secret, a base secret or a dynamic secret"),
    get("/v1/secrets/{path}", SECRET, "Read a secret by path or id; of a dynamic one each read issues an account").with(EDIT),
    get("/v1/secrets/{path}::description", DESCRIPTION, "Describe a secret without its values"),
    get("/v1/secrets/{path}/version/{count}", SECRET_VERSIONS, "Read the most recent versions"),
    send("PUT", "/v1/secrets/{path}", Some("SecretWrite"), SECRET, "Change a secret: values are merged, or replaced with overwrite"),
    send("PUT", "/v1/secrets/{path}/restore", None, DONE, "Take a soft deletion back"),
    send("PUT", "/v1/secrets/{path}/rollback/{version}", None, SECRET, "Make an old version the next one"),
    send("DELETE", "/v1/secrets/{path}", None, DELETED, "Delete a secret; softly for 72 hours, or for good with force").with(FORCE),

    get("/v1/home", FOUND, "Search one's own home").with(SEARCH),
    get("/v1/home/{prefix}::listpaths", NAMES, "List paths of one's home").with(PATHS),
    send("POST", "/v1/home/{path}", Some("SecretWrite"), SECRET_MADE, "Create a secret in one's home"),
    get("/v1/home/{path}", SECRET, "Read a secret of one's home"),
    get("/v1/home/{path}::description", DESCRIPTION, "Describe a secret of one's home"),
    get("/v1/home/{path}/version/{count}", SECRET_VERSIONS, "Read the most recent versions"),
    send("PUT", "/v1/home/{path}", Some("SecretWrite"), SECRET, "Change a secret of one's home"),
    send("PUT", "/v1/home/{path}/restore", None, DONE, "Take a soft deletion back"),
    send("PUT", "/v1/home/{path}/rollback/{version}", None, SECRET, "Make an old version the next one"),
    send("DELETE", "/v1/home/{path}", None, DELETED, "Delete a secret of one's home").with(FORCE),

    send("POST", "/v1/pools", Some("PoolWrite"), &[(201, Some("Pool"))], "Create an engine pool"),
    get("/v1/pools", &[(200, Some("PoolPage"))], "List engine pools").with(LIST),
    get("/v1/pools/{name}", &[(200, Some("Pool"))], "Read an engine pool"),
    send("DELETE", "/v1/pools/{name}", None, DONE, "Delete an engine pool that has no engines"),

    send("POST", "/v1/engines", Some("EngineWrite"), &[(201, Some("EngineMade"))], "Create an engine; its private key is shown this once"),
    get("/v1/engines", &[(200, Some("EnginePage"))], "List engines").with(ENGINES),
    get("/v1/engines/{name}", &[(200, Some("Engine"))], "Read an engine"),
    send("POST", "/v1/engines/{name}/ping", None, MESSAGE, "Send a message to the engine and back"),
    send("DELETE", "/v1/engines/{name}", None, DONE, "Delete an engine"),

    send("POST", "/v1/users", Some("UserWrite"), &[(201, Some("User"))], "Create a user"),
    get("/v1/users", &[(200, Some("UserPage"))], "List users").with(LIST),
    get("/v1/users/{name}", &[(200, Some("User"))], "Read a user"),
    get("/v1/users/{name}/groups", &[(200, Some("Groups"))], "List the groups that a user is in"),
    get("/v1/users/{name}/version/{count}", &[(200, Some("UserVersions"))], "Read the most recent versions"),
    send("PUT", "/v1/users/{name}", Some("UserChange"), &[(200, Some("User"))], "Change a user; another password ends his tokens"),
    send("POST", "/v1/users/{name}/password", Some("PasswordChange"), DONE, "Change one's own password"),
    send("PUT", "/v1/users/{name}/restore", None, DONE, "Take a soft deletion back"),
    send("DELETE", "/v1/users/{name}", None, DELETED, "Delete a user").with(FORCE),

    send("POST", "/v1/roles", Some("RoleWrite"), &[(201, Some("Role"))], "Create a role"),
    get("/v1/roles", &[(200, Some("RolePage"))], "List roles").with(LIST),
    get("/v1/roles/{name}", &[(200, Some("Role"))], "Read a role"),
    get("/v1/roles/{name}/version/{count}", &[(200, Some("RoleVersions"))], "Read the most recent versions"),
    send("PUT", "/v1/roles/{name}", Some("RoleChange"), &[(200, Some("Role"))], "Change a role's description"),
    send("PUT", "/v1/roles/{name}/restore", None, DONE, "Take a soft deletion back"),
    send("DELETE", "/v1/roles/{name}", None, DELETED, "Delete a role").with(FORCE),

    send("POST", "/v1/clients", Some("ClientWrite"), &[(201, Some("ClientMade"))], "Create client credentials; the secret is shown this once"),
    get("/v1/clients", &[(200, Some("ClientPage"))], "List client credentials").with(ROLE),
    get("/v1/clients/{id}", &[(200, Some("Client"))], "Read client credentials, without the secret"),
    get("/v1/clients/bootstrap/{id}", &[(200, Some("ClientMade"))], "Use a bootstrap URL: client credentials with their secret, once and without a token"),
    send("PUT", "/v1/clients/{id}/restore", None, DONE, "Take a soft deletion back"),
    send("DELETE", "/v1/clients/{id}", None, DELETED, "Delete client credentials").with(FORCE),

    send("POST", "/v1/groups", Some("GroupWrite"), &[(201, Some("GroupMade"))], "Create a group"),
    get("/v1/groups", &[(200, Some("GroupPage"))], "List groups").with(LIST),
    get("/v1/groups/{name}", &[(200, Some("Group"))], "Read a group"),
    send("POST", "/v1/groups/{name}/members", Some("Members"), &[(200, Some("MembersAdded"))], "Add members"),
    send("DELETE", "/v1/groups/{name}/members", Some("Members"), DONE, "Remove members"),
    send("PUT", "/v1/groups/{name}/restore", None, DONE, "Take a soft deletion back"),
    send("DELETE", "/v1/groups/{name}", None, DELETED, "Delete a group").with(FORCE),

    get("/v1/config", &[(200, Some("Config"))], "Read what the policies say in one document"),
    send("POST", "/v1/config/policies", Some("PolicyWrite"), &[(201, Some("Policy"))], "Create a policy"),
    get("/v1/config/policies", &[(200, Some("PolicyPage"))], "List policies").with(LIST),
    get("/v1/config/policies/{path}", &[(200, Some("Policy"))], "Read a policy"),
    get("/v1/config/policies/{path}/version/{count}", &[(200, Some("PolicyVersions"))], "Read the most recent versions"),
    send("PUT", "/v1/config/policies/{path}", Some("PolicyChange"), &[(200, Some("Policy"))], "Change a policy"),
    send("PUT", "/v1/config/policies/{path}/restore", None, DONE, "Take a soft deletion back"),
    send("PUT", "/v1/config/policies/{path}/rollback/{version}", None, &[(200, Some("Policy"))], "Make an old version the next one"),
    send("DELETE", "/v1/config/policies/{path}", None, DELETED, "Delete a policy").with(FORCE),

    get("/v1/audit", &[(200, Some("AuditPage"))], "List what was done, newest first, as far as this replica keeps it").with(LINES),
    get("/v1/usage", &[(200, Some("Usage"))], "Count calls by day, since this replica started").with(USAGE),

    send("POST", "/oauth2/token", Some("ApiLogin"), &[(200, Some("ApiToken"))], "Log in as Secret Server has it"),
    send("POST", "/api/v1/devops-secrets-vault/tenant", Some("TenantForm"), &[(200, Some("Tenant"))], "Register a DSV tenant"),
    get("/api/v1/devops-secrets-vault/tenant", &[(200, Some("RecordPage"))], "List DSV tenants").with(TENANTS),
    get("/api/v1/devops-secrets-vault/tenant/stub", &[(200, Some("Tenant"))], "Show an empty tenant, for a form"),
    get("/api/v1/devops-secrets-vault/tenant/audits", &[(200, Some("RecordPage"))], "List changes of DSV tenants").with(AUDITS),
    get("/api/v1/devops-secrets-vault/tenant/{id}", &[(200, Some("Tenant"))], "Read a DSV tenant"),
    send("PUT", "/api/v1/devops-secrets-vault/tenant/{id}", Some("TenantForm"), &[(200, Some("Tenant"))], "Change a DSV tenant; only dirty fields count"),
    send("POST", "/api/v1/devops-secrets-vault/add-sync", Some("SyncForm"), &[(200, Some("SyncStatus"))], "Keep a secret in step at a path of a tenant"),
    send("PUT", "/api/v1/devops-secrets-vault/sync/{id}", Some("SyncForm"), &[(200, Some("SyncStatus"))], "Change a sync map"),
    send("POST", "/api/v1/devops-secrets-vault/sync", Some("SyncIds"), &[(200, None)], "Push sync maps now"),
    get("/api/v1/devops-secrets-vault/sync/status", &[(200, Some("RecordPage"))], "List sync maps").with(SYNCS),
    get("/api/v1/devops-secrets-vault/sync/status/{id}", &[(200, Some("SyncStatus"))], "Read a sync map"),
    send("POST", "/api/v1/secrets", Some("SourceWrite"), &[(200, Some("Source"))], "Create a secret with fields"),
    get("/api/v1/secrets", &[(200, Some("RecordPage"))], "List secrets with their numbers").with(SOURCES),
    get("/api/v1/secrets/{id}", &[(200, Some("Source"))], "Read a secret with its fields"),
    get("/api/v1/secret-templates", &[(200, Some("RecordPage"))], "List templates").with(RECORDS),
    get("/api/v1/secret-templates/{id}", &[(200, Some("Template"))], "Read a template").with(PAGE),
];
