//! Removing group roles.

use crate::on_each_release;
use crate::world::{World, failure};
use dsv::channel::frames::{Done, FailureClass, Outcome};
use e2e::postgres::Major;

on_each_release! {
    a_dropped_group_leaves_nothing
    a_group_with_members_or_objects_is_kept
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

async fn a_group_with_members_or_objects_is_kept(major: Major) {
    let world = World::new(major).await;
    let root = world.root().await;
    let group = world.readers();
    world.ensure(&group).await.unwrap();
    root.batch_execute(&format!(
        "CREATE TABLE shop.left_behind (id int); ALTER TABLE shop.left_behind OWNER TO {}",
        group.name
    ))
    .await
    .unwrap();
    let failed = failure(world.drop_group(&group).await);
    assert!(failed.message.contains("left_behind"), "{}", failed.message);
    root.batch_execute("SELECT * FROM shop.left_behind").await.unwrap();
    root.batch_execute("DROP TABLE shop.left_behind").await.unwrap();
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
