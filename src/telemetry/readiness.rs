//! Whether the process can serve: a table of named parts, each ready or with a reason why not.
//!
//! Leadership is no part: a replica that stands by is ready, or a rollout would wait for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The parts of the process; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    parts: Arc<Mutex<Table>>,
}

/// By name: what is missing, if anything.
type Table = BTreeMap<&'static str, Option<String>>;

/// One part, to be told how it stands; clones are the same.
#[derive(Debug, Clone)]
pub struct Part {
    name: &'static str,
    parts: Arc<Mutex<Table>>,
}

impl Readiness {
    /// A new part, not ready yet.
    pub fn register(&self, name: &'static str) -> Part {
        let part = Part {
            name,
            parts: self.parts.clone(),
        };
        part.missing("not started yet");
        part
    }

    /// What is missing, by name; empty when all is ready.
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = parts.iter().filter_map(|(name, why)| Some((*name, why.clone()?)));
        missing.collect()
    }
}

impl Part {
    /// It can serve.
    pub fn ready(&self) {
        self.set(None);
    }

    /// It cannot serve, and why; no secret values, since anybody who reaches the health port can read it.
    pub fn missing(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    fn set(&self, missing: Option<String>) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(self.name, missing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_missing_is_named() {
        let readiness = Readiness::default();
        let (api, hub) = (readiness.register("api-server"), readiness.register("hub"));
        api.ready();
        assert_eq!(readiness.missing(), [("hub", "not started yet".to_owned())]);
        hub.ready();
        assert_eq!(readiness.missing(), []);
        api.missing("EnginePool is not installed");
        assert_eq!(
            readiness.missing(),
            [("api-server", "EnginePool is not installed".to_owned())]
        );
    }
}
