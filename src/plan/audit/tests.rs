use super::*;
use crate::keys::{RoleKind, SigningKey};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn comment(kind: RoleKind, subject: &str, role: &str) -> RoleComment {
    RoleComment {
        kind,
        installation: "here".into(),
        subject: subject.into(),
        role: role.into(),
        claimed_at: at(0),
        expires_at: (kind == RoleKind::Lease).then(|| at(100)),
    }
}

/// The account of lease `uid` as it was issued: named `a-<uid>`, in group `g`, with OID 10 and end 100.
fn account(uid: &str) -> RoleSeen {
    let name = format!("a-{uid}");
    RoleSeen {
        said: comment(RoleKind::Lease, uid, &name),
        role: InventoryRole {
            oid: 10,
            name,
            comment: "signed".into(),
            can_log_in: true,
            valid_until: Some(at(100)),
            inherits: true,
            member_of: vec!["g".into()],
            ..InventoryRole::default()
        },
    }
}

fn group(name: &str) -> RoleSeen {
    RoleSeen {
        said: comment(RoleKind::Group, "ds", name),
        role: InventoryRole {
            oid: 99,
            name: name.into(),
            comment: "signed".into(),
            inherits: true,
            ..InventoryRole::default()
        },
    }
}

fn lease(uid: &str, stage: Stage) -> LeaseSeen {
    LeaseSeen {
        uid: uid.into(),
        name: ("shop".into(), format!("lease-{uid}")),
        server: "server-1".into(),
        role: format!("a-{uid}"),
        group: "g".into(),
        role_oid: Some(10),
        valid_until: at(100),
        stage,
        known_before: true,
    }
}

/// A table's row: everything that was seen, to be changed.
struct Case {
    roles: Vec<RoleSeen>,
    leases: Vec<LeaseSeen>,
    groups: BTreeSet<String>,
    lost: BTreeSet<String>,
    released: BTreeSet<String>,
    history_changed: bool,
    now: i64,
}

impl Case {
    fn new(roles: Vec<RoleSeen>, leases: Vec<LeaseSeen>) -> Self {
        Self {
            roles,
            leases,
            groups: BTreeSet::from(["g".to_owned()]),
            lost: BTreeSet::new(),
            released: BTreeSet::new(),
            history_changed: false,
            now: 50,
        }
    }

    fn judge(&self) -> Findings {
        judge(&Observed {
            server: "server-1",
            roles: &self.roles,
            leases: &self.leases,
            groups: &self.groups,
            lost: &self.lost,
            released: &self.released,
            history_changed: self.history_changed,
            now: at(self.now),
        })
    }

    fn because(&self) -> Vec<Because> {
        self.judge().orphans.iter().map(|orphan| orphan.because).collect()
    }
}

fn set(uid: &str) -> BTreeSet<String> {
    BTreeSet::from([uid.to_owned()])
}

#[test]
fn an_account_with_its_lease_is_left_alone_in_every_stage() {
    for stage in [Stage::Pending, Stage::Live, Stage::Ending] {
        let case = Case::new(vec![group("g"), account("1")], vec![lease("1", stage)]);
        let expected = Findings {
            accounts: 1,
            groups: set("g"),
            ..Findings::default()
        };
        assert_eq!(case.judge(), expected, "{stage:?}");
    }
}

#[test]
fn an_account_without_a_lease_goes_for_a_reason_or_is_left_to_its_end() {
    let case = || Case::new(vec![account("1")], vec![]);
    assert_eq!(case().because(), []);
    assert_eq!(case().judge().unknown.len(), 1);
    assert_eq!(case().judge().next_end(), Some(at(100)));
    assert_eq!(Case { now: 100, ..case() }.because(), [Because::Expired]);
    let lost = Case {
        lost: set("1"),
        ..case()
    };
    assert_eq!(lost.because(), [Because::LeaseDeleted]);
    let back = Case {
        history_changed: true,
        ..case()
    };
    assert_eq!(back.because(), [Because::HistoryChanged]);
    for case in [lost, back] {
        assert!(case.judge().unknown.is_empty());
    }
}

#[test]
fn an_account_whose_lease_was_released_after_the_look_is_no_finding() {
    for (now, history_changed) in [(50, true), (100, false)] {
        let case = Case {
            released: set("1"),
            now,
            history_changed,
            ..Case::new(vec![account("1")], vec![])
        };
        assert!(case.judge().orphans.is_empty() && case.judge().unknown.is_empty());
    }
}

#[test]
fn a_lease_of_another_server_record_accounts_for_its_role() {
    let elsewhere = LeaseSeen {
        server: "server-2".into(),
        ..lease("1", Stage::Live)
    };
    let mut case = Case::new(vec![account("1")], vec![elsewhere]);
    assert!(case.judge().orphans.is_empty() && case.judge().unknown.is_empty());
    case.roles.clear();
    assert!(case.judge().broken.is_empty(), "its own server is asked for it");
}

#[test]
fn only_a_live_lease_that_was_known_before_the_look_can_miss_its_role() {
    let missing = |lease: LeaseSeen| Case::new(vec![], vec![lease]).judge().broken;
    let found = missing(lease("1", Stage::Live));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].fault, Fault::Missing);
    for stage in [Stage::Pending, Stage::Ending, Stage::Locked] {
        assert!(missing(lease("1", stage)).is_empty(), "{stage:?}");
    }
    let young = LeaseSeen {
        known_before: false,
        ..lease("1", Stage::Live)
    };
    assert!(missing(young).is_empty(), "it may have come between two pages");
}

#[test]
fn every_change_by_hand_is_told() {
    type Edit = fn(&mut InventoryRole);
    let rows: [(Edit, Change); 9] = [
        (|role| role.name = "x".into(), Change::Renamed("x".into())),
        (|role| role.can_log_in = false, Change::NoLogin),
        (|role| role.valid_until = None, Change::OtherEnd(None)),
        (|role| role.valid_until = Some(at(101)), Change::OtherEnd(Some(at(101)))),
        (|role| role.privileged = true, Change::Privileged),
        (|role| role.inherits = false, Change::NoInherit),
        (|role| role.member_of.clear(), Change::NotInGroup),
        (
            |role| role.member_of.push("x".into()),
            Change::MemberOf(vec!["x".into()]),
        ),
        (|role| role.members.push("x".into()), Change::Members(vec!["x".into()])),
    ];
    for (edit, change) in rows {
        let mut changed = account("1");
        edit(&mut changed.role);
        let case = |stage| Case::new(vec![changed.clone()], vec![lease("1", stage)]);
        let found = case(Stage::Live).judge().broken;
        assert_eq!(found.len(), 1, "{change}");
        assert_eq!(found[0].fault, Fault::Altered(vec![change.clone()]));
        assert!(
            case(Stage::Ending).judge().broken.is_empty(),
            "what is being taken back is changed by us: {change}"
        );
    }
}

#[test]
fn a_locked_account_that_can_log_in_again_is_found() {
    let case = Case::new(vec![account("1")], vec![lease("1", Stage::Locked)]);
    assert_eq!(case.judge().unlocked.len(), 1);
    let mut locked = account("1");
    locked.role.can_log_in = false;
    assert!(
        Case::new(vec![locked], vec![lease("1", Stage::Locked)])
            .judge()
            .unlocked
            .is_empty()
    );
}

#[test]
fn a_copied_comment_makes_no_role_ours() {
    let mut copy = account("1");
    (copy.role.oid, copy.role.name) = (11, "payroll".into());
    let with_lease = Case::new(vec![account("1"), copy.clone()], vec![lease("1", Stage::Live)]);
    let copied = |case: &Case| (case.judge().copies, case.judge().orphans, case.judge().broken);
    assert_eq!(copied(&with_lease), (vec!["payroll".to_owned()], vec![], vec![]));
    // Without the original the lease knows the OID, and the copy does not stand in for the account.
    let alone = Case::new(vec![copy.clone()], vec![lease("1", Stage::Live)]);
    assert_eq!(alone.judge().copies, ["payroll"]);
    assert_eq!(alone.judge().broken[0].fault, Fault::Missing);
    // Without a lease the name that the comment was made for tells.
    let orphaned = Case {
        now: 100,
        ..Case::new(vec![account("1"), copy], vec![])
    };
    assert_eq!(orphaned.judge().copies, ["payroll"]);
    assert_eq!(orphaned.judge().orphans.len(), 1);
    assert_eq!(orphaned.judge().orphans[0].oid, 10);
}

#[test]
fn a_renamed_account_without_a_lease_is_still_ours() {
    let mut renamed = account("1");
    renamed.role.name = "x".into();
    let case = Case {
        now: 100,
        ..Case::new(vec![renamed], vec![])
    };
    assert_eq!(case.judge().orphans[0].role, "x");
}

#[test]
fn a_group_goes_only_when_nobody_needs_it() {
    let bare = || {
        let mut case = Case::new(vec![group("g")], vec![]);
        case.groups.clear();
        case
    };
    let found = bare().judge();
    assert_eq!(found.orphan_groups.len(), 1);
    assert_eq!(found.orphan_groups[0].dynamic_secret, "ds");
    assert!(!found.is_empty_server(), "a group is still there");
    let mut member = bare();
    member.roles.push(account("1"));
    let mut stranger = bare();
    stranger.roles[0].role.members.push("analyst".into());
    let leased = Case {
        leases: vec![lease("1", Stage::Pending)],
        ..bare()
    };
    for case in [&member, &stranger, &leased] {
        assert!(case.judge().orphan_groups.is_empty());
    }
    assert_eq!(stranger.judge().joined, [("g".to_owned(), vec!["analyst".to_owned()])]);
    let mut renamed = bare();
    renamed.roles[0].role.name = "x".into();
    assert_eq!(renamed.judge().copies, ["x"], "a renamed group is left alone");
}

#[test]
fn only_what_an_own_key_signed_for_this_installation_is_ours() {
    let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let signed = |key: &SigningKey, installation: &str| InventoryRole {
        name: format!("of {installation}"),
        comment: RoleComment {
            installation: installation.into(),
            ..comment(RoleKind::Lease, "1", "a-1")
        }
        .sign(key)
        .unwrap(),
        ..InventoryRole::default()
    };
    let mut forged = signed(&key, "here");
    forged.comment = forged.comment.replace("subject=1", "subject=2");
    let roles = vec![
        signed(&key, "here"),
        signed(&key, "elsewhere"),
        signed(&other, "here"),
        signed(&other, "elsewhere"),
        forged,
        InventoryRole {
            comment: "dsv/1 nonsense".into(),
            ..InventoryRole::default()
        },
    ];
    let (seen, strangers) = ours(roles, &[key.public()], "here");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].role.name, "of here");
    assert_eq!(seen[0].role.comment, "", "it has said what it says");
    assert_eq!(strangers.foreign, 4);
    assert_eq!(strangers.unverified, ["of here"], "of a key that is not known");
}

/// Findings of a server with `of` accounts, of which `early` are to end before their time.
fn much(early: usize, of: usize) -> Findings {
    let orphan = |number: usize| Orphan {
        lease_uid: number.to_string(),
        role: String::new(),
        oid: 0,
        claimed_at: at(0),
        because: Because::LeaseDeleted,
    };
    Findings {
        accounts: of,
        orphans: (0..early).map(orphan).collect(),
        ..Findings::default()
    }
}

#[test]
fn more_than_twenty_or_a_tenth_at_once_wait() {
    for (early, of, waits) in [
        (0, 0, false),
        (1, 1, false),
        (3, 3, false),
        (4, 4, true),
        (4, 40, false),
        (4, 39, true),
        (20, 200, false),
        (20, 199, true),
        (21, 10_000, true),
    ] {
        assert_eq!(
            brake(&much(early, of), false, None, &[]).is_some(),
            waits,
            "{early} of {of}"
        );
    }
    let mut expired = much(1000, 1000);
    for orphan in &mut expired.orphans {
        orphan.because = Because::Expired;
    }
    assert_eq!(
        brake(&expired, false, None, &[]),
        None,
        "what is past its end is never braked"
    );
    let leases = (0..5).map(|number| lease(&number.to_string(), Stage::Live)).collect();
    let missing = Case::new(vec![], leases).judge();
    let braked = brake(&missing, false, None, &[]).unwrap();
    assert_eq!((braked.count, braked.of), (5, 5), "leases count as well");
}

#[test]
fn a_confirmation_is_for_what_was_shown_and_nothing_more() {
    let shown = brake(&much(30, 30), false, None, &[]).unwrap();
    let value = shown.value.as_str();
    assert_eq!(brake(&much(30, 30), false, Some(&shown), &[value]), None);
    assert_eq!(
        brake(&much(25, 25), false, Some(&shown), &[]).unwrap().value,
        value,
        "some have reached their end; the value stays"
    );
    assert_eq!(brake(&much(25, 25), false, Some(&shown), &[value]), None);
    let more = brake(&much(31, 31), false, Some(&shown), &[value]).unwrap();
    assert_ne!(more.value, value);
    assert_eq!(more.uids.len(), 31);
    assert!(brake(&much(30, 30), false, Some(&shown), &["true"]).is_some());
}

#[test]
fn on_another_server_than_the_books_were_made_with_everything_waits() {
    assert!(brake(&much(1, 1000), true, None, &[]).is_some());
    assert_eq!(brake(&much(0, 1000), true, None, &[]), None);
    let shown = brake(&much(2, 2), true, None, &[]).unwrap();
    assert_eq!(brake(&much(2, 2), true, Some(&shown), &[&shown.value]), None);
}
