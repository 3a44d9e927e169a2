//! The walks of the documentation, run as they stand there; names, addresses and logins are this world's.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::faults::relay::{Manner, Relay};
use e2e::objects::text;
use e2e::programs;
use serde_json::{Value, json};

use crate::docs::{block, page};
use crate::setup::peace;
use crate::world::{World, fresh, world};

const PATIENCE: Duration = Duration::from_mins(2);

/// What a program with the stock SDK does: log in as the tenant's own client, and print what lies at a path.
const READ: &str = r#"
import json, os, sys
from delinea.secrets.vault import PasswordGrantAuthorizer, SecretsVault, VaultSecret

url = os.environ["TENANT_URL"]
vault = SecretsVault(url, PasswordGrantAuthorizer(url, os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"]))
secret = VaultSecret(**vault.get_secret(sys.argv[1]))
print(json.dumps({"data": secret.data, "version": secret.version}))
"#;

struct Walk {
    world: &'static World,
    folder: PathBuf,
    page: String,
    /// What stands for the documentation's `Demo`, `shop`, `acme` and `orders`.
    names: [(&'static str, String); 4],
    env: Vec<(&'static str, String)>,
    /// The tenant's address, which can be cut off.
    relay: Relay,
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
        let relay = Relay::start(([127, 0, 0, 1], world.port()).into()).await.unwrap();
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
            ("TENANT_URL", format!("https://{}", relay.address())),
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
            relay,
        }
    }

    fn down(&self) {
        self.relay.behave(Manner::Closed);
        self.relay.cut();
    }

    fn back(&self) {
        self.relay.behave(Manner::Honest);
    }

    fn block(&self, name: &str) -> String {
        let block = block(&self.page, name).unwrap();
        let names = self.names.iter();
        names.fold(block, |block, (theirs, ours)| block.replace(theirs, ours))
    }

    /// The first command of a block, and the others.
    fn lines(&self, name: &str) -> [String; 2] {
        let block = self.block(name);
        let (first, rest) = block.trim().split_once('\n').unwrap();
        [first.to_owned(), rest.to_owned()]
    }

    /// One after the other in what a person would call the same shell: variables and functions stay.
    async fn run(&self, script: String) -> String {
        let script = format!(
            "if [ -f shell ]; then source ./shell; fi\n{script}\n\
             {{ declare -p | grep -v '^declare -[A-Za-z]*r' || true; declare -f; }} > shell"
        );
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

    /// Waits until the tenant has this password, in whichever version.
    async fn has_password(&self, password: &str) {
        let look = || async { Ok((text(&self.there().await?, "/data/password") == password).then_some(())) };
        let what = format!("the tenant has the password {password}");
        self.world.stack.eventually(&what, PATIENCE, look).await.unwrap();
    }

    async fn there(&self) -> Result<Value> {
        let path = format!("secrets/{}/corp.example/{}", self.names[0].1, self.names[3].1);
        let answer = self.world.get(&path).await;
        ensure!(answer.code == 200, "{}", answer.text);
        Ok(answer.json())
    }

    /// Until the sync looked at its source twice more.
    async fn looked_again(&self) {
        let objects = self.world.objects().await;
        let (namespace, name) = (&self.names[1].1, &self.names[3].1);
        let mut seen = String::new();
        for _ in 0..3 {
            let look = || async {
                let sync = objects.get("SecretSync", namespace, name).await?;
                let check = text(&sync.context("there is no sync")?, "/status/lastCheck");
                Ok((check > seen).then_some(check))
            };
            let found = self.world.stack.eventually("it looks again", PATIENCE, look).await;
            seen = found.unwrap();
        }
    }

    /// What the stock Python SDK reads at the tenant.
    async fn read(&self) -> Value {
        let python = tokio::task::spawn_blocking(programs::python_sdk)
            .await
            .unwrap()
            .unwrap();
        std::fs::write(self.folder.join("read.py"), READ).unwrap();
        let path = format!("/{}/corp.example/{}", self.names[0].1, self.names[3].1);
        let script = format!("REQUESTS_CA_BUNDLE=ca.pem {} read.py {path}", python.display());
        serde_json::from_str(&self.run(script).await).unwrap()
    }

    /// Waits until the tenant has this password in this version.
    async fn has(&self, version: &str, password: &str) {
        let look = || async {
            let there = self.there().await?;
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
    let expected = json!({"data": {"domain": "corp.example", "password": "first"}, "version": "0"});
    assert_eq!(walk.read().await, expected);
    walk.looked_again().await;
    walk.has("0", "first").await;
    let change = walk.block("kubectl-change");
    walk.run(change.clone()).await;
    walk.has("1", "second").await;
    walk.run(walk.block("kubectl-push")).await;
    walk.has("2", "second").await;

    let pause = walk.block("kubectl-pause");
    walk.run(pause.clone()).await;
    walk.run(change.replace("second", "third")).await;
    walk.has("2", "second").await;
    walk.run(pause.replace("false", "true").replace("Inactive", "Connected"))
        .await;
    walk.has("3", "third").await;

    walk.down();
    walk.run(change.replace("second", "fourth")).await;
    let [down, back] = walk.lines("kubectl-down");
    walk.run(down).await;
    walk.back();
    walk.run(back).await;
    walk.has("4", "fourth").await;
}

#[tokio::test]
async fn the_walk_with_curl_is_as_it_is_told() {
    let _peace = peace().await;
    let walk = Walk::new("none".to_owned()).await;
    walk.run(walk.block("curl")).await;
    walk.has("0", "first").await;
    let expected = json!({"data": {"domain": "corp.example", "password": "first"}, "version": "0"});
    assert_eq!(walk.read().await, expected);
    let push = walk.block("curl-push");
    walk.run(push.clone()).await;
    walk.has_password("second").await;

    walk.down();
    walk.run(push.replace("second", "third")).await;
    let [down, back] = walk.lines("curl-down");
    walk.run(down).await;
    walk.back();
    walk.run(back).await;
    walk.has_password("third").await;

    let shown = walk.run(walk.block("curl-pause")).await;
    assert!(shown.lines().any(|line| line == "false"), "{shown}");
    assert!(shown.lines().any(|line| line == "\"Inactive\""), "{shown}");
    // One that is asked for comes back as it is.
    let before = walk.read().await;
    walk.run(push.replace("second", "fourth")).await;
    assert_eq!(walk.read().await, before);
}
