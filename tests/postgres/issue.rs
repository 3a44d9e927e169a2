//! Issuing accounts.

use crate::on_each_release;
use crate::proxy::Proxy;
use crate::world::{PATIENCE, World, failure, in_seconds, revocation};
use dsv::channel::frames::{Account, AccountSettings, AccountState, Done, FailureClass, Outcome};
use dsv::postgres::Servers;
use e2e::postgres::Major;
use std::time::Duration;
use tokio_postgres::error::SqlState;

on_each_release! {
    an_account_can_do_what_was_granted_and_nothing_else
    issuing_twice_makes_one_account_and_keeps_the_first_password
    issue_past_the_deadline_makes_nothing
    a_create_that_waited_past_its_deadline_makes_nothing
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

async fn a_create_that_waited_past_its_deadline_makes_nothing(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    world.issued(&group, &world.account().0).await;
    let (mut account, _) = world.account();
    account.issue_deadline = in_seconds(1);
    let root = world.root().await;
    let uid = &account.lease_uid;
    let lock = format!("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('{uid}', 0))");
    root.batch_execute(&lock).await.unwrap();
    let (outcome, ()) = tokio::join!(world.issue(&group, &account), async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        root.batch_execute("COMMIT").await.unwrap();
    });
    assert_eq!(failure(outcome).class, FailureClass::TooLate);
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

on_each_release! {
    a_lost_answer_is_unknown_and_issuing_again_settles_it
    an_account_changed_by_hand_is_reported_and_not_repaired
    a_group_dropped_behind_our_back_is_made_again
    two_engines_issue_one_account_between_them
    a_missing_privilege_is_answered_with_the_sql_that_gives_it
}

async fn a_lost_answer_is_unknown_and_issuing_again_settles_it(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    let proxy = Proxy::before(world.server.port()).await;
    let mut login = world.login();
    login.port = proxy.address.port();
    let issue = async |account: &Account| world.servers.issue(&login, &group, account, PATIENCE).await;
    assert!(
        matches!(issue(&world.account().0).await, Outcome::Done { .. }),
        "the way through the proxy works"
    );
    let (account, password) = world.account();
    proxy.lose_answers(true);
    let lost = issue(&account).await;
    assert!(matches!(lost, Outcome::Unknown { .. }), "{lost:?}");
    proxy.lose_answers(false);
    // On a busy machine the connection may have been given up before the statement was sent.
    let root = world.root().await;
    let query = "SELECT FROM pg_roles WHERE rolname = $1";
    let arrived = !root.query(query, &[&account.role]).await.unwrap().is_empty();
    match issue(&account).await {
        Outcome::Done {
            done: Done::Issued { adopted, .. },
            ..
        } => assert!(adopted || !arrived, "the first one had arrived"),
        other => panic!("{other:?}"),
    }
    world.try_as(&account, &password).await.unwrap();
}

async fn an_account_changed_by_hand_is_reported_and_not_repaired(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    let root = world.root().await;
    for (change, expected) in [
        ("ALTER ROLE $role NOLOGIN", "may not log in"),
        ("ALTER ROLE $role VALID UNTIL 'infinity'", "VALID UNTIL"),
        ("REVOKE $group FROM $role $by_issuer", "does not inherit"),
        ("ALTER ROLE $role CREATEDB", "attributes"),
    ] {
        let (account, _) = world.account();
        world.issued(&group, &account).await;
        let by_issuer = if major < Major::V16 {
            String::new()
        } else {
            format!("GRANTED BY {}", world.issuer.user)
        };
        let sql = change
            .replace("$role", &format!("\"{}\"", account.role))
            .replace("$group", &group.name);
        root.batch_execute(&sql.replace("$by_issuer", &by_issuer))
            .await
            .unwrap();
        let failed = failure(world.issue(&group, &account).await);
        assert_eq!(failed.class, FailureClass::Server);
        assert!(failed.message.contains(expected), "{change}: {}", failed.message);
        let again = failure(world.issue(&group, &account).await);
        assert_eq!(again, failed, "it was repaired");
    }
}

async fn a_group_dropped_behind_our_back_is_made_again(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    let (first, _) = world.account();
    let oid = world.issued(&group, &first).await;
    world.revoke_one(&first, Some(oid)).await;
    let root = world.root().await;
    root.batch_execute(&format!("DROP OWNED BY {0}; DROP ROLE {0}", group.name))
        .await
        .unwrap();
    let (second, password) = world.account();
    world.issued(&group, &second).await;
    let session = world.try_as(&second, &password).await.unwrap();
    session.batch_execute("SELECT * FROM shop.orders").await.unwrap();
}

async fn two_engines_issue_one_account_between_them(major: Major) {
    let world = World::new(major).await;
    let (group, login) = (world.readers(), world.login());
    let engines: Vec<Servers> = (0..4).map(|_| Servers::new()).collect();
    for _ in 0..5 {
        let (account, password) = world.account();
        let racing = engines
            .iter()
            .map(|engine| engine.issue(&login, &group, &account, PATIENCE));
        let outcomes = futures::future::join_all(racing).await;
        let mut made = 0;
        for outcome in &outcomes {
            match outcome {
                Outcome::Done {
                    done: Done::Issued { adopted, .. },
                    ..
                } => made += usize::from(!adopted),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(made, 1);
        world.try_as(&account, &password).await.unwrap();
    }
}

async fn a_missing_privilege_is_answered_with_the_sql_that_gives_it(major: Major) {
    let world = World::new(major).await;
    let root = world.root().await;
    let me = &world.issuer.user;
    root.batch_execute(&format!("ALTER ROLE {me} NOCREATEROLE"))
        .await
        .unwrap();
    let (account, _) = world.account();
    let failed = failure(world.issue(&world.readers(), &account).await);
    assert_eq!(failed.class, FailureClass::MissingPrivilege, "{}", failed.message);
    let (_, sql) = failed.message.split_once("run: ").unwrap();
    root.batch_execute(sql).await.unwrap();
    world.issued(&world.readers(), &account).await;
}

#[tokio::test]
async fn nothing_but_a_verifier_reaches_the_server() {
    let world = World::new(Major::V15).await;
    let group = world.readers();
    let (account, password) = world.account();
    for wrong in [
        password.reveal(),
        "md5d41d8cd98f00b204e9800998ecf8427e",
        "",
        "x' LOGIN SUPERUSER PASSWORD 'y",
    ] {
        let mut account = account.clone();
        account.verifier = wrong.to_owned();
        let failed = failure(world.issue(&group, &account).await);
        assert_eq!(failed.class, FailureClass::BadTask);
        assert!(
            wrong.is_empty() || !failed.message.contains(wrong),
            "a password in a message: {}",
            failed.message
        );
    }
    world.issued(&group, &account).await;
    drop(world.try_as(&account, &password).await.unwrap());
    // Also a statement that fails is logged with its text.
    world.issued(&group, &account).await;
    let log = world.server.log_text();
    assert!(log.contains(&account.role), "the log is the wrong one");
    assert!(!log.contains(password.reveal()), "the password is in the server's log");
    assert!(
        !log.contains(&world.issuer.password),
        "the issuer's password is in the server's log"
    );
}

#[tokio::test]
async fn an_account_that_could_not_be_found_again_is_refused() {
    let world = World::new(Major::V15).await;
    let (account, _) = world.account();
    for (role, uid) in [
        ("shop_orders", account.lease_uid.as_str()),
        (account.role.as_str(), "not-a-uid"),
    ] {
        let mut wrong = account.clone();
        (wrong.role, wrong.lease_uid) = (role.to_owned(), uid.to_owned());
        assert_eq!(
            failure(world.issue(&world.readers(), &wrong).await).class,
            FailureClass::BadTask
        );
    }
    let mut reserved = account.clone();
    reserved.role = account.role.replace("shop_", "pg_");
    assert_eq!(
        failure(world.issue(&world.readers(), &reserved).await).class,
        FailureClass::BadTask
    );
}

#[tokio::test]
async fn settings_are_those_of_the_task() {
    let world = World::new(Major::V15).await;
    let (mut account, password) = world.account();
    account.settings = AccountSettings {
        connection_limit: Some(1),
        statement_timeout_ms: Some(1234),
        idle_in_transaction_timeout_ms: Some(5678),
        search_path: vec!["shop".into(), "odd \"name'; DROP".into()],
    };
    world.issued(&world.readers(), &account).await;
    let session = world.try_as(&account, &password).await.unwrap();
    let show = async |name: &str| -> String { session.query_one(&format!("SHOW {name}"), &[]).await.unwrap().get(0) };
    assert_eq!(show("statement_timeout").await, "1234ms");
    assert_eq!(show("idle_in_transaction_session_timeout").await, "5678ms");
    assert_eq!(show("search_path").await, "shop, \"odd \"\"name'; DROP\"");
    session.batch_execute("SELECT * FROM orders").await.unwrap();
    assert!(
        world.try_as(&account, &password).await.is_err(),
        "the connection limit does not hold"
    );
    let valid: bool = world
        .root()
        .await
        .query_one(
            "SELECT $1::text::timestamptz - rolvaliduntil BETWEEN '0' AND '2us' FROM pg_roles WHERE rolname = $2",
            &[&account.valid_until.to_string(), &account.role],
        )
        .await
        .unwrap()
        .get(0);
    assert!(valid);
}

#[tokio::test]
async fn functions_planted_in_public_are_never_called() {
    let world = World::new(Major::V15).await;
    let owner = world.as_issuer().await;
    // An exact match of the argument types would win over the system's function, were public in the search path.
    owner
        .batch_execute(
            "GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC; \
             CREATE FUNCTION public.hashtextextended(text, int) RETURNS bigint LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'planted'; END $$; \
             CREATE FUNCTION public.shobj_description(oid, text) RETURNS text LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'planted'; END $$",
        )
        .await
        .unwrap();
    let (account, _) = world.account();
    let oid = world.issued(&world.readers(), &account).await;
    assert!(matches!(
        world.revoke_one(&account, Some(oid)).await,
        AccountState::Gone { dropped: true, .. }
    ));
}
