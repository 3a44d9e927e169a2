//! Taking back without an operator: what is past its end by its signed comment, of the own installation, and nothing else.

use crate::on_each_release;
use crate::world::{INSTALLATION, World};
use dsv::api::names;
use dsv::channel::frames::Account;
use dsv::keys::{Password, RoleComment, RoleKind, SigningKey};
use dsv::postgres::Swept;
use e2e::postgres::Major;
use jiff::{SignedDuration, Timestamp};
use std::fmt::Write as _;

on_each_release! {
    only_what_is_past_its_end_is_taken_back
    nothing_of_others_is_touched
    what_resists_is_locked_and_stays_on_the_list
}

/// Signed by this key for this installation, with its end so many seconds from now.
pub fn ending_in(world: &World, key: &SigningKey, installation: &str, seconds: i64) -> (Account, Password) {
    let (account, password) = world.account();
    let now = Timestamp::now();
    let comment = RoleComment {
        kind: RoleKind::Lease,
        installation: installation.to_owned(),
        subject: account.lease_uid.clone(),
        role: account.role.clone(),
        claimed_at: now - SignedDuration::from_hours(1),
        expires_at: Some(now + SignedDuration::from_secs(seconds)),
    };
    let comment = comment.sign(key).unwrap();
    (Account { comment, ..account }, password)
}

async fn issued(world: &World, seconds: i64) -> (Account, Password) {
    let (account, password) = ending_in(world, &world.key, INSTALLATION, seconds);
    world.issued(&world.readers(), &account).await;
    (account, password)
}

fn counts(swept: Swept) -> (usize, usize) {
    (swept.revoked, swept.resisting)
}

async fn only_what_is_past_its_end_is_taken_back(major: Major) {
    let world = World::new(major).await;
    let (over, password) = issued(&world, -31).await;
    let (lately, _) = issued(&world, -20).await;
    let (live, live_password) = issued(&world, 3600).await;
    let session = world.try_as(&over, &password).await.unwrap();
    let living = world.try_as(&live, &live_password).await.unwrap();
    assert_eq!(
        world.servers.revoke_expired().await,
        Swept::default(),
        "it knows no server"
    );
    assert!(world.exists(&over.role).await);

    world.servers.guard(&world.login(), &world.signers());
    let swept = world.servers.revoke_expired().await;
    assert_eq!(counts(swept), (1, 0));
    let pause = swept.pause.unwrap();
    assert!(
        pause > SignedDuration::from_secs(1) && pause < SignedDuration::from_secs(11),
        "the next account is due in ten seconds: {pause:?}"
    );
    assert!(!world.exists(&over.role).await);
    assert!(session.batch_execute("SELECT 1").await.is_err(), "the session lives on");
    assert!(world.exists(&lately.role).await, "the operator has thirty seconds");
    living.batch_execute("SELECT * FROM shop.orders").await.unwrap();
    assert_eq!(counts(world.servers.revoke_expired().await), (0, 0));

    let (again, _) = issued(&world, -40).await;
    world.servers.forget_except(&["another".to_owned()]);
    assert_eq!(
        (world.servers.guarded(), world.servers.revoke_expired().await),
        (0, Swept::default())
    );
    assert!(world.exists(&again.role).await, "the login is forgotten");
}

async fn nothing_of_others_is_touched(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    let strange = SigningKey::generate().unwrap();
    let mut others = vec![
        ending_in(&world, &world.key, "the-clone", -3600).0,
        ending_in(&world, &strange, INSTALLATION, -3600).0,
        world.account().0,
    ];
    for account in &others {
        world.issued(&group, account).await;
    }
    let (altered, _) = ending_in(&world, &world.key, INSTALLATION, 3600);
    world.issued(&group, &altered).await;
    let year = Timestamp::now().to_string()[..4].to_owned();
    let forged = altered.comment.replace(&format!("expires={year}"), "expires=2020");
    assert_ne!(forged, altered.comment);
    let root = world.root().await;
    let sql = format!("COMMENT ON ROLE \"{}\" IS '{forged}'", altered.role);
    root.batch_execute(&sql).await.unwrap();
    others.push(altered);
    world.servers.guard(&world.login(), &world.signers());
    assert_eq!(counts(world.servers.revoke_expired().await), (0, 0));
    for other in &others {
        assert!(world.exists(&other.role).await, "{}", other.comment);
    }
}

async fn what_resists_is_locked_and_stays_on_the_list(major: Major) {
    let world = World::new(major).await;
    let (account, _) = issued(&world, -31).await;
    let root = world.root().await;
    root.batch_execute(&format!(
        "CREATE TABLE shop.kept (id int); ALTER TABLE shop.kept OWNER TO \"{0}\"; \
         ALTER ROLE \"{0}\" RENAME TO renamed_{1}",
        account.role, world.database
    ))
    .await
    .unwrap();
    world.servers.guard(&world.login(), &world.signers());
    let swept = world.servers.revoke_expired().await;
    assert_eq!(
        swept.revoked + swept.resisting,
        1,
        "it was found by its comment: {swept:?}"
    );
    root.batch_execute("SELECT * FROM shop.kept").await.unwrap();
    let can = "SELECT count(*) FROM pg_roles WHERE rolname = $1 AND rolcanlogin";
    let name = format!("renamed_{}", world.database);
    assert_eq!(root.query_one(can, &[&name]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn among_a_thousand_live_accounts_the_one_past_its_end_is_found() {
    let world = World::new(Major::V15).await;
    let mut sql = String::new();
    for _ in 0..1005 {
        let (account, _) = ending_in(&world, &world.key, INSTALLATION, 3600);
        write!(
            sql,
            "CREATE ROLE \"{0}\"; COMMENT ON ROLE \"{0}\" IS '{1}';",
            account.role, account.comment
        )
        .unwrap();
    }
    world.as_issuer().await.batch_execute(&sql).await.unwrap();
    let (over, _) = issued(&world, -31).await;
    world.servers.guard(&world.login(), &world.signers());
    assert_eq!(counts(world.servers.revoke_expired().await), (1, 0));
    assert!(!world.exists(&over.role).await);
    let (suffix, root) = (names::base32_uid(&over.lease_uid).unwrap(), world.root().await);
    let left = "SELECT count(*) FROM pg_roles WHERE right(rolname, 26) = $1";
    assert_eq!(root.query_one(left, &[&suffix]).await.unwrap().get::<_, i64>(0), 0);
    let live = "SELECT count(*) FROM pg_shdescription WHERE starts_with(description, 'dsv/1 kind=lease')";
    assert!(root.query_one(live, &[]).await.unwrap().get::<_, i64>(0) >= 1005);
}
