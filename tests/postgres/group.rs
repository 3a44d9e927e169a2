//! Group roles and what they carry.

use crate::on_each_release;
use crate::world::{DROPPED, PATIENCE, World, failure, revocation};
use dsv::channel::frames::{Done, FailureClass, GrantText, Group, Outcome};
use dsv::postgres::Servers;
use e2e::postgres::Major;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

on_each_release! {
    privileges_that_the_login_may_not_grant_are_named
    an_object_that_does_not_exist_is_named
    a_group_that_is_not_ours_is_refused
    wildcards_and_databases_reach_what_they_say
    writers_may_use_the_sequences_of_their_tables
    any_name_stays_a_name
    all_is_all_that_the_kind_of_object_offers
    a_star_covers_tables_made_later_by_the_same_owner
}

impl World {
    async fn has(&self, group: &Group, function: &str, object: &str, privilege: &str) -> bool {
        let sql = format!("SELECT has_{function}_privilege($1, $2::text, $3)");
        self.root()
            .await
            .query_one(&sql, &[&group.name, &object, &privilege])
            .await
            .unwrap()
            .get(0)
    }
}

async fn privileges_that_the_login_may_not_grant_are_named(major: Major) {
    let world = World::new(major).await;
    let root = world.root().await;
    root.batch_execute(
        "CREATE SCHEMA closed; CREATE TABLE closed.plain (id int); CREATE TABLE closed.lent (id int); \
         CREATE TABLE shop.theirs (id int)",
    )
    .await
    .unwrap();
    // Without the grant option GRANT would only warn.
    root.batch_execute(&format!(
        "GRANT SELECT ON closed.lent, shop.theirs TO {}",
        world.issuer.user
    ))
    .await
    .unwrap();
    let group = world.group(&[
        ("SELECT", "closed.*"),
        ("SELECT", "shop.theirs"),
        ("SELECT", "shop.orders"),
    ]);
    let (account, password) = world.account();
    let failed = failure(world.issue(&group, &account).await);
    assert_eq!(failed.class, FailureClass::GrantIncomplete, "{}", failed.message);
    for named in [
        r#""closed"."plain""#,
        r#""closed"."lent""#,
        r#""shop"."theirs""#,
        r#"USAGE ON SCHEMA "closed""#,
    ] {
        assert!(failed.message.contains(named), "{named}: {}", failed.message);
    }
    assert!(!failed.message.contains("\"orders\""), "{}", failed.message);
    assert!(!world.exists(&account.role).await);
    let (_, sql) = failed.message.split_once("run: ").unwrap();
    root.batch_execute(sql).await.unwrap();
    world.issued(&group, &account).await;
    let session = world.try_as(&account, &password).await.unwrap();
    session
        .batch_execute("SELECT * FROM closed.plain, closed.lent, shop.theirs, shop.orders")
        .await
        .unwrap();
}

async fn an_object_that_does_not_exist_is_named(major: Major) {
    let world = World::new(major).await;
    for (grant, expected) in [
        (("SELECT", "shop.nothing"), "shop.nothing"),
        (("SELECT", "nowhere.*"), "nowhere"),
        (("SELECT", "nosuchdatabase.shop.orders"), "nosuchdatabase"),
        (("EXECUTE", "shop.orders"), "EXECUTE"),
    ] {
        let failed = failure(world.issue(&world.group(&[grant]), &world.account().0).await);
        assert_eq!(failed.class, FailureClass::ObjectMissing, "{}", failed.message);
        assert!(failed.message.contains(expected), "{}", failed.message);
    }
    for grant in [
        ("SELECT", "pg_catalog.pg_authid"),
        ("SELECT", "information_schema.*"),
        ("CREATE", "shop.orders"),
    ] {
        let failed = failure(world.issue(&world.group(&[grant]), &world.account().0).await);
        assert_eq!(failed.class, FailureClass::BadTask, "{}", failed.message);
    }
}

async fn a_group_that_is_not_ours_is_refused(major: Major) {
    let world = World::new(major).await;
    let root = world.root().await;
    for (grants, sql) in [
        ("SELECT", "CREATE ROLE $group NOLOGIN"),
        (
            "INSERT",
            "CREATE ROLE $group NOLOGIN; COMMENT ON ROLE $group IS 'readers'",
        ),
        (
            "UPDATE",
            "CREATE ROLE $group LOGIN; COMMENT ON ROLE $group IS '$comment'",
        ),
    ] {
        let group = world.group(&[(grants, "shop.orders")]);
        let sql = sql.replace("$group", &group.name).replace("$comment", &group.comment);
        root.batch_execute(&sql).await.unwrap();
        let failed = failure(world.issue(&group, &world.account().0).await);
        assert_eq!(failed.class, FailureClass::Foreign, "{}", failed.message);
        assert!(!world.has(&group, "table", "shop.orders", grants).await);
    }
}

async fn wildcards_and_databases_reach_what_they_say(major: Major) {
    let world = World::new(major).await;
    let owner = world.as_issuer().await;
    owner
        .batch_execute(
            "CREATE VIEW shop.seen AS SELECT 1 AS id; CREATE FUNCTION shop.act(int) RETURNS int LANGUAGE sql AS 'SELECT $1'; \
             CREATE FUNCTION shop.act(text) RETURNS int LANGUAGE sql AS 'SELECT 1'; \
             REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA shop FROM PUBLIC",
        )
        .await
        .unwrap();
    let ((other, _), root) = (world.second_database().await, world.root().await);
    root.batch_execute(&format!(
        "REVOKE ALL ON DATABASE {other}, {} FROM PUBLIC",
        world.database
    ))
    .await
    .unwrap();
    let far = format!("{other}.*.*");
    let group = world.group(&[
        ("SELECT", "shop.*"),
        ("EXECUTE", "shop.act"),
        ("INSERT", far.as_str()),
        ("TEMP", far.as_str()),
    ]);
    world.ensure(&group).await.unwrap();
    for (kind, object, privilege, expected) in [
        ("table", "shop.orders", "SELECT", true),
        ("table", "shop.seen", "SELECT", true),
        ("table", "shop.orders", "INSERT", false),
        ("table", "vault.secrets", "SELECT", false),
        ("schema", "vault", "USAGE", false),
        ("function", "shop.act(int)", "EXECUTE", true),
        ("function", "shop.act(text)", "EXECUTE", true),
        ("database", world.database.as_str(), "CONNECT", true),
        ("database", world.database.as_str(), "TEMPORARY", false),
        ("database", other.as_str(), "CONNECT", true),
        ("database", other.as_str(), "TEMPORARY", true),
    ] {
        let has = world.has(&group, kind, object, privilege).await;
        assert_eq!(has, expected, "{privilege} on {kind} {object}");
    }
    let sql = "SELECT has_table_privilege($1, 'far.away', 'INSERT')";
    assert!(
        world
            .server
            .connect(&other)
            .await
            .unwrap()
            .query_one(sql, &[&group.name])
            .await
            .unwrap()
            .get::<_, bool>(0)
    );
    let system = "SELECT has_table_privilege($1, 'pg_authid', 'SELECT')";
    assert!(!root.query_one(system, &[&group.name]).await.unwrap().get::<_, bool>(0));
}

async fn writers_may_use_the_sequences_of_their_tables(major: Major) {
    let world = World::new(major).await;
    let owner = world.as_issuer().await;
    owner
        .batch_execute(
            "CREATE SEQUENCE shop.numbers; CREATE TABLE shop.numbered (id bigint DEFAULT nextval('shop.numbers'), what text); \
             CREATE TABLE shop.identified (id int GENERATED ALWAYS AS IDENTITY, what text); CREATE SEQUENCE shop.other",
        )
        .await
        .unwrap();
    let group = world.group(&[
        ("INSERT", "shop.orders"),
        ("INSERT", "shop.numbered"),
        ("INSERT", "shop.identified"),
    ]);
    let (account, password) = world.account();
    world.issued(&group, &account).await;
    let session = world.try_as(&account, &password).await.unwrap();
    for table in ["orders", "numbered", "identified"] {
        session
            .batch_execute(&format!("INSERT INTO shop.{table} (what) VALUES ('x')"))
            .await
            .unwrap();
    }
    assert!(session.batch_execute("SELECT nextval('shop.other')").await.is_err());
}

/// Characters that mean something to SQL, or have more than one byte.
fn nasty(longest: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![
            Just("\"".to_owned()),
            Just("'".to_owned()),
            Just(";".to_owned()),
            Just("--".to_owned()),
            Just("/*".to_owned()),
            Just("$$".to_owned()),
            Just("\\".to_owned()),
            Just("%s".to_owned()),
            Just("$1".to_owned()),
            Just(".".to_owned()),
            Just("*".to_owned()),
            Just(" ".to_owned()),
            Just("\n".to_owned()),
            Just("ä€🦀".to_owned()),
            Just("A".to_owned()),
            "[a-zA-Z]{1,4}",
        ],
        1..8,
    )
    .prop_map(|parts| parts.concat())
    .prop_filter("it fits a name", move |name| {
        name.len() <= longest && !name.starts_with("pg_")
    })
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn any_name_stays_a_name(major: Major) {
    let world = World::new(major).await;
    let (owner, root) = (world.as_issuer().await, world.root().await);
    root.batch_execute("CREATE TABLE public.canary (id int)").await.unwrap();
    let mut runner = TestRunner::deterministic();
    let mut draw = |longest| nasty(longest).new_tree(&mut runner).unwrap().current();
    for round in 0..25 {
        let (schema, table, role, group) = (draw(60), draw(60), draw(30), draw(40));
        let schema = format!("{schema}{round}");
        let named = format!("{}.{}", quoted(&schema), quoted(&table));
        owner
            .batch_execute(&format!(
                "CREATE SCHEMA {}; CREATE TABLE {named} (id int)",
                quoted(&schema)
            ))
            .await
            .unwrap();
        let mut nasty_group = world.group(&[]);
        nasty_group.grants = vec![GrantText {
            what: "SELECT".into(),
            target: format!("{}.{named}", quoted(&world.database)),
        }];
        let (mut account, password) = world.account();
        nasty_group.name = format!("{group}{round}{}", &account.role[account.role.len() - 6..]);
        let uid = &account.role[account.role.len() - 27..];
        account.role = format!("{role}{uid}");
        let outcome = world.issue(&nasty_group, &account).await;
        // Literals never hold these; a name that does is refused, not sent.
        let refused = account.role.contains(['\\', '\n']) || nasty_group.name.contains(['\\', '\n']);
        if refused {
            assert_eq!(failure(outcome).class, FailureClass::BadTask);
            continue;
        }
        let Outcome::Done {
            done: Done::Issued { role_oid, .. },
            ..
        } = outcome
        else {
            panic!("{schema:?} {table:?} {role:?} {group:?}: {outcome:?}");
        };
        let session = world.try_as(&account, &password).await.unwrap();
        session.batch_execute(&format!("SELECT * FROM {named}")).await.unwrap();
        assert!(session.batch_execute("SELECT * FROM shop.orders").await.is_err());
        let states = world.revoke(&[revocation(&account, Some(role_oid))]).await;
        assert_eq!(states, [DROPPED], "{:?}", account.role);
        let done = Outcome::Done {
            done: Done::GroupDropped,
            clock: None,
        };
        assert_eq!(world.drop_group(&nasty_group).await, done, "{:?}", nasty_group.name);
    }
    root.batch_execute("SELECT * FROM public.canary").await.unwrap();
}

async fn a_star_covers_tables_made_later_by_the_same_owner(major: Major) {
    let world = World::new(major).await;
    let owner = world.as_issuer().await;
    let group = world.group(&[("SELECT, INSERT", "*.*")]);
    let (account, password) = world.account();
    let oid = world.issued(&group, &account).await;
    owner
        .batch_execute(
            "CREATE TABLE shop.later (id serial, what text); CREATE SCHEMA newer; CREATE TABLE newer.later (id serial, what text)",
        )
        .await
        .unwrap();
    let session = world.try_as(&account, &password).await.unwrap();
    for table in ["shop.later", "newer.later"] {
        session
            .batch_execute(&format!(
                "INSERT INTO {table} (what) VALUES ('x'); SELECT * FROM {table}"
            ))
            .await
            .unwrap();
        assert!(session.batch_execute(&format!("DELETE FROM {table}")).await.is_err());
    }
    let root = world.root().await;
    let count = async || -> i64 {
        root.query_one("SELECT count(*) FROM pg_default_acl", &[])
            .await
            .unwrap()
            .get(0)
    };
    assert!(count().await > 0);
    let before = world.statements().len();
    Servers::new()
        .ensure_group(&world.login(), &group, PATIENCE)
        .await
        .unwrap();
    let sent = world.statements();
    let writes = sent[before..]
        .iter()
        .filter(|line| line.contains("statement: BEGIN"))
        .count();
    assert_eq!(writes, 0, "looking again changes something");
    world.revoke_one(&account, Some(oid)).await;
    assert!(matches!(world.drop_group(&group).await, Outcome::Done { .. }));
    assert_eq!(count().await, 0);
}

async fn all_is_all_that_the_kind_of_object_offers(major: Major) {
    let world = World::new(major).await;
    let group = world.group(&[("ALL", "shop.*")]);
    world.ensure(&group).await.unwrap();
    let maintain = world.group(&[("MAINTAIN", "shop.orders")]);
    let mut expected = vec![
        ("table", "shop.orders", "TRUNCATE", true),
        ("table", "shop.orders", "TRIGGER", true),
        ("sequence", "shop.orders_id_seq", "UPDATE", true),
        ("schema", "shop", "USAGE", true),
        ("schema", "shop", "CREATE", false),
        ("table", "vault.secrets", "SELECT", false),
    ];
    if major >= Major::V17 {
        expected.push(("table", "shop.orders", "MAINTAIN", true));
        world.ensure(&maintain).await.unwrap();
        assert!(world.has(&maintain, "table", "shop.orders", "MAINTAIN").await);
    } else {
        assert_eq!(world.ensure(&maintain).await.unwrap_err().class, FailureClass::BadTask);
    }
    for (kind, object, privilege, expected) in expected {
        let has = world.has(&group, kind, object, privilege).await;
        assert_eq!(has, expected, "{privilege} on {kind} {object}");
    }
}
