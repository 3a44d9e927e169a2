//! Accounts that administrators gave something by hand, and what is refused to our login: taken away, or named with the SQL
//! that somebody else has to run.

use crate::on_every_release;
use crate::snapshot::{self, diff};
use crate::world::{DROPPED, World, free, revocation};
use dsv::channel::frames::{AccountState, OwnedObjects};
use e2e::postgres::Major;

on_every_release! {
    rights_that_it_had_by_hand_and_handed_on_go_with_the_account
    rights_that_only_others_can_take_are_named_with_their_sql
    a_database_that_we_may_not_enter_is_named_with_the_sql_that_opens_it
    locks_of_others_on_its_tables_are_named_and_waited_for
    a_planted_keeper_gets_nothing
    objects_that_shall_be_dropped_are_but_for_those_that_others_need
    functions_that_nobody_can_take_are_dropped_and_tables_are_kept
    what_belongs_to_no_database_goes_to_the_keeper_as_well
}

async fn rights_that_it_had_by_hand_and_handed_on_go_with_the_account(major: Major) {
    let world = World::new(major).await;
    let (group, root, issuer) = (world.readers(), world.root().await, world.as_issuer().await);
    world.ensure(&group).await.unwrap();
    let other = format!("colleague_of_{}", world.issuer.user);
    root.batch_execute(&format!("CREATE ROLE {other}")).await.unwrap();
    let before = snapshot::take(&world, &[&world.database]).await;
    let (account, password) = world.account();
    let oid = world.issued(&group, &account).await;
    let (role, database) = (&account.role, &world.database);
    issuer
        .batch_execute(&format!(
            "GRANT SELECT ON shop.orders TO \"{role}\" WITH GRANT OPTION; GRANT USAGE ON SCHEMA shop TO \"{role}\"; \
             GRANT SELECT (id) ON vault.secrets TO \"{role}\"; GRANT CREATE ON DATABASE {database} TO \"{role}\"; \
             ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO \"{role}\"; \
             CREATE POLICY theirs ON shop.orders TO \"{role}\""
        ))
        .await
        .unwrap();
    root.batch_execute(&format!(
        "GRANT pg_monitor TO \"{role}\" WITH ADMIN OPTION; ALTER ROLE \"{role}\" SET work_mem = '5MB'; \
         ALTER ROLE \"{role}\" IN DATABASE {database} SET work_mem = '6MB'; GRANT \"{role}\" TO {other}"
    ))
    .await
    .unwrap();
    let session = world.try_as(&account, &password).await.unwrap();
    session
        .batch_execute(&format!(
            "GRANT SELECT ON shop.orders TO {other}; GRANT pg_monitor TO {other}"
        ))
        .await
        .unwrap();
    let (states, wanted) = world.revoke_with(&[revocation(&account, Some(oid))], &[]).await;
    assert_eq!(states, [DROPPED]);
    assert!(wanted.is_empty(), "rights need no keeper");
    let after = snapshot::take(&world, &[&world.database]).await;
    let (mut come, gone) = diff(&before, &after);
    come.retain(|line| !is_an_empty_acl(line));
    assert!(come.iter().all(|line| !line.contains(role.as_str())), "{come:#?}");
    let handed_on =
        |line: &String| line.contains(&other) && (line.contains("shop.orders") || line.contains("pg_monitor"));
    // On 15, nothing tells who granted a membership once he is gone, so that of the colleague stays.
    let allowed = |line: &String| major < Major::V16 && line.contains("pg_monitor");
    assert!(!come.iter().any(|line| handed_on(line) && !allowed(line)), "{come:#?}");
    let changed = |line: &String| {
        line.contains("shop.orders")
            || line.contains("vault.secrets")
            || line.contains("default privileges")
            || line.starts_with("database ")
            || line.contains("schema shop")
    };
    assert!(gone.iter().all(changed), "{gone:#?}");
}

/// The first grant on a thing writes its owner's own rights down; they stay.
fn is_an_empty_acl(line: &str) -> bool {
    line.contains("vault.secrets of") || line.contains("shop.orders of") || line.starts_with("database ")
}

async fn rights_that_only_others_can_take_are_named_with_their_sql(major: Major) {
    let world = World::new(major).await;
    let (account, _) = world.account();
    let oid = world.issued(&world.readers(), &account).await;
    let (role, owner) = (&account.role, format!("owner_of_{}", world.issuer.user));
    let root = world.root().await;
    root.batch_execute(&format!(
        "CREATE ROLE {owner}; CREATE SCHEMA theirs; CREATE TABLE theirs.own (id int); CREATE TABLE theirs.passed (id int); \
         GRANT USAGE ON SCHEMA theirs TO {owner}; GRANT SELECT ON theirs.passed TO {owner} WITH GRANT OPTION; \
         GRANT SELECT ON theirs.own TO \"{role}\"; SET ROLE {owner}; GRANT SELECT ON theirs.passed TO \"{role}\"; RESET ROLE"
    ))
    .await
    .unwrap();
    for _ in 0..2 {
        let state = world.revoke_one(&account, Some(oid)).await;
        let AccountState::Blocked { locked: true, by, .. } = &state else {
            panic!("{state:?}");
        };
        assert!(by.contains("theirs.own") && by.contains(&world.database), "{by}");
    }
    free(&world, world.revoke_one(&account, Some(oid)).await).await;
    assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED);
}

async fn a_database_that_we_may_not_enter_is_named_with_the_sql_that_opens_it(major: Major) {
    let world = World::new(major).await;
    let (account, password) = world.account();
    let oid = world.issued(&world.readers(), &account).await;
    let (closed, shut) = (format!("closed_{}", world.database), format!("shut_{}", world.database));
    let root = world.root().await;
    for database in [&closed, &shut] {
        root.batch_execute(&format!("CREATE DATABASE {database}"))
            .await
            .unwrap();
        let session = world.enter(&account, &password, database).await.unwrap();
        session.batch_execute("SELECT lo_create(0)").await.unwrap();
    }
    let here = world.try_as(&account, &password).await.unwrap();
    here.batch_execute("SELECT lo_create(4711)").await.unwrap();
    root.batch_execute(&format!(
        "REVOKE CONNECT ON DATABASE {closed} FROM PUBLIC; ALTER DATABASE {shut} ALLOW_CONNECTIONS false"
    ))
    .await
    .unwrap();
    let state = world.revoke_one(&account, Some(oid)).await;
    let AccountState::Blocked { locked: true, by, .. } = &state else {
        panic!("{state:?}");
    };
    assert!(by.contains(&closed) && by.contains(&shut), "{by}");
    assert!(here.batch_execute("SELECT 1").await.is_err());
    assert!(
        world.try_as(&account, &password).await.is_err(),
        "a locked account logs in"
    );
    assert_eq!(world.verifier_of(&account.role).await, None);
    let sql = "SELECT lomowner::regrole::text FROM pg_largeobject_metadata WHERE oid = 4711";
    let owner: String = root.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(
        owner,
        world.keeper(&world.database).name,
        "what could be handed over waited for the rest"
    );
    free(&world, state).await;
    assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED);
}

async fn locks_of_others_on_its_tables_are_named_and_waited_for(major: Major) {
    let world = World::new(major).await;
    let group = world.group(&[("CREATE, USAGE", "shop.*")]);
    let (account, password) = world.account();
    let oid = world.issued(&group, &account).await;
    let session = world.try_as(&account, &password).await.unwrap();
    session.batch_execute("CREATE TABLE shop.mine (id int)").await.unwrap();
    let (root, reader) = (world.root().await, world.root().await);
    reader.batch_execute("BEGIN; SELECT * FROM shop.mine").await.unwrap();
    let gid = format!("somebody's {}", world.database);
    let quoted = gid.replace('\'', "''");
    root.batch_execute(&format!(
        "BEGIN; LOCK TABLE shop.mine IN ROW SHARE MODE; PREPARE TRANSACTION '{quoted}'"
    ))
    .await
    .unwrap();
    let state = world.revoke_one(&account, Some(oid)).await;
    let AccountState::Blocked { locked: true, by, .. } = &state else {
        panic!("{state:?}");
    };
    assert!(by.contains("session ") && by.contains(&gid), "{by}");
    free(&world, state).await;
    assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED);
}

async fn a_planted_keeper_gets_nothing(major: Major) {
    let world = World::new(major).await;
    let group = world.group(&[("CREATE, USAGE", "shop.*")]);
    let (root, keeper) = (world.root().await, world.keeper(&world.database));
    let stranger = format!("stranger_{}", world.issuer.user);
    let other = world.keeper("another database").comment;
    for plant in [
        format!("CREATE ROLE {} IN ROLE pg_monitor", keeper.name),
        format!("CREATE ROLE {0}; COMMENT ON ROLE {0} IS '{other}'", keeper.name),
        format!(
            "CREATE ROLE {0} LOGIN; COMMENT ON ROLE {0} IS '{1}'",
            keeper.name, keeper.comment
        ),
    ] {
        let (account, password) = world.account();
        let oid = world.issued(&group, &account).await;
        let session = world.try_as(&account, &password).await.unwrap();
        session.batch_execute("CREATE TABLE shop.mine (id int)").await.unwrap();
        root.batch_execute(&plant).await.unwrap();
        let state = world.revoke_one(&account, Some(oid)).await;
        let AccountState::Blocked { locked: true, by, .. } = &state else {
            panic!("{plant}: {state:?}");
        };
        assert!(by.contains(&keeper.name), "{by}");
        let sql = "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'shop.mine'::regclass";
        let owner: String = root.query_one(sql, &[]).await.unwrap().get(0);
        assert!(owner.contains(&account.role), "{plant}: it belongs to {owner}");
        free(&world, state).await;
        // On 16 and newer the login cannot use a role that it did not make.
        let last = world.revoke_one(&account, Some(oid)).await;
        if last != DROPPED {
            free(&world, last).await;
            assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED, "{plant}");
        }
        root.batch_execute(&format!("DROP TABLE shop.mine; DROP ROLE {}", keeper.name))
            .await
            .unwrap();
        let renamed = format!(
            "DROP ROLE IF EXISTS {}_not_ours; DROP ROLE IF EXISTS {stranger}",
            keeper.name
        );
        root.batch_execute(&renamed).await.unwrap();
    }
}

async fn objects_that_shall_be_dropped_are_but_for_those_that_others_need(major: Major) {
    let world = World::new(major).await;
    let group = world.group(&[("CREATE, USAGE", "shop.*")]);
    for depended_on in [false, true] {
        let (account, password) = world.account();
        let oid = world.issued(&group, &account).await;
        let session = world.try_as(&account, &password).await.unwrap();
        session
            .batch_execute("CREATE TABLE shop.mine (id int); SELECT lo_create(0); ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
            .await
            .unwrap();
        if depended_on {
            session
                .batch_execute("GRANT SELECT ON shop.mine TO PUBLIC")
                .await
                .unwrap();
            world
                .as_issuer()
                .await
                .batch_execute("CREATE VIEW shop.theirs AS SELECT * FROM shop.mine")
                .await
                .unwrap();
        }
        let mut wanted = revocation(&account, Some(oid));
        wanted.owned_objects = OwnedObjects::Drop;
        assert_eq!(world.revoke(&[wanted]).await, [DROPPED]);
        let root = world.root().await;
        let sql = "SELECT (SELECT relowner::regrole::text FROM pg_class WHERE oid = to_regclass('shop.mine')), \
                   (SELECT count(*) FROM pg_largeobject_metadata)";
        let row = root.query_one(sql, &[]).await.unwrap();
        let keeper = world.keeper(&world.database).name;
        assert_eq!(row.get::<_, Option<String>>(0), depended_on.then(|| keeper.clone()));
        assert_eq!(row.get::<_, i64>(1), i64::from(depended_on));
        assert_eq!(world.exists(&keeper).await, depended_on);
    }
}

async fn functions_that_nobody_can_take_are_dropped_and_tables_are_kept(major: Major) {
    for withdrawn in ["CREATE", "ALL"] {
        let world = World::new(major).await;
        let (root, me) = (world.root().await, &world.issuer.user);
        root.batch_execute(&format!(
            "CREATE SCHEMA \"the;irs\"; GRANT CREATE, USAGE ON SCHEMA \"the;irs\" TO {me} WITH GRANT OPTION"
        ))
        .await
        .unwrap();
        let group = world.group(&[("CREATE, USAGE", "\"the;irs\".*")]);
        let (account, password) = world.account();
        let oid = world.issued(&group, &account).await;
        let session = world.try_as(&account, &password).await.unwrap();
        session.batch_execute(MAKES).await.unwrap();
        root.batch_execute(&format!("REVOKE {withdrawn} ON SCHEMA \"the;irs\" FROM {me} CASCADE"))
            .await
            .unwrap();
        let mut state = world.revoke_one(&account, Some(oid)).await;
        if withdrawn == "ALL" {
            // Without USAGE nothing in the schema can even be named.
            free(&world, state).await;
            state = world.revoke_one(&account, Some(oid)).await;
        }
        assert_eq!(state, DROPPED);
        let sql = "SELECT (SELECT count(*) FROM \"the;irs\".mine), \
                   (SELECT count(*) FROM pg_proc WHERE pronamespace = '\"the;irs\"'::regnamespace), \
                   (SELECT count(*) FROM pg_proc WHERE pronamespace = '\"the;irs\"'::regnamespace AND prosecdef), \
                   (SELECT relowner::regrole::text FROM pg_class WHERE oid = '\"the;irs\".mine'::regclass)";
        let row = root.query_one(sql, &[]).await.unwrap();
        let kept = if withdrawn == "ALL" { 3 } else { 0 };
        assert_eq!([row.get::<_, i64>(0), row.get(1), row.get(2)], [2, kept, 0]);
        assert_eq!(row.get::<_, String>(3), world.keeper(&world.database).name);
    }
}

const MAKES: &str = "CREATE TABLE \"the;irs\".mine (id int); INSERT INTO \"the;irs\".mine VALUES (1), (2); \
    CREATE FUNCTION \"the;irs\".f(text) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; \
    CREATE PROCEDURE \"the;irs\".p() LANGUAGE sql AS 'SELECT 1'; \
    CREATE AGGREGATE \"the;irs\".total(int) (SFUNC = int4pl, STYPE = int); \
    CREATE STATISTICS \"the;irs\".stats ON id, (id + 1) FROM \"the;irs\".mine; \
    CREATE COLLATION \"the;irs\".plain FROM \"C\"";

/// A database that the account made itself (CREATEDB by hand) belongs to none.
async fn what_belongs_to_no_database_goes_to_the_keeper_as_well(major: Major) {
    let world = World::new(major).await;
    let (account, _) = world.account();
    let oid = world.issued(&world.readers(), &account).await;
    let root = world.root().await;
    let name = format!("own_{}", world.database);
    root.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    root.batch_execute(&format!("ALTER DATABASE {name} OWNER TO \"{}\"", account.role))
        .await
        .unwrap();
    let state = world.revoke_one(&account, Some(oid)).await;
    assert_eq!(state, DROPPED);
    let sql = "SELECT datdba::regrole::text FROM pg_database WHERE datname = $1";
    let owner: String = root.query_one(sql, &[&name]).await.unwrap().get(0);
    assert_eq!(owner, world.keeper(&world.database).name);
}
