//! What an inventory shows, and the sweep of sessions that outlived their account.

use crate::on_each_release;
use crate::world::{PATIENCE, World, in_seconds};
use dsv::channel::frames::{InventoryPage, InventoryRole};
use dsv::keys::{RoleComment, RoleKind};
use e2e::postgres::Major;
use std::collections::BTreeSet;
use std::time::Duration;

on_each_release! {
    an_inventory_shows_accounts_and_groups_as_they_are
    what_was_changed_by_hand_shows
    only_sessions_of_recorded_accounts_without_a_role_are_ended
    the_sessions_of_an_account_are_counted_in_every_database
}

async fn page(world: &World, after: Option<u32>) -> InventoryPage {
    let (page, clock) = world.servers.inventory(&world.login(), after, PATIENCE).await.unwrap();
    let off = clock.now.duration_since(in_seconds(0)).abs();
    assert!(off.as_secs() < 5, "the clock is off by {off:?}");
    page
}

/// Every page, one after the other.
async fn pages(world: &World) -> Vec<InventoryPage> {
    let mut pages = vec![page(world, None).await];
    while let Some(next) = pages.last().unwrap().next {
        pages.push(page(world, Some(next)).await);
    }
    pages
}

/// The roles of this test's own key; others use the same server.
async fn ours(world: &World) -> Vec<(InventoryRole, RoleComment)> {
    let key = world.key.public();
    let roles = pages(world).await.into_iter().flat_map(|page| page.roles);
    roles
        .filter_map(|role| {
            let said = RoleComment::verify(&role.comment, &[key]).ok()?;
            Some((role, said))
        })
        .collect()
}

async fn an_inventory_shows_accounts_and_groups_as_they_are(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    let (mut account, _) = world.account();
    account.valid_until = "2030-01-02T03:04:05Z".parse().unwrap();
    let oid = world.issued(&group, &account).await;
    let seen = ours(&world).await;
    assert_eq!(seen.len(), 2, "{seen:?}");
    let of = |kind: RoleKind| &seen.iter().find(|(_, said)| said.kind == kind).unwrap().0;
    let expected = InventoryRole {
        oid,
        name: account.role.clone(),
        comment: account.comment.clone(),
        can_log_in: true,
        valid_until: Some(account.valid_until),
        privileged: false,
        inherits: true,
        member_of: vec![group.name.clone()],
        members: vec![],
    };
    assert_eq!(*of(RoleKind::Lease), expected);
    let role = of(RoleKind::Group);
    assert_eq!((role.name.as_str(), role.can_log_in), (group.name.as_str(), false));
    assert_eq!(role.valid_until, None);
    assert!(
        role.members.is_empty(),
        "accounts and the login itself are no strangers: {role:?}"
    );
    let identity = page(&world, None).await;
    assert!(identity.system_identifier.is_some());
    assert_eq!(identity.timeline, Some(1));
}

async fn what_was_changed_by_hand_shows(major: Major) {
    let world = World::new(major).await;
    let root = world.root().await;
    let group = world.readers();
    let (account, _) = world.account();
    let oid = world.issued(&group, &account).await;
    let other = format!("person_{}", world.database);
    root.batch_execute(&format!(
        "CREATE ROLE {other}; CREATE ROLE {other}_group; GRANT {role} TO {other}; GRANT {other}_group TO {role}; \
         GRANT {group} TO {other}; ALTER ROLE {role} NOLOGIN NOINHERIT CREATEDB VALID UNTIL 'infinity'; \
         ALTER ROLE {role} RENAME TO {other}_renamed",
        role = format_args!("\"{}\"", account.role),
        group = group.name,
    ))
    .await
    .unwrap();
    let seen = ours(&world).await;
    let of = |kind: RoleKind| &seen.iter().find(|(_, said)| said.kind == kind).unwrap().0;
    let role = of(RoleKind::Lease);
    assert_eq!((role.oid, role.name.clone()), (oid, format!("{other}_renamed")));
    assert!(!role.can_log_in && !role.inherits && role.privileged);
    assert_eq!(role.valid_until, None, "infinity is no time");
    assert_eq!(
        role.member_of.iter().collect::<BTreeSet<_>>(),
        BTreeSet::from([&group.name, &format!("{other}_group")])
    );
    assert_eq!(role.members, std::slice::from_ref(&other));
    assert_eq!(of(RoleKind::Group).members, [other]);
}

/// A session of a role that was dropped by hand is ended if the role was one of ours, and only then.
async fn only_sessions_of_recorded_accounts_without_a_role_are_ended(major: Major) {
    let world = World::new(major).await;
    let root = world.root().await;
    assert_eq!(world.servers.end_zombies().await, 0, "nothing is known yet");
    let group = world.readers();
    let (account, password) = world.account();
    let oid = world.issued(&group, &account).await;
    let (living, living_password) = world.account();
    world.issued(&group, &living).await;
    let stranger = e2e::postgres::Login {
        user: format!("stranger_{}", world.database),
        password: e2e::postgres::random_password(),
    };
    root.batch_execute(&format!(
        "CREATE ROLE {} LOGIN PASSWORD '{}'",
        stranger.user, stranger.password
    ))
    .await
    .unwrap();
    let ours = world.try_as(&account, &password).await.unwrap();
    let lives = world.try_as(&living, &living_password).await.unwrap();
    let theirs = world.server.connect_as(&stranger, &world.database).await.unwrap();
    assert_eq!(world.servers.end_zombies().await, 0, "both accounts exist");
    root.batch_execute(&format!("DROP ROLE \"{}\"; DROP ROLE {}", account.role, stranger.user))
        .await
        .unwrap();
    ours.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(world.servers.end_zombies().await, 1);
    assert!(ours.batch_execute("SELECT 1").await.is_err(), "the session lives on");
    assert_eq!(world.sessions_of(oid).await, 0);
    theirs.batch_execute("SELECT 1").await.unwrap();
    lives.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(world.servers.end_zombies().await, 0);
    // A login that it was told to keep is used, however long no task came.
    world.servers.guard(&world.login(), &world.signers());
    world.servers.forget_idle(Duration::ZERO);
    root.batch_execute(&format!("DROP ROLE \"{}\"", living.role))
        .await
        .unwrap();
    assert_eq!(world.servers.end_zombies().await, 1);
    assert!(lives.batch_execute("SELECT 1").await.is_err());
}

/// Pages follow each other by OID; nothing is left out and nothing comes twice, and each page fits a frame.
#[tokio::test]
async fn many_roles_come_in_pages() {
    let world = World::new(Major::of_this_machine()).await;
    let group = world.readers();
    let (accounts, _) = world.accounts(250);
    world.ensure(&group).await.unwrap();
    let root = world.root().await;
    for account in &accounts {
        root.batch_execute(&format!(
            "CREATE ROLE \"{role}\" IN ROLE {group}; COMMENT ON ROLE \"{role}\" IS '{comment}'",
            role = account.role,
            group = group.name,
            comment = account.comment
        ))
        .await
        .unwrap();
    }
    let pages = pages(&world).await;
    assert!(pages.len() >= 3, "{} pages", pages.len());
    let oids: Vec<u32> = pages
        .iter()
        .flat_map(|page| page.roles.iter().map(|role| role.oid))
        .collect();
    assert!(oids.is_sorted_by(|a, b| a < b), "{oids:?}");
    let seen = ours(&world).await;
    let names: BTreeSet<&str> = seen.iter().map(|(role, _)| role.name.as_str()).collect();
    assert_eq!(names.len(), 251);
    assert!(accounts.iter().all(|account| names.contains(account.role.as_str())));
    // What somebody else wrote into a comment is cut, not obeyed.
    root.batch_execute(&format!(
        "COMMENT ON ROLE \"{}\" IS 'dsv/1 {}'",
        accounts[0].role,
        "x".repeat(50_000)
    ))
    .await
    .unwrap();
    let longest = page(&world, None)
        .await
        .roles
        .iter()
        .map(|role| role.comment.len())
        .max();
    assert!(longest.unwrap() <= 1100);
    assert_eq!(ours(&world).await.len(), 250);
}

async fn the_sessions_of_an_account_are_counted_in_every_database(major: Major) {
    let world = World::new(major).await;
    let (account, password) = world.account();
    world.issued(&world.readers(), &account).await;
    let count = async || {
        let counted = world.servers.sessions(&world.login(), &account.role, PATIENCE).await;
        counted.unwrap().0
    };
    assert_eq!(count().await, 0);
    let one = world.try_as(&account, &password).await.unwrap();
    let _other = world.enter(&account, &password, "postgres").await.unwrap();
    assert_eq!(count().await, 2);
    drop(one);
    // The server notices a moment later.
    for _ in 0..600 {
        if count().await == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("a session that ended is still counted");
}
