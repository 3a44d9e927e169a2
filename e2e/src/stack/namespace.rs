//! Namespaces of single tests. Hundreds are made and emptied in one run of all tests, so by requests instead of a `kubectl`
//! process each time.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::mpsc;

use anyhow::{Context, Result, anyhow};
use kube::api::{DeleteParams, ListParams};

use super::BACKGROUND;
use crate::cluster::Cluster;
use crate::control_plane;
use crate::objects::Objects;
use crate::sample;

/// A namespace of one test. Dropping it has its contents deleted, without waiting.
pub struct Namespace<'a> {
    name: String,
    cluster: &'a Cluster,
}

impl<'a> Namespace<'a> {
    /// `<prefix>-<random>` with these labels.
    pub(super) fn make(cluster: &'a Cluster, prefix: &str, labels: &BTreeMap<&str, &str>) -> Result<Self> {
        let name = format!("{prefix}-{:08x}", rand::random::<u32>());
        let manifest = sample::namespace(&name, labels);
        on(cluster, move |objects| async move {
            objects.create(&manifest).await.map(drop)
        })?;
        Ok(Self { name, cluster })
    }
}

impl std::ops::Deref for Namespace<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // After a failure the objects stay as they are, for the report of another test or for looking at.
        if std::thread::panicking() {
            return;
        }
        let name = self.name.clone();
        let lives_on = self.cluster.control_plane().is_none();
        let _ = on(self.cluster, move |objects| async move {
            if lives_on {
                return objects.delete("Namespace", "", &name).await;
            }
            // A cluster of our own goes soon. To delete a namespace its controller asks for every kind there is, twice, so
            // only what has accounts and engines goes before.
            for kind in ["DynamicSecret", "EnginePool"] {
                objects
                    .api(kind, &name)?
                    .delete_collection(&DeleteParams::default(), &ListParams::default())
                    .await?;
            }
            Ok(())
        });
    }
}

/// Does so with a client of its own and waits for it. On the tests' common runtime: namespaces are also dropped where a test's
/// own runtime has ended, or is the very thread that waits here.
fn on<W>(cluster: &Cluster, work: impl FnOnce(Objects) -> W + Send + 'static) -> Result<()>
where
    W: Future<Output = Result<()>> + Send + 'static,
{
    let kubeconfig = cluster.kubeconfig();
    let (sender, done) = mpsc::channel();
    let runtime = BACKGROUND
        .as_ref()
        .map_err(|error| anyhow!("no runtime for the work on namespaces: {error}"))?;
    runtime.spawn(async move {
        let done = match control_plane::client(&kubeconfig).await {
            Ok(client) => work(Objects::new(client)).await,
            Err(error) => Err(error),
        };
        // Whoever asked waits for exactly this.
        let _ = sender.send(done);
    });
    done.recv().context("the work on a namespace was not done")?
}
