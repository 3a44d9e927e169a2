//! Accounts that own things, hold rights of their own and keep transactions open: taken back completely all the same.

use crate::on_each_release;
use crate::snapshot::{self, diff};
use crate::world::{DROPPED, World, quoted};
use dsv::channel::frames::{Account, Group};
use dsv::keys::{Password, RoleKind};
use e2e::postgres::{Login, Major};
use tokio_postgres::Client;

on_each_release! {
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

async fn enter(world: &World, account: &Account, password: &Password, database: &str) -> Client {
    let login = Login {
        user: account.role.clone(),
        password: password.reveal().into(),
    };
    world.server.connect_as(&login, database).await.unwrap()
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
        let session = enter(&world, &account, &password, database).await;
        session.batch_execute(MAKES).await.unwrap();
        session
            .batch_execute("BEGIN; INSERT INTO shop.mine (what) VALUES ('not committed')")
            .await
            .unwrap();
        sessions.push(session);
        sessions.push(enter(&world, &account, &password, database).await);
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
