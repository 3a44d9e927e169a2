//! What a person does who wants issuing to cost the same however many accounts live: `kubectl dsv preflight --install`, put
//! into `psql` by a superuser.

use std::process::{Command, Output};

use e2e::places;
use e2e::postgres::Major;
use e2e::sample;
use e2e::scene::{Credential, PATIENCE, Scene, grace};
use e2e::stack::Stack;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::modes::NOTICE;

async fn preflight(scene: &Scene<'_>, args: &[&str]) -> Output {
    let mut command = Command::new(places::own_program("kubectl-dsv").unwrap());
    command
        .args(["-n", &scene.shop, "preflight", "app"])
        .args(args)
        .env("KUBECONFIG", scene.stack.kubeconfig());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// Whether the login is a member of this account, as one that it made by itself.
async fn administers(scene: &Scene<'_>, account: &str) -> bool {
    let sql = "SELECT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles u ON u.oid = m.member \
        WHERE g.rolname = $1 AND u.rolname = $2)";
    let (administrator, issuer) = (scene.administrator(), &scene.issuer().user);
    administrator.query_one(sql, &[&account, issuer]).await.unwrap().get(0)
}

/// Has the server looked at, as any change of the base secret does, until the advice to install them is or is not given.
async fn wait_advised(scene: &Scene<'_>, advised: bool, change: &str) {
    let patch = json!({"metadata": {"annotations": {"example.com/changed": change}}});
    let base = scene
        .objects
        .merge("Secret", &scene.databases, sample::BASE_SECRET, &patch)
        .await;
    base.unwrap();
    let check = || async {
        let pool = scene
            .objects
            .get("EnginePool", &scene.databases, sample::ORDERS)
            .await?;
        let advice = pool.as_ref().and_then(|pool| pool.pointer("/status/servers/0/advice"));
        let says = |line: &Value| line.as_str().is_some_and(|line| line.contains("--install"));
        let given = advice
            .and_then(Value::as_array)
            .is_some_and(|lines| lines.iter().any(says));
        Ok((given == advised).then_some(()))
    };
    let what = format!("the advice to install them is given: {advised}");
    scene.stack.eventually(&what, PATIENCE, check).await.unwrap();
}

async fn end(scene: &Scene<'_>, credential: &Credential) {
    let lease = scene
        .objects
        .delete("CredentialLease", &scene.shop, &credential.lease)
        .await;
    lease.unwrap();
}

#[tokio::test]
async fn what_preflight_prints_makes_accounts_that_are_nobodys_memberships() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open_alone(stack, Major::V18, Some(1)).await.unwrap();
    scene.ask("app", &json!({"ttl": "10m"})).await.unwrap();
    let before = scene.wait_credential("app").await.unwrap();
    assert!(administers(&scene, &before.login.user).await);
    wait_advised(&scene, true, "before").await;

    let printed = preflight(&scene, &["--install"]).await;
    let (sql, remark) = (
        String::from_utf8(printed.stdout).unwrap(),
        String::from_utf8(printed.stderr).unwrap(),
    );
    assert!(printed.status.success(), "{remark}");
    assert!(remark.contains("| psql orders"), "{remark}");
    let superuser = scene.server().connect(sample::ORDERS).await.unwrap();
    superuser.batch_execute(&sql).await.unwrap();
    superuser
        .batch_execute(&sql)
        .await
        .expect("a second time changes nothing");
    wait_advised(&scene, false, "after").await;

    scene.rotate("app", "now").await.unwrap();
    let after = scene.wait_serial("app", before.serial + 1).await.unwrap();
    assert!(
        !administers(&scene, &after.login.user).await,
        "the login made it by itself"
    );
    scene.use_account(&after.login).await.unwrap();
    // What the login made is taken back by both, and what is taken back early is gone before its end.
    end(&scene, &before).await;
    scene.role_goes(&before.login.user, grace()).await.unwrap();

    superuser.batch_execute("DROP SCHEMA dsv CASCADE").await.unwrap();
    scene.rotate("app", "again").await.unwrap();
    let last = scene.wait_serial("app", after.serial + 1).await.unwrap();
    assert!(administers(&scene, &last.login.user).await);
    // What they made is theirs to drop, so it waits until they are back.
    end(&scene, &after).await;
    sleep(NOTICE).await;
    assert!(scene.has_role(&after.login.user).await.unwrap());
    superuser.batch_execute(&sql).await.unwrap();
    wait_advised(&scene, false, "back").await;
    scene.role_goes(&after.login.user, PATIENCE).await.unwrap();
}
