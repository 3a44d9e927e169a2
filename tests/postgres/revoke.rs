//! Revoking accounts.

use crate::on_each_release;
use crate::world::{DROPPED, PATIENCE, World, in_seconds, revocation};
use dsv::channel::frames::{AccountState, FailureClass, Outcome};
use dsv::postgres::Servers;
use e2e::postgres::Major;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

on_each_release! {
    a_revoked_account_is_gone_with_its_sessions
    absence_is_proof_only_after_the_issue_deadline
}

async fn a_revoked_account_is_gone_with_its_sessions(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    for knows_oid in [true, false] {
        let (account, password) = world.account();
        let oid = world.issued(&group, &account).await;
        let session = world.try_as(&account, &password).await.unwrap();
        let state = world.revoke_one(&account, knows_oid.then_some(oid)).await;
        assert_eq!(state, DROPPED);
        assert!(session.batch_execute("SELECT 1").await.is_err(), "the session lives on");
        assert!(!world.exists(&account.role).await);
        assert_eq!(world.sessions_of(oid).await, 0);
        assert!(world.try_as(&account, &password).await.is_err());
        let again = world.revoke_one(&account, Some(oid)).await;
        assert_eq!(
            again,
            AccountState::Gone {
                proven: false,
                dropped: false
            }
        );
    }
}

async fn absence_is_proof_only_after_the_issue_deadline(major: Major) {
    let world = World::new(major).await;
    let (mut account, _) = world.account();
    let early = world.revoke_one(&account, None).await;
    assert_eq!(
        early,
        AccountState::Gone {
            proven: false,
            dropped: false
        }
    );
    account.issue_deadline = in_seconds(-1);
    let late = world.revoke_one(&account, None).await;
    assert_eq!(
        late,
        AccountState::Gone {
            proven: true,
            dropped: false
        }
    );
}

on_each_release! {
    a_revocation_during_a_create_in_flight_waits_and_wins
    a_role_that_loses_its_comment_meanwhile_is_not_dropped
    one_bad_account_does_not_keep_the_other_63
    revoking_64_accounts_takes_three_round_trips
    no_session_survives_a_login_storm
    issue_and_revoke_of_one_lease_from_many_engines_end_with_no_account
    a_forged_oid_ends_no_foreign_session
}

async fn a_revocation_during_a_create_in_flight_waits_and_wins(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    world.issued(&group, &world.account().0).await;
    let (account, _) = world.account();
    // What an engine that was cut off leaves: its transaction holds the lock and commits later.
    let in_flight = world.as_issuer().await;
    let sql = format!(
        "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('{}', 0)); CREATE ROLE \"{role}\" LOGIN; \
         COMMENT ON ROLE \"{role}\" IS '{}'",
        account.lease_uid,
        account.comment,
        role = account.role
    );
    in_flight.batch_execute(&sql).await.unwrap();
    let (state, ()) = tokio::join!(world.revoke_one(&account, None), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        in_flight.batch_execute("COMMIT").await.unwrap();
    });
    assert_eq!(state, DROPPED);
    assert!(!world.exists(&account.role).await);
}

async fn a_role_that_loses_its_comment_meanwhile_is_not_dropped(major: Major) {
    let world = World::new(major).await;
    for knows_oid in [true, false] {
        let (account, _) = world.account();
        let oid = world.issued(&world.readers(), &account).await;
        let root = world.root().await;
        root.batch_execute(&format!(
            "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('{}', 0))",
            account.lease_uid
        ))
        .await
        .unwrap();
        let (state, ()) = tokio::join!(world.revoke_one(&account, knows_oid.then_some(oid)), async {
            // It has been judged ours by now, and the statement waits for the lock.
            tokio::time::sleep(Duration::from_millis(700)).await;
            let sql = format!("COMMENT ON ROLE \"{}\" IS NULL; COMMIT", account.role);
            root.batch_execute(&sql).await.unwrap();
        });
        assert_eq!(
            state,
            AccountState::Foreign {
                role: account.role.clone()
            }
        );
        let sql = "SELECT rolcanlogin FROM pg_roles WHERE rolname = $1";
        let untouched: bool = root.query_one(sql, &[&account.role]).await.unwrap().get(0);
        assert!(untouched);
    }
}

async fn one_bad_account_does_not_keep_the_other_63(major: Major) {
    let world = World::new(major).await;
    let (group, login) = (world.group(&[("CREATE, USAGE", "shop.*")]), world.login());
    let (accounts, password) = world.accounts(64);
    let mut wanted = Vec::new();
    for account in &accounts {
        wanted.push(revocation(account, Some(world.issued(&group, account).await)));
    }
    // Nothing in the catalogs tells of this one beforehand: an open transaction holds the role.
    let session = world.try_as(&accounts[17], &password).await.unwrap();
    session
        .batch_execute("BEGIN; CREATE TABLE shop.mine (id int)")
        .await
        .unwrap();
    // And this one is somebody else's by now.
    let root = world.root().await;
    root.batch_execute(&format!("COMMENT ON ROLE \"{}\" IS 'mine'", accounts[40].role))
        .await
        .unwrap();
    let _ = login;
    let states = world.revoke(&wanted).await;
    for (at, state) in states.iter().enumerate() {
        match at {
            40 => assert_eq!(
                *state,
                AccountState::Foreign {
                    role: accounts[40].role.clone()
                }
            ),
            _ => assert_eq!(*state, DROPPED, "account {at}"),
        }
    }
}

async fn revoking_64_accounts_takes_three_round_trips(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    let (accounts, _) = world.accounts(64);
    let mut wanted = Vec::new();
    for account in &accounts {
        wanted.push(revocation(account, Some(world.issued(&group, account).await)));
    }
    let before = world.statements().len();
    let states = world.revoke(&wanted).await;
    assert!(states.iter().all(|state| *state == DROPPED), "{states:?}");
    let sent = world.statements();
    let kinds: Vec<&str> = sent[before..]
        .iter()
        .filter_map(|line| line.split("statement: ").nth(1))
        .map(|sql| &sql[..20])
        .collect();
    // Look, drop, and then the sessions: once, and again as long as strangers are just logging in, as other tests do.
    assert_eq!(
        kinds.iter().filter(|sql| !sql.starts_with("SELECT DISTINCT")).count(),
        2,
        "{kinds:?}"
    );
    assert!(kinds.len() > 2, "{kinds:?}");
}

async fn no_session_survives_a_login_storm(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    for round in 0..12 {
        let (account, password) = world.account();
        let oid = world.issued(&group, &account).await;
        let (stop, inside) = (AtomicBool::new(false), AtomicUsize::new(0));
        let login = e2e::postgres::Login {
            user: account.role.clone(),
            password: password.reveal().into(),
        };
        let storm = (0..8).map(|_| async {
            let mut sessions = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                if let Ok(session) = world.server.connect_as(&login, &world.database).await {
                    sessions.push(session);
                    inside.fetch_add(1, Ordering::SeqCst);
                }
            }
            sessions
        });
        let knows = (round % 3 != 0).then_some(oid);
        let revoking = async {
            while inside.load(Ordering::SeqCst) < 3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let state = world.revoke_one(&account, knows).await;
            let left = world.sessions_of(oid).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            let later = world.sessions_of(oid).await;
            stop.store(true, Ordering::SeqCst);
            (state, left, later)
        };
        let (sessions, (state, left, later)) = tokio::join!(futures::future::join_all(storm), revoking);
        assert_eq!(state, DROPPED);
        assert_eq!((left, later), (0, 0), "round {round}");
        for session in sessions.iter().flatten() {
            assert!(session.batch_execute("SELECT 1").await.is_err());
        }
    }
}

async fn issue_and_revoke_of_one_lease_from_many_engines_end_with_no_account(major: Major) {
    let world = World::new(major).await;
    let (group, login, signers) = (world.readers(), world.login(), world.signers());
    let engines: Vec<Servers> = (0..3).map(|_| Servers::new()).collect();
    for _ in 0..10 {
        let (mut account, _) = world.account();
        account.issue_deadline = in_seconds(1);
        let wanted = [revocation(&account, None)];
        let issuing = engines
            .iter()
            .map(|engine| engine.issue(&login, &group, &account, PATIENCE));
        let revoking = engines
            .iter()
            .map(|engine| engine.revoke(&login, &signers, &wanted, &[]));
        let (issued, revoked) = tokio::join!(futures::future::join_all(issuing), futures::future::join_all(revoking));
        for outcome in issued.iter().chain(&revoked) {
            assert!(!matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
        }
        loop {
            let state = world.revoke_one(&account, None).await;
            match state {
                AccountState::Gone { proven: true, .. } => break,
                AccountState::Gone { .. } => tokio::time::sleep(Duration::from_millis(50)).await,
                other => panic!("{other:?}"),
            }
        }
        // Whatever comes from now on is too late.
        let late = world.issue(&group, &account).await;
        assert!(matches!(late, Outcome::Failed(_)), "{late:?}");
        assert!(!world.exists(&account.role).await);
    }
}

async fn a_forged_oid_ends_no_foreign_session(major: Major) {
    let world = World::new(major).await;
    let (victim, password) = world.account();
    let victim_oid = world.issued(&world.readers(), &victim).await;
    let session = world.try_as(&victim, &password).await.unwrap();
    let (account, _) = world.account();
    world.issued(&world.readers(), &account).await;
    let state = world.revoke_one(&account, Some(victim_oid)).await;
    assert_eq!(state, DROPPED);
    assert!(!world.exists(&account.role).await);
    session.batch_execute("SELECT 1").await.unwrap();
    assert!(world.exists(&victim.role).await);
}

on_each_release! {
    a_renamed_account_is_found_by_its_oid
    another_issuer_is_told_which_right_it_lacks
}

async fn a_renamed_account_is_found_by_its_oid(major: Major) {
    let world = World::new(major).await;
    let (account, _) = world.account();
    let oid = world.issued(&world.readers(), &account).await;
    let name = format!("renamed {}", world.database);
    let sql = format!("ALTER ROLE \"{}\" RENAME TO \"{name}\"", account.role);
    world.root().await.batch_execute(&sql).await.unwrap();
    assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED);
    assert!(!world.exists(&name).await);
}

/// From 16 on, CREATEROLE reaches only roles that one administers, and those are the ones one made.
async fn another_issuer_is_told_which_right_it_lacks(major: Major) {
    let mut world = World::new(major).await;
    let group = world.readers();
    let (first, _) = world.account();
    let oid = world.issued(&group, &first).await;
    let root = world.root().await;
    let me = format!("second_{}", world.issuer.user);
    world.issuer = world.server.create_issuer(&me, "password").await.unwrap();
    let (second, _) = world.account();
    if major >= Major::V16 {
        let Outcome::Failed(failed) = world.issue(&group, &second).await else {
            panic!("issued without ADMIN on the group");
        };
        assert_eq!(failed.class, FailureClass::MissingPrivilege, "{}", failed.message);
        root.batch_execute(failed.message.split_once("run: ").unwrap().1)
            .await
            .unwrap();
        let AccountState::Failed(failed) = world.revoke_one(&first, Some(oid)).await else {
            panic!("revoked without ADMIN on the account");
        };
        assert_eq!(failed.class, FailureClass::MissingPrivilege, "{}", failed.message);
        let (report, _) = world.servers.probe(&world.login()).await.unwrap();
        assert!(
            report.advice.iter().any(|advice| advice.contains("ADMIN OPTION")),
            "{:?}",
            report.advice
        );
        root.batch_execute(failed.message.split_once("run: ").unwrap().1)
            .await
            .unwrap();
    }
    world.issued(&group, &second).await;
    assert_eq!(world.revoke_one(&first, Some(oid)).await, DROPPED);
}
