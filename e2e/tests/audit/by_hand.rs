//! Somebody changes roles by hand.

use crate::world::{ROUND, has_oid, history, oid, rotating, scene, sql, wait_audited, wait_event};
use e2e::objects::text;
use e2e::scene::PATIENCE;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;
use tokio_postgres::SimpleQueryMessage;

/// Whatever is done to a live account by hand that can be seen: it is revoked, and mode Rotate issues another.
#[tokio::test]
async fn an_account_that_was_changed_by_hand_is_revoked_and_replaced() {
    let scene = scene().await;
    let changes = [
        ("dropped", "DROP ROLE {}", "AccountMissing"),
        ("renamed", "ALTER ROLE {} RENAME TO somebody", "AccountAltered"),
        ("shut", "ALTER ROLE {} NOLOGIN", "AccountAltered"),
        ("longer", "ALTER ROLE {} VALID UNTIL '2040-01-01'", "AccountAltered"),
        ("mighty", "ALTER ROLE {} CREATEDB", "AccountAltered"),
    ];
    for (name, change, why) in changes {
        let first = rotating(&scene, name).await;
        let user = format!("\"{}\"", first.login.user);
        let account = oid(&scene, &first.login.user).await;
        let session = scene.use_account(&first.login).await.unwrap();
        sql(&scene, &change.replace("{}", &user)).await;
        let second = scene.wait_serial(name, 2).await.unwrap();
        assert_ne!(second.login.user, first.login.user);
        scene.use_account(&second.login).await.unwrap();
        let gone = || async { Ok((!has_oid(&scene, account).await).then_some(())) };
        scene
            .stack
            .eventually("the changed account is gone", PATIENCE, gone)
            .await
            .unwrap();
        let ended = || async { Ok(session.batch_execute("SELECT 1").await.is_err().then_some(())) };
        scene
            .stack
            .eventually("its session is ended", PATIENCE, ended)
            .await
            .unwrap();
        // The first lease stays on the books until its deadline has proven that nothing comes any more.
        let lease = scene
            .objects
            .get("CredentialLease", &scene.shop, &first.lease)
            .await
            .unwrap();
        let told = lease.is_some_and(|lease| !text(&lease, "/metadata/deletionTimestamp").is_empty())
            || history(&scene, name).await.first().is_some_and(|said| said == why);
        assert!(
            told,
            "{name}: neither is the lease ending nor does the history say {why}"
        );
        // An issue that is repeated just then meets the change before the audit does, and says so in its own words.
        wait_event(&scene, &[why, "DatabaseError"], name).await;
    }
    wait_audited(&scene, "True/Consistent").await;
}

#[tokio::test]
async fn mode_once_issues_no_other_when_its_account_is_gone() {
    let scene = scene().await;
    scene.ask("app", &json!({"ttl": "10m"})).await.unwrap();
    let first = scene.wait_credential("app").await.unwrap();
    scene.wait_ready("app", "True/Issued").await.unwrap();
    sql(&scene, &format!("DROP ROLE \"{}\"", first.login.user)).await;
    scene.wait_absent("Secret", &scene.shop, "app").await.unwrap();
    let message = wait_audited(&scene, "False/AccountMissing").await;
    assert!(message.contains(&first.login.user), "{message}");
    sleep(ROUND).await;
    assert!(scene.credential("app").await.unwrap().is_none());
    assert_eq!(scene.leases().await.unwrap().len(), 1, "only the one that ends");
    wait_audited(&scene, "True/Consistent").await;
}

/// A locked account that somebody unlocks is locked again within a round, not when its backoff is over.
#[tokio::test]
async fn a_blocked_account_that_is_unlocked_by_hand_is_locked_again() {
    let scene = scene().await;
    scene.ask("app", &json!({})).await.unwrap();
    let credential = scene.wait_credential("app").await.unwrap();
    let user = credential.login.user.clone();
    // A prepared transaction holds the role; only its owner or a superuser can end it.
    let session = scene.log_in(&credential.login).await.unwrap();
    session
        .batch_execute("BEGIN; SELECT lo_create(0); PREPARE TRANSACTION 'held'")
        .await
        .unwrap();
    drop(session);
    let can_log_in = || async {
        let query = "SELECT rolcanlogin FROM pg_roles WHERE rolname = $1";
        let row = scene.administrator().query_one(query, &[&user]).await?;
        anyhow::Ok(row.get::<_, bool>(0))
    };
    let locked = || async { Ok((!can_log_in().await?).then_some(())) };
    scene.stack.eventually("it is locked", PATIENCE, locked).await.unwrap();
    // Long enough for the pauses between attempts to be longer than a round.
    sleep(Duration::from_secs(20)).await;
    sql(&scene, &format!("ALTER ROLE \"{user}\" LOGIN VALID UNTIL 'infinity'")).await;
    scene
        .stack
        .eventually("it is locked again", ROUND, locked)
        .await
        .unwrap();
    let orders = scene.server().connect("orders").await.unwrap();
    orders.batch_execute("ROLLBACK PREPARED 'held'").await.unwrap();
    scene.wait_no_role(&user).await.unwrap();
}

/// A right that was taken from a group by hand comes back, and one that cannot be given is told.
#[tokio::test]
async fn the_grants_of_a_group_are_kept() {
    let scene = scene().await;
    let credential = rotating(&scene, "app").await;
    let session = scene.use_account(&credential.login).await.unwrap();
    let group = "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, 'dsvg_')";
    let group: String = scene.administrator().query_one(group, &[]).await.unwrap().get(0);
    let orders = scene.server().connect_as(scene.issuer(), "orders").await.unwrap();
    // As one transaction: an audit may follow within the second.
    let taken = orders
        .simple_query(&format!(
            "REVOKE ALL ON public.orders FROM {group}; SELECT has_table_privilege('{group}', 'public.orders', 'SELECT')"
        ))
        .await
        .unwrap();
    let has = taken.iter().find_map(|said| match said {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert_eq!(has, Some("f"), "the right was not taken");
    let back = || async {
        let read = session.batch_execute("SELECT item FROM public.orders").await;
        Ok(read.is_ok().then_some(()))
    };
    scene
        .stack
        .eventually("the right is back", PATIENCE, back)
        .await
        .unwrap();
    sql(&scene, &format!("CREATE ROLE analyst; GRANT {group} TO analyst")).await;
    let message = wait_audited(&scene, "False/GroupAltered").await;
    assert!(message.contains("analyst"), "{message}");
    sql(&scene, &format!("REVOKE {group} FROM analyst")).await;
    wait_audited(&scene, "True/Consistent").await;
}
