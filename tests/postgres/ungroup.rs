//! Removing group roles.

use crate::on_each_release;
use crate::snapshot;
use crate::world::{World, failure};
use dsv::channel::frames::{Done, FailureClass, Outcome};
use e2e::postgres::Major;

on_each_release! {
    a_dropped_group_leaves_nothing
    what_a_group_owns_goes_to_the_keeper_with_nothing_lost
    a_role_of_its_name_without_our_comment_is_kept
}

async fn a_dropped_group_leaves_nothing(major: Major) {
    let world = World::new(major).await;
    let ((other, there), root) = (world.second_database().await, world.root().await);
    let far = format!("{other}.far.*");
    let group = world.group(&[("SELECT", "shop.*"), ("SELECT, INSERT", far.as_str())]);
    let (account, _) = world.account();
    let oid = world.issued(&group, &account).await;
    assert_eq!(
        failure(world.drop_group(&group).await).class,
        FailureClass::Busy,
        "it has a member"
    );
    world.revoke_one(&account, Some(oid)).await;
    let done = Outcome::Done {
        done: Done::GroupDropped,
        clock: None,
    };
    assert_eq!(world.drop_group(&group).await, done);
    assert_eq!(world.drop_group(&group).await, done, "absent is success");
    assert!(!world.exists(&group.name).await);
    let left = "SELECT count(*) FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass \
                AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = s.refobjid)";
    assert_eq!(root.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
    let acl: String = there
        .query_one(
            "SELECT coalesce(relacl::text, '') FROM pg_class WHERE oid = 'far.away'::regclass",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert!(!acl.contains("dsvg_") && acl.matches('=').count() <= 1, "{acl}");
    world.issued(&group, &world.account().0).await;
}

/// Before 16, members may become the group; later only by hand.
async fn what_a_group_owns_goes_to_the_keeper_with_nothing_lost(major: Major) {
    let world = World::new(major).await;
    let (other, there) = world.second_database().await;
    let far = format!("{other}.far.*");
    let group = world.group(&[("CREATE, USAGE", "shop.*"), ("CREATE, USAGE", far.as_str())]);
    world.ensure(&group).await.unwrap();
    let databases = [world.database.as_str(), other.as_str()];
    let before = snapshot::take(&world, &databases).await;
    let makes = |schema: &str| {
        format!(
            "SET ROLE {}; CREATE TABLE {schema}.left_behind (id int); INSERT INTO {schema}.left_behind VALUES (1); \
             CREATE FUNCTION {schema}.run() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; SELECT lo_create(0); \
             ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; RESET ROLE",
            group.name
        )
    };
    let (root, far_root) = (world.root().await, world.server.connect(&other).await.unwrap());
    root.batch_execute(&makes("shop")).await.unwrap();
    far_root.batch_execute(&makes("far")).await.unwrap();
    let dropped = world.drop_group(&group).await;
    assert!(
        matches!(
            dropped,
            Outcome::Done {
                done: Done::GroupDropped,
                ..
            }
        ),
        "{dropped:?}"
    );
    assert!(!world.exists(&group.name).await);
    for (client, schema, database) in [(&root, "shop", databases[0]), (&far_root, "far", databases[1])] {
        let sql = format!(
            "SELECT (SELECT count(*) FROM {schema}.left_behind), relowner::regrole::text FROM pg_class \
             WHERE oid = '{schema}.left_behind'::regclass"
        );
        let row = client.query_one(&sql, &[]).await.unwrap();
        assert_eq!(
            (row.get::<_, i64>(0), row.get::<_, String>(1)),
            (1, world.keeper(database).name)
        );
    }
    let after = snapshot::take(&world, &databases).await;
    for line in &snapshot::diff(&before, &after).0 {
        assert!(!line.contains(&group.name) && !line.contains("definer true"), "{line}");
        assert!(!line.contains("default privileges"), "{line}");
    }
    drop(there);
}

async fn a_role_of_its_name_without_our_comment_is_kept(major: Major) {
    let world = World::new(major).await;
    let root = world.root().await;
    let group = world.readers();
    world.ensure(&group).await.unwrap();
    root.batch_execute(&format!("COMMENT ON ROLE {} IS NULL", group.name))
        .await
        .unwrap();
    assert_eq!(failure(world.drop_group(&group).await).class, FailureClass::Foreign);
    assert!(world.exists(&group.name).await);
    root.batch_execute(&format!("COMMENT ON ROLE {} IS '{}'", group.name, group.comment))
        .await
        .unwrap();
    assert!(matches!(world.drop_group(&group).await, Outcome::Done { .. }));
}
