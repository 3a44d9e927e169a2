//! Accounts that own things, hold rights of their own and keep transactions open: taken back completely all the same.

use crate::on_every_release;
use crate::snapshot::{self, diff};
use crate::world::{DROPPED, World, quoted, revocation};
use dsv::channel::frames::{AccountState, Group};
use dsv::keys::RoleKind;
use e2e::postgres::{Major, Options, Server};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

on_every_release! {
    settings_alone_need_no_keeper
    a_keeper_is_dropped_once_it_has_nothing
    a_revocation_cut_off_anywhere_is_finished_by_the_next
    no_session_of_an_owner_survives_a_login_storm
    the_functions_of_a_blocked_account_are_harmless
    what_a_resisting_account_owned_in_three_databases_is_kept_and_the_account_is_gone
}

/// What an account may make where it may create: each kind of object that has an owner, with and without a schema.
const MAKES: &str = "\
    CREATE TABLE shop.mine (id serial PRIMARY KEY, what text); INSERT INTO shop.mine (what) VALUES ('a'), ('b'), ('c'); \
    CREATE VIEW shop.seen AS SELECT what FROM shop.mine; \
    CREATE MATERIALIZED VIEW shop.kept AS SELECT what FROM shop.mine; \
    CREATE TYPE shop.mood AS ENUM ('good'); CREATE DOMAIN shop.small AS int CHECK (VALUE < 10); \
    CREATE SEQUENCE shop.counter; \
    CREATE FUNCTION shop.peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM shop.mine'; \
    CREATE FUNCTION shop.\"odd; name\"(\"A\" shop.mood, VARIADIC int[]) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; \
    CREATE PROCEDURE shop.act() LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; \
    CREATE AGGREGATE shop.total(int) (SFUNC = int4pl, STYPE = int); \
    CREATE OPERATOR shop.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl); \
    CREATE COLLATION shop.plain FROM \"C\"; \
    CREATE STATISTICS shop.stats ON id, what FROM shop.mine; \
    CREATE TEXT SEARCH CONFIGURATION shop.words (COPY = simple); \
    SELECT lo_from_bytea(0, 'large'); \
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; \
    ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO PUBLIC; \
    GRANT SELECT ON shop.mine TO PUBLIC; \
    CREATE TEMPORARY TABLE passing (id int); \
    CREATE SCHEMA \"its; own\"; CREATE TABLE \"its; own\".inside (id int); INSERT INTO \"its; own\".inside VALUES (7); \
    CREATE FUNCTION \"its; own\".f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'";

fn makers(world: &World, databases: &[&str]) -> Group {
    let schemas: Vec<String> = databases
        .iter()
        .map(|database| format!("{}.shop.*", quoted(database)))
        .collect();
    let wholes: Vec<String> = databases
        .iter()
        .map(|database| format!("{}.*.*", quoted(database)))
        .collect();
    let mut pairs: Vec<(&str, &str)> = schemas
        .iter()
        .map(|schema| ("CREATE, USAGE", schema.as_str()))
        .collect();
    pairs.extend(wholes.iter().map(|whole| ("CREATE", whole.as_str())));
    world.group(&pairs)
}

async fn three_databases(world: &World) -> Vec<String> {
    let mut databases = vec![world.database.clone()];
    for prefix in ["second", "it's \"third\""] {
        let (name, client) = world.further_database(prefix).await;
        client.batch_execute("CREATE SCHEMA shop").await.unwrap();
        databases.push(name);
    }
    databases
}

async fn what_a_resisting_account_owned_in_three_databases_is_kept_and_the_account_is_gone(major: Major) {
    let world = World::new(major).await;
    let databases = three_databases(&world).await;
    let databases: Vec<&str> = databases.iter().map(String::as_str).collect();
    let group = makers(&world, &databases);
    world.ensure(&group).await.unwrap();
    let before = snapshot::take(&world, &databases).await;
    let (account, password) = world.account();
    let oid = world.issued(&group, &account).await;
    let mut sessions = Vec::new();
    for database in &databases {
        let session = world.enter(&account, &password, database).await.unwrap();
        session.batch_execute(MAKES).await.unwrap();
        session
            .batch_execute("BEGIN; INSERT INTO shop.mine (what) VALUES ('not committed')")
            .await
            .unwrap();
        sessions.push(session);
        sessions.push(world.enter(&account, &password, database).await.unwrap());
    }
    assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED);
    for session in &sessions {
        assert!(session.batch_execute("SELECT 1").await.is_err(), "a session lives on");
    }
    assert!(!world.exists(&account.role).await);
    let after = snapshot::take(&world, &databases).await;
    let (come, gone) = diff(&before, &after);
    assert!(gone.is_empty(), "{gone:#?}");
    for line in &come {
        assert!(
            line.contains("dsvk_") || line.starts_with("role dsvk_"),
            "{line}\nof {come:#?}"
        );
        assert!(
            !line.contains("default privileges") && !line.contains("definer true"),
            "{line}"
        );
        assert!(!line.contains(&account.role), "{line}");
    }
    for database in &databases {
        judge_database(&world, database, &come).await;
    }
}

async fn judge_database(world: &World, database: &str, come: &[String]) {
    let keeper = world.keeper(database).name;
    for what in [
        "relation shop.mine",
        "schema its; own",
        "relation \"its; own\".inside",
        "large object",
    ] {
        let of_keeper = |line: &&String| {
            line.starts_with(&format!("{database}: {what}")) && line.contains(&format!(" of {keeper}"))
        };
        assert!(
            come.iter().any(|line| of_keeper(&line)),
            "{what} in {database} is not the keeper's: {come:#?}"
        );
    }
    let root = world.server.connect(database).await.unwrap();
    let rows: i64 = root
        .query_one("SELECT count(*) FROM shop.mine", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(rows, 3);
    let sql = "SELECT convert_from(lo_get(oid), 'utf8') FROM pg_largeobject_metadata";
    let content: String = root.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(content, "large");
    let sql = "SELECT count(*) FROM pg_auth_members m WHERE $1::text IN (m.roleid::regrole::text, m.member::regrole::text) \
               AND NOT (m.admin_option AND m.member::regrole::text = $2)";
    let members: i64 = root
        .query_one(sql, &[&keeper, &world.issuer.user])
        .await
        .unwrap()
        .get(0);
    assert_eq!(members, 0, "the keeper has members or groups");
    let comment = world.comment_of(&keeper).await.unwrap();
    assert_eq!(comment, world.sign(RoleKind::Keeper, "orders-db", &keeper));
}

async fn settings_alone_need_no_keeper(major: Major) {
    let world = World::new(major).await;
    let (account, password) = world.account();
    let oid = world.issued(&world.readers(), &account).await;
    let session = world.try_as(&account, &password).await.unwrap();
    let sql = "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; CREATE TEMPORARY TABLE passing (id int); \
               ALTER ROLE CURRENT_USER SET work_mem = '5MB'";
    session.batch_execute(sql).await.unwrap();
    let (states, wanted) = world.revoke_with(&[revocation(&account, Some(oid))], &[]).await;
    assert_eq!((states, wanted), (vec![DROPPED], vec![]));
    assert!(!world.exists(&world.keeper(&world.database).name).await);
}

/// Gives something to the keeper of the world's database.
async fn revoke_an_owner(world: &World, group: &Group, table: &str) {
    let (account, password) = world.account();
    let oid = world.issued(group, &account).await;
    let session = world.try_as(&account, &password).await.unwrap();
    session
        .batch_execute(&format!("CREATE TABLE {table} (id int)"))
        .await
        .unwrap();
    assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED);
}

async fn a_keeper_is_dropped_once_it_has_nothing(major: Major) {
    let world = World::on(own_server(major).await).await;
    let (other, there) = world.further_database("second").await;
    there.batch_execute("CREATE SCHEMA shop").await.unwrap();
    let group = makers(&world, &[&world.database, &other]);
    revoke_an_owner(&world, &group, "shop.first").await;
    let keeper = world.keeper(&world.database).name;
    let root = world.root().await;
    root.batch_execute("DROP TABLE shop.first").await.unwrap();
    let (account, password) = world.account();
    let oid = world.issued(&group, &account).await;
    let session = world.enter(&account, &password, &other).await.unwrap();
    session
        .batch_execute("CREATE TABLE shop.second (id int)")
        .await
        .unwrap();
    assert!(world.exists(&keeper).await);
    assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED);
    assert!(!world.exists(&keeper).await, "an empty keeper stays");
    assert!(world.exists(&world.keeper(&other).name).await);
}

async fn a_revocation_cut_off_anywhere_is_finished_by_the_next(major: Major) {
    let world = World::new(major).await;
    let group = makers(&world, &[&world.database]);
    let keepers = [world.keeper(&world.database)];
    let mut cut = 0;
    for round in 0..24_u64 {
        let (account, password) = world.account();
        let oid = world.issued(&group, &account).await;
        let session = world.try_as(&account, &password).await.unwrap();
        let table = format!("shop.round_{round}");
        let sql = format!(
            "CREATE TABLE {table} (id int); INSERT INTO {table} VALUES (1); CREATE TEMPORARY TABLE passing (id int)"
        );
        session.batch_execute(&sql).await.unwrap();
        let wanted = [revocation(&account, Some(oid))];
        // An engine that dies: its sessions end wherever they are.
        let engine = dsv::postgres::Servers::new();
        let (login, signers) = (world.login(), world.signers());
        let dying = engine.revoke(&login, &signers, &wanted, &keepers);
        let after = std::time::Duration::from_millis(5 + 6 * round);
        cut += usize::from(tokio::time::timeout(after, dying).await.is_err());
        drop(engine);
        let state = world.revoke(&wanted).await.pop().unwrap();
        assert!(matches!(state, AccountState::Gone { .. }), "round {round}: {state:?}");
        let root = world.root().await;
        let sql = format!(
            "SELECT count(*), (SELECT relowner::regrole::text FROM pg_class WHERE oid = '{table}'::regclass) FROM {table}"
        );
        let row = root.query_one(&sql, &[]).await.unwrap();
        assert_eq!(
            (row.get::<_, i64>(0), row.get::<_, String>(1)),
            (1, keepers[0].name.clone())
        );
        assert!(!world.exists(&account.role).await);
        assert_eq!(world.sessions_of(oid).await, 0);
    }
    assert!(cut > 3, "only {cut} were cut off");
    let root = world.root().await;
    let sql = "SELECT count(*) FROM pg_auth_members m WHERE m.member::regrole::text = $1 AND (m.roleid::regrole::text LIKE 'shop_%' \
               OR m.roleid::regrole::text = $2) AND NOT m.admin_option";
    let row = root
        .query_one(sql, &[&world.issuer.user, &keepers[0].name])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 0, "a membership was left behind");
}

async fn no_session_of_an_owner_survives_a_login_storm(major: Major) {
    let world = World::new(major).await;
    let group = makers(&world, &[&world.database]);
    for round in 0..8 {
        let (account, password) = world.account();
        let oid = world.issued(&group, &account).await;
        let first = world.try_as(&account, &password).await.unwrap();
        let sql = format!("CREATE TABLE shop.round_{round} (id int)");
        first.batch_execute(&sql).await.unwrap();
        let stop = AtomicBool::new(false);
        let storm = (0..16).map(|_| async {
            let mut sessions = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                if let Ok(session) = world.try_as(&account, &password).await {
                    // Each one makes something as well, until it cannot any more.
                    let _ = session.batch_execute("SELECT lo_create(0)").await;
                    sessions.push(session);
                }
            }
            sessions
        });
        let revoking = async {
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            let state = world.revoke_one(&account, Some(oid)).await;
            let left = world.sessions_of(oid).await;
            stop.store(true, Ordering::SeqCst);
            (state, left)
        };
        let (sessions, ended) = tokio::join!(futures::future::join_all(storm), revoking);
        assert_eq!(ended, (DROPPED, 0), "round {round}");
        for session in sessions.iter().flatten().chain([&first]) {
            assert!(session.batch_execute("SELECT 1").await.is_err());
        }
    }
}

async fn the_functions_of_a_blocked_account_are_harmless(major: Major) {
    let world = World::new(major).await;
    let group = world.group(&[("CREATE, USAGE", "shop.*"), ("SELECT", "vault.*")]);
    let (account, password) = world.account();
    let oid = world.issued(&group, &account).await;
    let session = world.try_as(&account, &password).await.unwrap();
    let sql = "CREATE FUNCTION shop.peek() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT id FROM vault.secrets'; \
               CREATE TABLE shop.mine (id int)";
    session.batch_execute(sql).await.unwrap();
    let root = world.root().await;
    root.batch_execute("BEGIN; LOCK TABLE shop.mine IN SHARE MODE")
        .await
        .unwrap();
    let state = world.revoke_one(&account, Some(oid)).await;
    assert!(matches!(state, AccountState::Blocked { locked: true, .. }), "{state:?}");
    let sql = "SELECT prosecdef FROM pg_proc WHERE oid = 'shop.peek()'::regprocedure";
    let armed: bool = root.query_one(sql, &[]).await.unwrap().get(0);
    assert!(!armed);
    let sql = "SELECT count(*) FROM pg_auth_members WHERE member = $1";
    let groups: i64 = root.query_one(sql, &[&oid]).await.unwrap().get(0);
    assert_eq!(groups, 0, "it kept its group's rights");
    root.batch_execute("COMMIT").await.unwrap();
    assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED);
}

/// Keepers of other tests would be dropped too.
async fn own_server(major: Major) -> Arc<Server> {
    Arc::new(Server::start(major, Options::default()).await.unwrap())
}
