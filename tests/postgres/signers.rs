//! Whose roles are ours: those of our installation, by whichever of our keys they were signed, and no other's.

use crate::on_each_release;
use crate::world::{DROPPED, INSTALLATION, PATIENCE, World, failure, revocation};
use dsv::channel::frames::{AccountState, Done, FailureClass, Outcome};
use dsv::keys::{RoleComment, RoleKind, SigningKey};
use dsv::postgres::Signers;
use e2e::postgres::Major;

on_each_release! {
    a_rotated_key_orphans_no_account_and_no_group
    a_clone_with_the_same_key_touches_nothing_of_ours
}

async fn a_rotated_key_orphans_no_account_and_no_group(major: Major) {
    let mut world = World::new(major).await;
    let group = world.readers();
    let (account, password) = world.account();
    let oid = world.issued(&group, &account).await;
    let old = std::mem::replace(&mut world.key, SigningKey::generate().unwrap());
    let mut renewed = world.readers();
    assert_ne!(renewed.comment, group.comment);
    assert_eq!(
        failure(world.issue(&renewed, &world.account().0).await).class,
        FailureClass::Foreign,
        "without the old key nobody can tell whose group it is"
    );
    renewed.signers.push(old.public().to_string());
    world.ensure(&renewed).await.unwrap();
    let (next, _) = world.account();
    let next_oid = world.issued(&renewed, &next).await;
    assert_eq!(
        world.comment_of(&group.name).await.as_ref(),
        Some(&group.comment),
        "the group stays as it is"
    );
    let refused = failure(world.issue(&renewed, &account_signed_by(&world, &account)).await);
    assert_eq!(
        refused.class,
        FailureClass::Foreign,
        "an account is adopted byte for byte only"
    );
    let wanted = [revocation(&account, Some(oid))];
    assert!(matches!(world.revoke(&wanted).await[0], AccountState::Foreign { .. }));
    world.try_as(&account, &password).await.unwrap();
    let both = Signers::new(INSTALLATION, &[world.key.public(), old.public()]);
    let wanted = [revocation(&account, Some(oid)), revocation(&next, Some(next_oid))];
    match world.servers.revoke(&world.login(), &both, &wanted, &[]).await {
        Outcome::Done {
            done: Done::Revoked { accounts, .. },
            ..
        } => assert!(accounts.iter().all(|account| account.state == DROPPED), "{accounts:?}"),
        other => panic!("{other:?}"),
    }
    let dropped = world.servers.drop_group(&world.login(), &both, &renewed, &[]).await;
    assert!(matches!(dropped, Outcome::Done { .. }), "{dropped:?}");
    assert!(!world.exists(&group.name).await);
}

/// The same account, signed by the world's present key.
fn account_signed_by(world: &World, account: &dsv::channel::frames::Account) -> dsv::channel::frames::Account {
    dsv::channel::frames::Account {
        comment: world.sign(RoleKind::Lease, &account.lease_uid, &account.role),
        ..account.clone()
    }
}

async fn a_clone_with_the_same_key_touches_nothing_of_ours(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    let (account, password) = world.account();
    let oid = world.issued(&group, &account).await;
    let session = world.try_as(&account, &password).await.unwrap();
    let clone = Signers::new("the-clone", &[world.key.public()]);
    let login = world.login();
    match world
        .servers
        .revoke(&login, &clone, &[revocation(&account, Some(oid))], &[])
        .await
    {
        Outcome::Done {
            done: Done::Revoked { accounts, .. },
            ..
        } => assert!(
            matches!(accounts[0].state, AccountState::Foreign { .. }),
            "{accounts:?}"
        ),
        other => panic!("{other:?}"),
    }
    session.batch_execute("SELECT * FROM shop.orders").await.unwrap();
    let comment = RoleComment {
        kind: RoleKind::Group,
        installation: "the-clone".into(),
        subject: "8d3f1c7e-0000-4000-8000-000000000001".into(),
        role: group.name.clone(),
        claimed_at: "2026-11-22T10:00:00Z".parse().unwrap(),
        expires_at: None,
    };
    let of_clone = dsv::channel::frames::Group {
        comment: comment.sign(&world.key).unwrap(),
        ..group.clone()
    };
    let refused = world.servers.ensure_group(&login, &of_clone, PATIENCE).await;
    assert_eq!(refused.unwrap_err().class, FailureClass::Foreign);
    let refused = failure(world.servers.drop_group(&login, &clone, &of_clone, &[]).await);
    assert_eq!(refused.class, FailureClass::Foreign);
    assert_eq!(world.revoke_one(&account, Some(oid)).await, DROPPED);
}
