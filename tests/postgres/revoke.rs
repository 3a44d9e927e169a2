//! Revoking accounts.

use crate::on_each_release;
use crate::world::{World, in_seconds, revocation};
use dsv::channel::frames::AccountState;
use e2e::postgres::Major;

on_each_release! {
    a_revoked_account_is_gone_with_its_sessions
    absence_is_proof_only_after_the_issue_deadline
}

async fn a_revoked_account_is_gone_with_its_sessions(major: Major) {
    let world = World::new(major).await;
    let group = world.readers();
    for knows_oid in [true, false] {
        let (account, password) = world.account();
        let oid = world.issued(&group, &account).await;
        let session = world.try_as(&account, &password).await.unwrap();
        let state = world.revoke_one(&account, knows_oid.then_some(oid)).await;
        assert_eq!(
            state,
            AccountState::Gone {
                proven: false,
                dropped: true
            }
        );
        assert!(session.batch_execute("SELECT 1").await.is_err(), "the session lives on");
        assert!(!world.exists(&account.role).await);
        assert_eq!(world.sessions_of(oid).await, 0);
        assert!(world.try_as(&account, &password).await.is_err());
        let again = world.revoke_one(&account, Some(oid)).await;
        assert_eq!(
            again,
            AccountState::Gone {
                proven: false,
                dropped: false
            }
        );
    }
}

async fn absence_is_proof_only_after_the_issue_deadline(major: Major) {
    let world = World::new(major).await;
    let (mut account, _) = world.account();
    let early = world.revoke_one(&account, None).await;
    assert_eq!(
        early,
        AccountState::Gone {
            proven: false,
            dropped: false
        }
    );
    account.issue_deadline = in_seconds(-1);
    let late = world.revoke_one(&account, None).await;
    assert_eq!(
        late,
        AccountState::Gone {
            proven: true,
            dropped: false
        }
    );
    let _ = revocation(&account, None);
}
