//! Lists of what there may be thousands of, read part by part. A list of ten thousand leases at once takes a quarter of a
//! gibibyte for a moment, which is all that an operator may have.

use kube::api::{ListParams, PartialObjectMeta};
use kube::core::ListMeta;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Objects in one part. It is read as a whole, with all that nobody looks at, and a process of few threads holds on to what that
/// took.
const PART: u32 = 100;

/// A list of which some was read. The first part is a quorum read, since it asks for no version, and the others are of the same
/// moment. The API server forgets that moment after some minutes: what is left then is an error, and read anew by whoever asks.
pub struct Parts<K> {
    api: Api<K>,
    /// None once all was read.
    next: Option<ListParams>,
}

impl<K> Parts<K>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    /// All objects that `params` selects.
    pub fn of(api: Api<K>, params: ListParams) -> Self {
        Self {
            api,
            next: Some(params.limit(PART)),
        }
    }

    /// The next part; none where there is no more.
    pub async fn next(&mut self) -> Result<Option<Vec<K>>, kube::Error> {
        let Some(params) = &self.next else { return Ok(None) };
        let list = self.api.list(params).await?;
        self.go_on(list.metadata);
        Ok(Some(list.items))
    }

    /// The same, metadata only.
    pub async fn next_metadata(&mut self) -> Result<Option<Vec<PartialObjectMeta<K>>>, kube::Error> {
        let Some(params) = &self.next else { return Ok(None) };
        let list = self.api.list_metadata(params).await?;
        self.go_on(list.metadata);
        Ok(Some(list.items))
    }

    fn go_on(&mut self, list: ListMeta) {
        let token = list.continue_.filter(|token| !token.is_empty());
        self.next = self
            .next
            .take()
            .zip(token)
            .map(|(params, token)| params.continue_token(&token));
    }
}
