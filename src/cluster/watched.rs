//! Which namespaces the operator serves, and one watch over the Secrets of all of them.
//!
//! Kubernetes lists a kind in one namespace or in all of them. Where the installer names some, the operator has no right to
//! list Secrets anywhere else, so each named one has a watch of its own; whoever follows them sees one history.

use futures::stream::{self, BoxStream, select_all};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PartialObjectMeta;
use kube::runtime::watcher::{Config, Error, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use std::collections::{BTreeSet, HashMap};

/// Namespaces that are served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces(Option<BTreeSet<String>>);

impl Namespaces {
    /// Those that were named, and the operator's own; all of them where none was named.
    pub fn named(names: &[String], home: &str) -> Self {
        let words = names.iter().map(|name| name.trim()).filter(|name| !name.is_empty());
        let mut served: BTreeSet<String> = words.map(str::to_owned).collect();
        if served.is_empty() {
            return Self(None);
        }
        served.insert(home.to_owned());
        Self(Some(served))
    }

    /// Whether this one is served.
    pub fn has(&self, namespace: &str) -> bool {
        self.0.as_ref().is_none_or(|named| named.contains(namespace))
    }

    /// What becomes of the Secrets that `config` selects, by their metadata: no cache holds a value.
    pub fn secrets(
        &self,
        client: &Client,
        config: &Config,
    ) -> BoxStream<'static, Result<Event<PartialObjectMeta<Secret>>, Error>> {
        let of = |api: Api<PartialObjectMeta<Secret>>| watcher(api, config.clone()).default_backoff().boxed();
        match &self.0 {
            None => of(Api::all(client.clone())),
            Some(named) => {
                let parts = named.iter().map(|name| of(Api::namespaced(client.clone(), name)));
                merged(parts.collect()).boxed()
            }
        }
    }
}

/// One history of several watches.
fn merged<K>(parts: Vec<BoxStream<'static, Result<Event<K>, Error>>>) -> impl Stream<Item = Result<Event<K>, Error>>
where
    K: Resource + Clone + Send + 'static,
{
    let mut history = History::of(parts.len());
    let numbered = parts
        .into_iter()
        .enumerate()
        .map(|(part, events)| events.map(move |event| (part, event)).boxed());
    select_all(numbered).flat_map(move |(part, event)| {
        let events = match event {
            Ok(event) => history.take(part, event).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(events)
    })
}

/// What one watch has shown, by name.
struct Part<K> {
    known: HashMap<String, K>,
    /// Filled by a list that is under way.
    listed: Option<HashMap<String, K>>,
    /// It was listed once.
    is_complete: bool,
}

/// Makes one history of several: it is complete when all are, and where one begins anew the others go on.
struct History<K> {
    parts: Vec<Part<K>>,
    has_begun: bool,
    is_complete: bool,
    /// Gone before the first list was complete; whoever fills a cache cannot take anything out until then.
    gone: Vec<K>,
}

impl<K: Resource + Clone> History<K> {
    fn of(parts: usize) -> Self {
        let part = |_| Part {
            known: HashMap::new(),
            listed: None,
            is_complete: false,
        };
        Self {
            parts: (0..parts).map(part).collect(),
            has_begun: false,
            is_complete: false,
            gone: Vec::new(),
        }
    }

    fn take(&mut self, number: usize, event: Event<K>) -> Vec<Event<K>> {
        let mut events = Vec::new();
        if !self.has_begun {
            self.has_begun = true;
            events.push(Event::Init);
        }
        let Some(part) = self.parts.get_mut(number) else {
            return events;
        };
        match event {
            Event::Init => part.listed = Some(HashMap::new()),
            Event::InitApply(object) => {
                part.listed
                    .get_or_insert_default()
                    .insert(object.name_any(), object.clone());
                events.push(self.applied(object));
            }
            Event::Apply(object) => {
                part.known.insert(object.name_any(), object.clone());
                events.push(self.applied(object));
            }
            Event::Delete(object) => {
                part.known.remove(&object.name_any());
                events.extend(self.deleted(object));
            }
            Event::InitDone => {
                let listed = part.listed.take().unwrap_or_default();
                let before = std::mem::replace(&mut part.known, listed);
                let gone = before.into_iter().filter(|(name, _)| !part.known.contains_key(name));
                let gone: Vec<K> = gone.map(|(_, object)| object).collect();
                part.is_complete = true;
                for object in gone {
                    events.extend(self.deleted(object));
                }
                events.extend(self.completed());
            }
        }
        events
    }

    fn applied(&self, object: K) -> Event<K> {
        if self.is_complete {
            Event::Apply(object)
        } else {
            Event::InitApply(object)
        }
    }

    fn deleted(&mut self, object: K) -> Option<Event<K>> {
        if self.is_complete {
            return Some(Event::Delete(object));
        }
        self.gone.push(object);
        None
    }

    /// Once, when the last of all is complete.
    fn completed(&mut self) -> Vec<Event<K>> {
        if self.is_complete || !self.parts.iter().all(|part| part.is_complete) {
            return Vec::new();
        }
        self.is_complete = true;
        let gone = std::mem::take(&mut self.gone).into_iter();
        let is_back = |object: &K| {
            let (name, namespace) = (object.name_any(), object.namespace());
            let back = |part: &Part<K>| {
                part.known
                    .get(&name)
                    .is_some_and(|known| known.namespace() == namespace)
            };
            self.parts.iter().any(back)
        };
        let gone = gone.filter(|object| !is_back(object)).map(Event::Delete);
        std::iter::once(Event::InitDone).chain(gone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::reflector;

    fn object(namespace: &str, name: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some(namespace.to_owned());
        object.metadata.name = Some(name.to_owned());
        object
    }

    /// A history of two namespaces, and the cache that it fills.
    struct Scene {
        history: History<ConfigMap>,
        cache: reflector::Store<ConfigMap>,
        writer: reflector::store::Writer<ConfigMap>,
        said: Vec<String>,
    }

    impl Scene {
        fn new() -> Self {
            let (cache, writer) = reflector::store();
            Self {
                history: History::of(2),
                cache,
                writer,
                said: Vec::new(),
            }
        }

        fn take(&mut self, part: usize, events: impl IntoIterator<Item = Event<ConfigMap>>) {
            for event in events {
                for event in self.history.take(part, event) {
                    self.writer.apply_watcher_event(&event);
                    self.said.push(event.to_string());
                }
            }
        }

        fn cached(&self) -> Vec<String> {
            let all = self.cache.state();
            let mut names: Vec<_> = all
                .iter()
                .map(|one| format!("{}/{}", one.namespace().unwrap(), one.name_any()))
                .collect();
            names.sort();
            names
        }
    }

    fn list(namespace: &str, names: &[&str]) -> Vec<Event<ConfigMap>> {
        let listed = names.iter().map(|name| Event::InitApply(object(namespace, name)));
        std::iter::once(Event::Init)
            .chain(listed)
            .chain([Event::InitDone])
            .collect()
    }

    #[test]
    fn it_is_complete_when_all_parts_are() {
        let mut scene = Scene::new();
        scene.take(0, list("shop", &["a"]));
        assert!(scene.cached().is_empty(), "a part was taken for all of it");
        scene.take(0, [Event::Apply(object("shop", "b"))]);
        scene.take(1, list("databases", &["a"]));
        assert_eq!(scene.cached(), ["databases/a", "shop/a", "shop/b"]);
        let count = |word: &str| scene.said.iter().filter(|said| *said == word).count();
        assert_eq!((count("Init"), count("InitDone")), (1, 1), "{:?}", scene.said);
    }

    #[test]
    fn what_goes_before_all_are_complete_is_not_kept() {
        let mut scene = Scene::new();
        scene.take(0, list("shop", &["a", "b", "back"]));
        for name in ["a", "back"] {
            scene.take(0, [Event::Delete(object("shop", name))]);
        }
        scene.take(0, [Event::Apply(object("shop", "back"))]);
        scene.take(1, list("databases", &["a"]));
        assert_eq!(scene.cached(), ["databases/a", "shop/b", "shop/back"]);
    }

    #[test]
    fn a_part_that_begins_anew_takes_nothing_from_the_others_and_misses_nothing() {
        let mut scene = Scene::new();
        scene.take(0, list("shop", &["a", "b"]));
        scene.take(1, list("databases", &["a"]));
        scene.said.clear();
        scene.take(0, list("shop", &["b", "c"]));
        assert_eq!(scene.cached(), ["databases/a", "shop/b", "shop/c"]);
        assert_eq!(scene.said, ["Apply(b)", "Apply(c)", "Delete(a)"]);
        scene.take(1, [Event::Delete(object("databases", "a"))]);
        assert_eq!(scene.cached(), ["shop/b", "shop/c"]);
    }

    #[test]
    fn without_names_all_are_served_and_the_operators_own_always() {
        let all = Namespaces::named(&[String::new()], "dsv-system");
        assert!(all == Namespaces::default() && all.has("shop"));
        let some = Namespaces::named(&["shop ".to_owned()], "dsv-system");
        assert!(some.has("shop") && some.has("dsv-system") && !some.has("billing"));
    }
}
