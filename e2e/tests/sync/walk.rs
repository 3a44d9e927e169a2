//! The walks of the documentation, run as they stand there; names, addresses and logins are this world's.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::objects::text;
use serde_json::json;

use crate::docs::{block, page};
use crate::setup::peace;
use crate::world::{World, fresh, world};

const PATIENCE: Duration = Duration::from_mins(2);

struct Walk {
    world: &'static World,
    folder: PathBuf,
    page: String,
    /// What stands for the documentation's `Demo`, `shop`, `acme` and `orders`.
    names: [(&'static str, String); 4],
    env: Vec<(&'static str, String)>,
}

impl Walk {
    async fn new(namespace: String) -> Self {
        let world = world().await;
        let root = fresh("Demo");
        let statement =
            json!({"actions": ["<create|read|update|delete>"], "resources": [format!("secrets:{root}:<.*>")]});
        let (id, secret) = world.client(&statement).await;
        let folder = world.stack.run().subfolder(&root).unwrap();
        std::fs::write(folder.join("ca.pem"), &world.authority).unwrap();
        let names = [
            ("Demo", root),
            ("shop", namespace),
            ("acme", fresh("acme")),
            ("orders", fresh("orders")),
        ];
        let kubectl = world.stack.cluster().kubectl_program();
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", kubectl.parent().unwrap().display());
        let env = vec![
            ("PATH", path),
            ("CLIENT_ID", id),
            ("CLIENT_SECRET", secret),
            ("TENANT_URL", world.url()),
            ("API", world.url()),
            ("PASSWORD", world.password.clone()),
            ("KUBECONFIG", world.stack.kubeconfig().display().to_string()),
        ];
        Self {
            page: page("docs/sync.md"),
            world,
            folder,
            names,
            env,
        }
    }

    fn block(&self, name: &str) -> String {
        let block = block(&self.page, name).unwrap();
        let names = self.names.iter();
        names.fold(block, |block, (theirs, ours)| block.replace(theirs, ours))
    }

    async fn run(&self, script: String) -> String {
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(&self.folder);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env_remove("HTTPS_PROXY").env_remove("https_proxy");
        let run = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = tokio::time::timeout(PATIENCE * 2, run)
            .await
            .expect("the script does not end")
            .unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{script}\n{out}{err}");
        out.into_owned()
    }

    /// Waits until the tenant has this password in this version.
    async fn has(&self, version: &str, password: &str) {
        let path = format!("secrets/{}/corp.example/{}", self.names[0].1, self.names[3].1);
        let look = || async {
            let answer = self.world.get(&path).await;
            ensure!(answer.code == 200, "{}", answer.text);
            let there = answer.json();
            let found = (text(&there, "/version"), text(&there, "/data/password"));
            ensure!(
                found == (version.to_owned(), password.to_owned()),
                "it has version {}",
                found.0
            );
            Ok(Some(()))
        };
        let seen: Result<()> = self.world.stack.eventually("the tenant has it", PATIENCE, look).await;
        seen.context(format!("version {version}")).unwrap();
    }
}

#[tokio::test]
async fn the_walk_with_kubectl_is_as_it_is_told() {
    let _peace = peace().await;
    let namespace = world().await.stack.namespace("walk", &[]).unwrap();
    let walk = Walk::new(namespace.to_string()).await;
    let shown = walk.run(walk.block("kubectl")).await;
    assert!(shown.contains("Synced") && shown.contains("Connected"), "{shown}");
    walk.has("0", "first").await;
    walk.run(walk.block("kubectl-change")).await;
    walk.has("1", "second").await;
    walk.run(walk.block("kubectl-push")).await;
    walk.has("2", "second").await;
    walk.run(walk.block("kubectl-pause")).await;
    let change = walk.block("kubectl-change").replace("second", "third");
    walk.run(change).await;
    walk.has("2", "second").await;
    walk.run(
        walk.block("kubectl-pause")
            .replace("false", "true")
            .replace("Inactive", "Connected"),
    )
    .await;
    walk.has("3", "third").await;
}

#[tokio::test]
async fn the_walk_with_curl_is_as_it_is_told() {
    let _peace = peace().await;
    let walk = Walk::new("none".to_owned()).await;
    let [first, push, pause] = ["curl", "curl-push", "curl-pause"].map(|name| walk.block(name));
    let shown = walk.run(format!("{first}\n{push}\n{pause}")).await;
    assert!(shown.lines().any(|line| line == "false"), "{shown}");
    let path = format!("secrets/{}/corp.example/{}", walk.names[0].1, walk.names[3].1);
    // The push was asked for a moment before the tenant was switched off: it may have won.
    let there = walk.world.get(&path).await.is(200);
    assert!(["first", "second"].contains(&text(&there, "/data/password").as_str()));
    let again = Walk::new("none".to_owned()).await;
    again
        .run(format!("{}\n{}", again.block("curl"), again.block("curl-push")))
        .await;
    // The change by itself may be seen before the push that is asked for.
    let path = format!("secrets/{}/corp.example/{}", again.names[0].1, again.names[3].1);
    let look = || async {
        let there = again.world.get(&path).await.is(200);
        Ok((text(&there, "/data/password") == "second").then_some(()))
    };
    again
        .world
        .stack
        .eventually("the change arrives", PATIENCE, look)
        .await
        .unwrap();
}
