//! Issuing accounts.

use crate::on_each_release;
use crate::world::{World, failure, in_seconds, revocation};
use dsv::channel::frames::{AccountState, Done, FailureClass, Outcome};
use e2e::postgres::Major;
use tokio_postgres::error::SqlState;

on_each_release! {
    an_account_can_do_what_was_granted_and_nothing_else
    issuing_twice_makes_one_account_and_keeps_the_first_password
    issue_past_the_deadline_makes_nothing
    a_foreign_role_of_the_same_name_is_refused_and_untouched
    issuing_into_a_known_group_takes_one_round_trip
}

async fn an_account_can_do_what_was_granted_and_nothing_else(major: Major) {
    let world = World::new(major).await;
    let group = world.group(&[("SELECT, INSERT", "shop.orders")]);
    let (account, password) = world.account();
    world.issued(&group, &account).await;
    let session = world.try_as(&account, &password).await.unwrap();
    session
        .batch_execute("INSERT INTO shop.orders (what) VALUES ('two')")
        .await
        .unwrap();
    let count: i64 = session
        .query_one("SELECT count(*) FROM shop.orders", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(count, 2);
    for forbidden in [
        "DELETE FROM shop.orders",
        "UPDATE shop.orders SET what = ''",
        "TRUNCATE shop.orders",
        "SELECT * FROM vault.secrets",
        "CREATE TABLE shop.mine (id int)",
        "CREATE ROLE another",
        "SELECT rolpassword FROM pg_authid",
        "ALTER TABLE shop.orders ADD COLUMN more text",
    ] {
        let error = session.batch_execute(forbidden).await.expect_err(forbidden);
        assert_eq!(
            error.code(),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE),
            "{forbidden}: {error}"
        );
    }
    if major >= Major::V16 {
        let become_group = format!("SET ROLE \"{}\"", group.name);
        assert!(
            session.batch_execute(&become_group).await.is_err(),
            "a member could leave objects on the group"
        );
    }
}

async fn issuing_twice_makes_one_account_and_keeps_the_first_password(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    let (account, password) = world.account();
    let oid = world.issued(&group, &account).await;
    let first = world.verifier_of(&account.role).await;
    let mut again = account.clone();
    again.verifier = world.account().0.verifier;
    match world.issue(&group, &again).await {
        Outcome::Done {
            done: Done::Issued { role_oid, adopted },
            ..
        } => {
            assert_eq!(role_oid, oid);
            assert!(adopted);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.verifier_of(&account.role).await, first);
    world.try_as(&account, &password).await.unwrap();
}

async fn issue_past_the_deadline_makes_nothing(major: Major) {
    let world = World::new(major).await;
    let (mut account, _) = world.account();
    account.issue_deadline = in_seconds(-1);
    let failure = failure(world.issue(&world.readers(), &account).await);
    assert_eq!(failure.class, FailureClass::TooLate);
    assert!(!world.exists(&account.role).await);
}

async fn a_foreign_role_of_the_same_name_is_refused_and_untouched(major: Major) {
    let world = World::new(major).await;
    for comment in [None, Some("somebody else's"), Some("dsv/1 kind=lease forged")] {
        let (account, _) = world.account();
        let root = world.root().await;
        root.batch_execute(&format!("CREATE ROLE \"{}\" NOLOGIN", account.role))
            .await
            .unwrap();
        if let Some(text) = comment {
            let text = text.replace('\'', "''");
            root.batch_execute(&format!("COMMENT ON ROLE \"{}\" IS '{text}'", account.role))
                .await
                .unwrap();
        }
        let refused = failure(world.issue(&world.readers(), &account).await);
        assert_eq!(refused.class, FailureClass::Foreign, "{}", refused.message);
        let state = world.revoke_one(&account, None).await;
        assert_eq!(
            state,
            AccountState::Foreign {
                role: account.role.clone()
            }
        );
        assert_eq!(world.comment_of(&account.role).await.as_deref(), comment);
        assert_eq!(world.verifier_of(&account.role).await, None);
    }
}

async fn issuing_into_a_known_group_takes_one_round_trip(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    world.issued(&group, &world.account().0).await;
    let before = world.statements().len();
    let (accounts, _) = world.accounts(5);
    for account in &accounts {
        world.issued(&group, account).await;
    }
    let sent = world.statements();
    // A query of several statements is one message and one line of the log.
    assert_eq!(sent.len() - before, 5, "{:#?}", &sent[before..]);
    let oids = world
        .revoke(
            &accounts
                .iter()
                .map(|account| revocation(account, None))
                .collect::<Vec<_>>(),
        )
        .await;
    assert!(
        oids.iter()
            .all(|state| matches!(state, AccountState::Gone { dropped: true, .. })),
        "{oids:?}"
    );
}
