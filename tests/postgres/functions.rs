//! The functions that run with a superuser's rights: what is made and taken back by them, and which are not called.

use crate::functions_refuse::call;
use crate::world::{DROPPED, PATIENCE, World, failure, in_seconds, revocation};
use dsv::channel::frames::{Account, AccountSettings, AccountState, Done, FailureClass, Outcome};
use dsv::keys::RoleKind;
use dsv::postgres::Servers;
use e2e::postgres::Major;
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Defines a test for each of the releases on which what a login makes is a membership of it.
#[macro_export]
macro_rules! where_they_matter {
    ($($name:ident)+) => { $(
        mod $name {
            #[tokio::test]
            async fn on_16() {
                super::$name(e2e::postgres::Major::V16).await;
            }
            #[tokio::test]
            async fn on_17() {
                super::$name(e2e::postgres::Major::V17).await;
            }
            #[tokio::test]
            async fn on_18() {
                super::$name(e2e::postgres::Major::V18).await;
            }
        }
    )+ };
}

where_they_matter! {
    an_account_is_a_membership_of_its_group_only
    what_owns_something_goes_the_slow_way
    installed_and_dropped_while_accounts_live
    an_engine_that_did_not_see_them_come_takes_back_what_they_made
    functions_that_somebody_planted_are_not_called
    functions_put_in_the_place_of_ours_are_not_called
}

/// A world whose login may call the functions.
pub async fn with_functions(major: Major) -> World {
    let world = World::new(major).await;
    world.install_functions().await;
    world
}

/// Memberships that the login has, but for those in group and keeper roles and in what root granted it.
async fn memberships_in_accounts(world: &World) -> i64 {
    let sql = "SELECT count(*) FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member JOIN pg_roles g ON g.oid = m.roleid \
        WHERE u.rolname = $1 AND g.rolcanlogin";
    let root = world.root().await;
    root.query_one(sql, &[&world.issuer.user]).await.unwrap().get(0)
}

#[allow(clippy::too_many_lines, reason = "one life, step by step")]
async fn an_account_is_a_membership_of_its_group_only(major: Major) {
    let world = with_functions(major).await;
    let group = world.group(&[("SELECT, INSERT", "shop.orders")]);
    let (mut account, password) = world.account();
    account.settings = AccountSettings {
        connection_limit: Some(3),
        statement_timeout_ms: Some(4321),
        idle_in_transaction_timeout_ms: Some(1234),
        search_path: vec!["shop".into(), "o'dd \"$user\"".into()],
    };
    let oid = world.issued(&group, &account).await;
    assert_eq!(
        memberships_in_accounts(&world).await,
        0,
        "it was made by the login itself"
    );
    let session = world.try_as(&account, &password).await.unwrap();
    session
        .batch_execute("INSERT INTO orders (what) VALUES ('two')")
        .await
        .unwrap();
    assert!(session.batch_execute("DELETE FROM orders").await.is_err());
    assert!(
        session
            .batch_execute(&format!("SET ROLE \"{}\"", group.name))
            .await
            .is_err()
    );
    let shown = |name: &'static str| {
        let session = &session;
        async move {
            let row = session.query_one(&format!("SHOW {name}"), &[]).await.unwrap();
            row.get::<_, String>(0)
        }
    };
    assert_eq!(shown("statement_timeout").await, "4321ms");
    assert_eq!(shown("idle_in_transaction_session_timeout").await, "1234ms");
    assert_eq!(shown("search_path").await, "shop, \"o'dd \"\"$user\"\"\"");
    same_as_by_the_login_itself(&world, &account).await;

    match world.issue(&group, &account).await {
        Outcome::Done {
            done: Done::Issued { role_oid, adopted },
            ..
        } => assert_eq!((role_oid, adopted), (oid, true)),
        other => panic!("{other:?}"),
    }
    let (mut late, _) = world.account();
    late.issue_deadline = in_seconds(-1);
    assert_eq!(failure(world.issue(&group, &late).await).class, FailureClass::TooLate);
    let (report, _) = world.servers.probe(&world.login()).await.unwrap();
    let about = |advice: &String| advice.contains(&account.role) || advice.contains("slower");
    assert!(!report.advice.iter().any(about), "{:?}", report.advice);

    let (mut many, _) = world.accounts(5);
    for one in &many {
        world.issued(&group, one).await;
    }
    many.push(account);
    let mut asked = Vec::new();
    for one in &mut many {
        one.issue_deadline = in_seconds(-1);
        asked.push(revocation(one, Some(oid_of(&world, one).await)));
    }
    let gone = AccountState::Gone {
        proven: true,
        dropped: true,
    };
    assert_eq!(world.revoke(&asked).await, vec![gone; 6]);
    assert!(session.batch_execute("SELECT 1").await.is_err(), "its session lives on");
    assert_eq!(
        world.drop_group(&group).await,
        Outcome::Done {
            done: Done::GroupDropped,
            clock: None
        }
    );
}

pub async fn oid_of(world: &World, account: &Account) -> u32 {
    let root = world.root().await;
    let sql = "SELECT oid FROM pg_roles WHERE rolname = $1";
    root.query_one(sql, &[&account.role]).await.unwrap().get(0)
}

/// Attributes and settings do not tell who made an account.
async fn same_as_by_the_login_itself(world: &World, by_function: &Account) {
    let (mut plain, _) = world.account();
    plain.settings = by_function.settings.clone();
    let other = World::on(std::sync::Arc::clone(&world.server)).await;
    let group = other.readers();
    plain.comment = other.sign(RoleKind::Lease, &plain.lease_uid, &plain.role);
    other.issued(&group, &plain).await;
    assert_eq!(
        memberships_in_accounts(&other).await,
        1,
        "without the functions it is a membership"
    );
    let sql = "SELECT (to_jsonb(r) - 'oid' - 'rolname' - 'rolvaliduntil')::text, m.inherit_option, m.set_option, m.admin_option \
        FROM pg_roles r JOIN pg_auth_members m ON m.member = r.oid WHERE r.rolname = $1";
    let root = world.root().await;
    let mut seen = Vec::new();
    for account in [by_function, &plain] {
        let row = root.query_one(sql, &[&account.role]).await.unwrap();
        seen.push((row.get::<_, String>(0), [row.get::<_, bool>(1), row.get(2), row.get(3)]));
    }
    assert_eq!(seen[0], seen[1]);
}

async fn what_owns_something_goes_the_slow_way(major: Major) {
    let world = with_functions(major).await;
    let group = world.group(&[("CREATE, USAGE", "shop.*")]);
    let other = format!("other_{}", world.database);
    world
        .as_issuer()
        .await
        .batch_execute(&format!("CREATE ROLE {other} NOLOGIN"))
        .await
        .unwrap();
    for by in ["the login", "a superuser"] {
        let (account, password) = world.account();
        let oid = world.issued(&group, &account).await;
        let session = world.try_as(&account, &password).await.unwrap();
        let sql = "DROP TABLE IF EXISTS shop.mine; CREATE TABLE shop.mine (id int); INSERT INTO shop.mine VALUES (7)";
        session.batch_execute(sql).await.unwrap();
        let giver = if by == "the login" {
            world.as_issuer().await
        } else {
            world.root().await
        };
        let grant = format!("GRANT {other} TO \"{}\"", account.role);
        giver.batch_execute(&grant).await.unwrap();
        // Locked, out of its groups, and no further without a keeper.
        let (states, wanted) = world.revoke_with(&[revocation(&account, Some(oid))], &[]).await;
        assert_eq!(states, [AccountState::NeedsKeeper], "{by}");
        assert_eq!(groups_of(&world, oid).await, 0, "it keeps a group that {by} granted");
        let keepers = wanted.iter().map(|database| world.keeper(database)).collect::<Vec<_>>();
        let (states, _) = world.revoke_with(&[revocation(&account, Some(oid))], &keepers).await;
        assert_eq!(states, [DROPPED], "{by}");
        let root = world.root().await;
        let kept: i32 = root.query_one("SELECT id FROM shop.mine", &[]).await.unwrap().get(0);
        assert_eq!(kept, 7);
        assert!(world.try_as(&account, &password).await.is_err());
        root.batch_execute("DROP TABLE shop.mine").await.unwrap();
    }
    assert_eq!(memberships_in_accounts(&world).await, 0);
}

async fn groups_of(world: &World, oid: u32) -> i64 {
    let root = world.root().await;
    let sql = "SELECT count(*) FROM pg_auth_members WHERE member = $1";
    root.query_one(sql, &[&oid]).await.unwrap().get(0)
}

async fn installed_and_dropped_while_accounts_live(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    let made = |account: Account| {
        let (world, group) = (&world, &group);
        async move { (world.issued(group, &account).await, account) }
    };
    let slower = |advice: &String| advice.contains("slower") && advice.contains("--install");
    let (report, _) = world.servers.probe(&world.login()).await.unwrap();
    assert!(report.advice.iter().any(slower), "{:?}", report.advice);
    let (before, first) = made(world.account().0).await;
    world.install_functions().await;
    world.servers.forget_idle(Duration::ZERO);
    let (with, second) = made(world.account().0).await;
    let (kept, third) = made(world.account().0).await;
    assert_eq!(memberships_in_accounts(&world).await, 1, "the one from before");
    assert_eq!(
        world.revoke_one(&first, Some(before)).await,
        DROPPED,
        "by a function that did not make it"
    );

    let root = world.root().await;
    root.batch_execute("DROP SCHEMA dsv CASCADE").await.unwrap();
    // The sessions do not know yet, and nobody notices.
    let (without, fourth) = made(world.account().0).await;
    assert_eq!(world.revoke_one(&fourth, Some(without)).await, DROPPED);
    for recorded in [Some(with), None] {
        let AccountState::Failed(refused) = world.revoke_one(&second, recorded).await else {
            panic!("taken back without a right to it");
        };
        assert_eq!(refused.class, FailureClass::MissingPrivilege, "{}", refused.message);
        assert!(refused.message.contains("install them again"), "{}", refused.message);
        assert!(world.exists(&second.role).await);
    }
    let AccountState::Failed(refused) = world.revoke_one(&second, Some(with)).await else {
        panic!("taken back without a right to it");
    };
    let cure = refused.message.split_once("run: ").unwrap().1;
    root.batch_execute(cure).await.unwrap();
    assert_eq!(world.revoke_one(&second, Some(with)).await, DROPPED, "after {cure}");
    let (report, _) = world.servers.probe(&world.login()).await.unwrap();
    // Ten are named, and worlds beside this one have such accounts too.
    let tells = |advice: &&String| advice.contains("does not administer");
    let named = report.advice.iter().find(tells).unwrap();
    assert!(
        named.contains(&third.role) || named.matches(", ").count() >= 9,
        "an account that the login cannot drop is not named: {named}"
    );

    let rename = format!("ALTER ROLE \"{}\" RENAME TO \"renamed {}\"", third.role, world.database);
    root.batch_execute(&rename).await.unwrap();
    // Other functions than those that the kept sessions looked at.
    world.install_functions().await;
    assert_eq!(world.revoke_one(&third, Some(kept)).await, DROPPED, "installed again");
}

/// Two engines of a pool: only one of them opened its sessions after a superuser installed the functions.
async fn an_engine_that_did_not_see_them_come_takes_back_what_they_made(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    let before = world.account().0;
    world.issued(&group, &before).await;
    for round in ["installed", "installed anew"] {
        world.install_functions().await;
        let (accounts, _) = world.accounts(5);
        let (another, mut asked) = (Servers::new(), Vec::new());
        for account in &accounts {
            let issued = another.issue(&world.login(), &group, account, PATIENCE).await;
            assert!(matches!(issued, Outcome::Done { .. }), "{round}: {issued:?}");
            asked.push(revocation(account, Some(oid_of(&world, account).await)));
        }
        assert_eq!(
            memberships_in_accounts(&world).await,
            1,
            "{round}: only that from before"
        );
        let (first, others) = asked.split_first().unwrap();
        assert_eq!(world.revoke(others).await, vec![DROPPED; 4], "{round}");
        assert_eq!(world.revoke(std::slice::from_ref(first)).await, [DROPPED], "{round}");
        let root = world.root().await;
        root.batch_execute("DROP SCHEMA dsv CASCADE").await.unwrap();
    }
    let oid = oid_of(&world, &before).await;
    assert_eq!(world.revoke_one(&before, Some(oid)).await, DROPPED);
}

/// Functions of the right names that tell everything to whoever made them.
async fn plant(world: &World, planter: &Client) {
    let sql = dsv::postgres::install(&world.issuer.user, &world.database).unwrap();
    let marker = sql.split_once("IS '").unwrap().1.split_once('\'').unwrap().0;
    planter
        .batch_execute(&format!(
            "CREATE SCHEMA dsv; CREATE TABLE dsv.captured (what text); GRANT INSERT ON dsv.captured TO PUBLIC; \
             CREATE FUNCTION dsv.create_account(text, text, timestamptz, integer, text, text, bigint, bigint, text[]) RETURNS void \
             LANGUAGE sql SECURITY DEFINER AS $$ INSERT INTO dsv.captured VALUES ($1) $$; \
             CREATE FUNCTION dsv.drop_accounts(oid[], text[]) RETURNS void LANGUAGE sql SECURITY DEFINER \
             AS $$ INSERT INTO dsv.captured VALUES ($2[1]) $$; \
             CREATE FUNCTION dsv.administer(oid[], text[]) RETURNS void LANGUAGE sql SECURITY DEFINER \
             AS $$ INSERT INTO dsv.captured VALUES ($2[1]) $$; \
             CREATE FUNCTION dsv.leave_groups(oid[], text[]) RETURNS void LANGUAGE sql SECURITY DEFINER \
             AS $$ INSERT INTO dsv.captured VALUES ($2[1]) $$; \
             COMMENT ON FUNCTION dsv.create_account(text, text, timestamptz, integer, text, text, bigint, bigint, text[]) IS '{marker}'; \
             COMMENT ON FUNCTION dsv.drop_accounts(oid[], text[]) IS '{marker}'; \
             COMMENT ON FUNCTION dsv.administer(oid[], text[]) IS '{marker}'; \
             COMMENT ON FUNCTION dsv.leave_groups(oid[], text[]) IS '{marker}'; \
             GRANT USAGE ON SCHEMA dsv TO PUBLIC; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dsv TO PUBLIC"
        ))
        .await
        .unwrap();
}

/// A role that may create in the world's database.
pub async fn planter(world: &World) -> Client {
    let name = format!("planter_{}", world.database);
    let login = world.server.create_issuer(&name, "password").await.unwrap();
    let sql = format!(
        "GRANT CREATE ON DATABASE {} TO {name}; ALTER ROLE {name} NOCREATEROLE",
        world.database
    );
    world.root().await.batch_execute(&sql).await.unwrap();
    world.server.connect_as(&login, &world.database).await.unwrap()
}

async fn captured(world: &World) -> i64 {
    let root = world.root().await;
    root.query_one("SELECT count(*) FROM dsv.captured", &[])
        .await
        .unwrap()
        .get(0)
}

async fn a_life_by_the_login_itself(world: &World) {
    let (account, password) = world.account();
    let group = world.group(&[("CREATE, USAGE", "shop.*")]);
    let oid = world.issued(&group, &account).await;
    assert_eq!(memberships_in_accounts(world).await, 1);
    let session = world.try_as(&account, &password).await.unwrap();
    session.batch_execute("CREATE TABLE shop.mine (id int)").await.unwrap();
    assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED);
}

async fn functions_that_somebody_planted_are_not_called(major: Major) {
    let world = World::new(major).await;
    plant(&world, &planter(&world).await).await;
    a_life_by_the_login_itself(&world).await;
    assert_eq!(captured(&world).await, 0);
    let root = world.root().await;
    let sql = dsv::postgres::install(&world.issuer.user, &world.database).unwrap();
    let refused = root.batch_execute(&sql).await.unwrap_err();
    let said = refused.as_db_error().unwrap().message().to_owned();
    assert!(said.contains("no superuser"), "{said}");
    root.batch_execute("ROLLBACK").await.unwrap();
    let not_here = world.server.connect("postgres").await.unwrap();
    let refused = not_here.batch_execute(&sql).await.unwrap_err();
    assert!(refused.as_db_error().unwrap().message().contains("connect to that one"));
}

/// A session that knows the true ones calls by name; then a superuser drops them, and somebody else has the name.
async fn functions_put_in_the_place_of_ours_are_not_called(major: Major) {
    let world = with_functions(major).await;
    let (account, _) = world.account();
    let oid = world.issued(&world.readers(), &account).await;
    let planter = planter(&world).await;
    let root = world.root().await;
    root.batch_execute("DROP SCHEMA dsv CASCADE").await.unwrap();
    plant(&world, &planter).await;
    a_life_by_the_login_itself(&world).await;
    let state = world.revoke_one(&account, Some(oid)).await;
    assert!(matches!(state, AccountState::Failed(_)), "{state:?}");
    assert_eq!(captured(&world).await, 0);
}

/// There they would spare nothing, and the engine does not ask for them.
#[tokio::test]
async fn on_15_they_may_be_installed_and_are_not_called() {
    let world = with_functions(Major::V15).await;
    let (account, _) = world.account();
    let oid = world.issued(&world.readers(), &account).await;
    let (report, _) = world.servers.probe(&world.login()).await.unwrap();
    assert!(!report.advice.iter().any(|advice| advice.contains("slower")));
    assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED);
    let caller = world.as_issuer().await;
    let error = caller.batch_execute(&call(&account, "some_group")).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED), "{error}");
}
