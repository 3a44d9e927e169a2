//! The `what`/`where` pair as a field of custom resources.

use super::grants::{Grant, GrantError};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Which privileges on which objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct GrantPermissions {
    /// Privilege words separated by commas: SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER, MAINTAIN,
    /// USAGE, EXECUTE, CREATE, CONNECT, TEMPORARY or ALL.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new(
        "self.matches('(?i)^ *(select|insert|update|delete|truncate|references|trigger|maintain|usage|execute|create|connect|temporary|temp|all|all +privileges)( *, *(select|insert|update|delete|truncate|references|trigger|maintain|usage|execute|create|connect|temporary|temp|all|all +privileges))* *$')"
    ).message("what must be words of SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER, MAINTAIN, USAGE, EXECUTE, CREATE, CONNECT, TEMPORARY or ALL, separated by commas"))]
    pub what: String,
    /// `[database.]schema.object`; each part is a name, a "quoted name" or `*`. Without a database, the base secret's.
    #[serde(rename = "where")]
    #[schemars(length(min = 3, max = 400))]
    #[x_kube(validation = Rule::new(
        r#"self.matches('^(([*]|[A-Za-z_][A-Za-z0-9_$]*|"([^"\\x00]|"")+")[.]){1,2}([*]|[A-Za-z_][A-Za-z0-9_$]*|"([^"\\x00]|"")+")$')"#
    ).message("where must be [database.]schema.object; each part is a name, a \"quoted name\" or *"))]
    pub target: String,
}

impl GrantPermissions {
    /// The pair in the form that the rest of the program works with.
    pub fn parse(&self) -> Result<Grant, GrantError> {
        Grant::parse(&self.what, &self.target)
    }
}

impl From<&Grant> for GrantPermissions {
    fn from(grant: &Grant) -> Self {
        Self {
            what: grant.what(),
            target: grant.target.to_string(),
        }
    }
}
