//! Ids: a UUID of tenant, kind and name, so that whoever makes the same thing twice meets himself at one object.

use uuid::Uuid;

/// What kinds of things are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Secrets below `secrets`.
    Secret,
    /// Secrets below `home`.
    Home,
    /// People.
    User,
    /// What programs act as.
    Role,
    /// Sets of users.
    Group,
    /// Ids with secrets that act as a role.
    Client,
    /// Permission documents.
    Policy,
    /// Refresh tokens.
    Refresh,
    /// People who signed in on the page.
    Session,
}

impl Kind {
    /// The word in labels and hashes.
    pub fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Home => "home",
            Self::User => "user",
            Self::Role => "role",
            Self::Group => "group",
            Self::Client => "client",
            Self::Policy => "policy",
            Self::Refresh => "refresh",
            Self::Session => "session",
        }
    }

    /// The kind of a word.
    pub fn of(word: &str) -> Option<Self> {
        let all = [
            Self::Secret,
            Self::Home,
            Self::User,
            Self::Role,
            Self::Group,
            Self::Client,
            Self::Policy,
            Self::Refresh,
            Self::Session,
        ];
        all.into_iter().find(|kind| kind.word() == word)
    }
}

/// The id of a thing, which is the name of its object too. `tenant` is the UID of the tenant's namespace.
pub fn id(tenant: &str, kind: Kind, name: &str) -> Uuid {
    let space = Uuid::parse_str(tenant).unwrap_or(Uuid::NAMESPACE_OID);
    Uuid::new_v5(&space, format!("{}\0{name}", kind.word()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_kind_and_name_all_count() {
        let (one, two) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        let all = [
            id(&one, Kind::Secret, "a"),
            id(&two, Kind::Secret, "a"),
            id(&one, Kind::Home, "a"),
            id(&one, Kind::Secret, "b"),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(id(&one, Kind::Secret, "a").to_string().len(), 36);
        assert_eq!(Kind::of("policy"), Some(Kind::Policy));
    }
}
