//! What is installed speaks for itself: definitions, roles and admission policies on a real API server, without an operator.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod rights;
mod schema;

use e2e::cluster::Cluster;
use e2e::install;
use e2e::run_dir::RunDir;
use tokio::sync::OnceCell;

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();

/// One installation as the manual describes it, for all tests.
async fn cluster() -> &'static Cluster {
    CLUSTER
        .get_or_init(|| async {
            let cluster = Cluster::start(RunDir::of_this_process().unwrap()).await.unwrap();
            install::install(&cluster).await.unwrap();
            cluster
        })
        .await
}
