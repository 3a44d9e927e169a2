//! Who may do what, as installed: roles and admission policies against a real API server.

mod fences;
mod matrix;
mod workloads;

use std::time::Duration;

use e2e::cluster::Cluster;
use tokio::sync::OnceCell;

use matrix::{may, person, right};

const ELSEWHERE: &str = "team";
/// Of the aggregated roles; each is bound in [`ELSEWHERE`] to a user of the same name.
const ROLES: [&str; 3] = ["view", "edit", "admin"];
const KINDS: [&str; 6] = [
    "credentialleases",
    "dsvtenants",
    "dynamicsecrets",
    "enginepools",
    "engines",
    "secretsyncs",
];

static PEOPLE: OnceCell<&Cluster> = OnceCell::const_new();

/// With a namespace that has a user of each kind.
async fn cluster() -> &'static Cluster {
    PEOPLE
        .get_or_init(|| async {
            let cluster = crate::cluster().await;
            cluster.kubectl(&["create", "namespace", ELSEWHERE]).unwrap();
            for role in ROLES {
                let (role_arg, user) = (format!("--clusterrole={role}"), format!("--user={role}"));
                cluster
                    .kubectl(&["create", "rolebinding", role, "-n", ELSEWHERE, &role_arg, &user])
                    .unwrap();
            }
            wait_for_aggregation(cluster).await;
            cluster
        })
        .await
}

/// The controller manager adds our rules to view, edit and admin a moment after the installation.
async fn wait_for_aggregation(cluster: &Cluster) {
    let client = cluster.client().await.unwrap();
    for _ in 0..300 {
        if may(
            &client,
            &person("admin"),
            &right("create", "dsv.dev", "enginepools"),
            ELSEWHERE,
        )
        .await
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the roles of people are not aggregated");
}
