//! The frames as released versions write them.
//!
//! IF A TEST IN THIS FILE FAILS, DO NOT CHANGE THE FILES UNDER `tests/wire/`: engines in the field speak that way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends that way")]

mod versions;

use dsv::channel::frames::{
    AccountState, CloseCode, Done, FailureClass, Outcome, OwnedObjects, SslMode, Task, ToEngine, ToOperator,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;

fn fixtures(prefix: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/v1");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            (
                path.file_stem().unwrap().to_str().unwrap().to_owned(),
                std::fs::read_to_string(path).unwrap(),
            )
        })
        .filter(|(name, _)| name.starts_with(prefix))
        .collect();
    files.sort();
    files
}

fn read<T: Serialize + DeserializeOwned + Debug>(prefix: &str) -> Vec<T> {
    let check = |(name, text): (String, String)| {
        let frame: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let written = serde_json::to_string_pretty(&frame).unwrap() + "\n";
        assert_eq!(written, text, "{name} is written differently now");
        frame
    };
    fixtures(prefix).into_iter().map(check).collect()
}

#[test]
fn every_frame_to_an_engine_reads_and_writes_as_in_version_1() {
    let frames: Vec<ToEngine> = read("to-engine.");
    let seen: BTreeSet<&str> = frames.iter().flat_map(|frame| names_to_engine(frame)).collect();
    let all = [
        "welcome",
        "task",
        "ping",
        "pong",
        "drain",
        "close",
        "close protocol",
        "close badFrame",
        "close notRegistered",
        "close disabled",
        "close replaced",
        "close silent",
        "close notLeading",
        "close stopping",
        "close other",
        "task echo",
        "task probe",
        "task ensureGroup",
        "task issue",
        "task revoke",
        "task keeper",
        "task dropGroup",
        "task inventory",
        "task sessions",
        "task guard",
        "task forget",
        "ssl disable",
        "ssl require",
        "ssl verify-ca",
        "ssl verify-full",
        "owned reassign",
        "owned drop",
    ];
    assert_eq!(seen, BTreeSet::from(all));
}

#[test]
fn every_frame_to_the_operator_reads_and_writes_as_in_version_1() {
    let frames: Vec<ToOperator> = read("to-operator.");
    let seen: BTreeSet<&str> = frames.iter().flat_map(|frame| names_to_operator(frame)).collect();
    let all = [
        "hello",
        "outcome",
        "ping",
        "pong",
        "leaving",
        "done echo",
        "done probe",
        "done issued",
        "done revoked",
        "done groupReady",
        "done groupDropped",
        "done inventory",
        "done sessions",
        "done groupNeedsKeepers",
        "done noted",
        "unknown",
        "unsupported",
        "failed unreachable",
        "failed loginRefused",
        "failed tlsRefused",
        "failed missingPrivilege",
        "failed objectMissing",
        "failed grantIncomplete",
        "failed tooLate",
        "failed foreign",
        "failed readOnly",
        "failed busy",
        "failed badTask",
        "failed server",
        "failed other",
        "account gone",
        "account blocked",
        "account needsKeeper",
        "account foreign",
        "account failed",
    ];
    assert_eq!(seen, BTreeSet::from(all));
}

#[test]
fn what_a_newer_version_adds_is_read_as_unknown_and_never_as_an_error() {
    let newer: ToEngine = serde_json::from_str(r#"{"type":"shout","volume":11}"#).unwrap();
    assert_eq!(newer, ToEngine::Unknown);
    let newer: ToOperator = serde_json::from_str(r#"{"type":"shout","volume":11}"#).unwrap();
    assert_eq!(newer, ToOperator::Unknown);
    let task = r#"{"type":"task","id":7,"patienceMs":1,"task":{"kind":"paint","colour":"red"},"urgent":true}"#;
    match serde_json::from_str(task).unwrap() {
        ToEngine::Task { id: 7, task, .. } => assert_eq!(*task, Task::Unknown),
        other => panic!("{other:?}"),
    }
    let close = r#"{"type":"close","code":"bored","reason":"r"}"#;
    assert!(matches!(
        serde_json::from_str(close).unwrap(),
        ToEngine::Close {
            code: CloseCode::Other,
            ..
        }
    ));
    let failed = r#"{"type":"outcome","id":7,"outcome":{"result":"failed","class":"cosmicRay","message":"m"}}"#;
    match serde_json::from_str(failed).unwrap() {
        ToOperator::Outcome {
            outcome: Outcome::Failed(failure),
            ..
        } => assert_eq!(failure.class, FailureClass::Other),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_frame_shows_a_secret_when_it_is_printed_for_debugging() {
    for frame in read::<ToEngine>("to-engine.") {
        let shown = format!("{frame:?}");
        assert!(
            !shown.contains("not-a-real-password") && !shown.contains("PRIVATE KEY"),
            "{shown}"
        );
    }
}

// The matches below have no catch-all arm: whoever adds a variant is sent here, to add its file and its name.

fn names_to_engine(frame: &ToEngine) -> Vec<&'static str> {
    match frame {
        ToEngine::Welcome { .. } => vec!["welcome"],
        ToEngine::Task { task, .. } => [vec!["task"], names_of_task(task)].concat(),
        ToEngine::Ping { .. } => vec!["ping"],
        ToEngine::Pong { .. } => vec!["pong"],
        ToEngine::Drain { .. } => vec!["drain"],
        ToEngine::Close { code, .. } => vec![
            "close",
            match code {
                CloseCode::Protocol => "close protocol",
                CloseCode::BadFrame => "close badFrame",
                CloseCode::NotRegistered => "close notRegistered",
                CloseCode::Disabled => "close disabled",
                CloseCode::Replaced => "close replaced",
                CloseCode::Silent => "close silent",
                CloseCode::NotLeading => "close notLeading",
                CloseCode::Stopping => "close stopping",
                CloseCode::Other => "close other",
            },
        ],
        ToEngine::Unknown => panic!("a file holds a frame that is not of this version"),
    }
}

fn names_of_task(task: &Task) -> Vec<&'static str> {
    let (name, server) = match task {
        Task::Echo => return vec!["task echo"],
        Task::Probe { server } => ("task probe", server),
        Task::EnsureGroup { server, .. } => ("task ensureGroup", server),
        Task::Issue { server, .. } => ("task issue", server),
        Task::Revoke {
            server,
            accounts,
            keepers,
            ..
        } => {
            let keepers = keepers.iter().map(|_| "task keeper");
            let owned = accounts.iter().map(|account| match account.owned_objects {
                OwnedObjects::Reassign => "owned reassign",
                OwnedObjects::Drop => "owned drop",
            });
            return owned
                .chain(keepers)
                .chain(["task revoke", name_of_mode(server.sslmode)])
                .collect();
        }
        Task::DropGroup { server, .. } => ("task dropGroup", server),
        Task::Inventory { server, .. } => ("task inventory", server),
        Task::Sessions { server, .. } => ("task sessions", server),
        Task::Guard { server, .. } => ("task guard", server),
        Task::Forget { .. } => return vec!["task forget"],
        Task::Unknown => panic!("a file holds a task that is not of this version"),
    };
    vec![name, name_of_mode(server.sslmode)]
}

fn name_of_mode(mode: SslMode) -> &'static str {
    match mode {
        SslMode::Disable => "ssl disable",
        SslMode::Require => "ssl require",
        SslMode::VerifyCa => "ssl verify-ca",
        SslMode::VerifyFull => "ssl verify-full",
    }
}

fn names_to_operator(frame: &ToOperator) -> Vec<&'static str> {
    match frame {
        ToOperator::Hello { .. } => vec!["hello"],
        ToOperator::Outcome { outcome, .. } => [vec!["outcome"], names_of_outcome(outcome)].concat(),
        ToOperator::Ping { .. } => vec!["ping"],
        ToOperator::Pong { .. } => vec!["pong"],
        ToOperator::Leaving { .. } => vec!["leaving"],
        ToOperator::Unknown => panic!("a file holds a frame that is not of this version"),
    }
}

fn names_of_outcome(outcome: &Outcome) -> Vec<&'static str> {
    match outcome {
        Outcome::Done { done: Done::Echo, .. } => vec!["done echo"],
        Outcome::Done {
            done: Done::Probe(_), ..
        } => vec!["done probe"],
        Outcome::Done {
            done: Done::Issued { .. },
            ..
        } => vec!["done issued"],
        Outcome::Done {
            done: Done::GroupReady, ..
        } => vec!["done groupReady"],
        Outcome::Done {
            done: Done::GroupDropped,
            ..
        } => vec!["done groupDropped"],
        Outcome::Done { done: Done::Noted, .. } => vec!["done noted"],
        Outcome::Done {
            done: Done::Inventory(_),
            ..
        } => vec!["done inventory"],
        Outcome::Done {
            done: Done::Sessions { .. },
            ..
        } => vec!["done sessions"],
        Outcome::Done {
            done: Done::GroupNeedsKeepers { .. },
            ..
        } => vec!["done groupNeedsKeepers"],
        Outcome::Done {
            done: Done::Revoked { accounts, .. },
            ..
        } => {
            let states = accounts.iter().map(|account| match account.state {
                AccountState::Gone { .. } => "account gone",
                AccountState::Blocked { .. } => "account blocked",
                AccountState::NeedsKeeper => "account needsKeeper",
                AccountState::Foreign { .. } => "account foreign",
                AccountState::Failed(_) => "account failed",
            });
            states.chain(["done revoked"]).collect()
        }
        Outcome::Failed(failure) => vec![name_of_class(failure.class)],
        Outcome::Unknown { .. } => vec!["unknown"],
        Outcome::Unsupported => vec!["unsupported"],
    }
}

fn name_of_class(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Unreachable => "failed unreachable",
        FailureClass::LoginRefused => "failed loginRefused",
        FailureClass::TlsRefused => "failed tlsRefused",
        FailureClass::MissingPrivilege => "failed missingPrivilege",
        FailureClass::ObjectMissing => "failed objectMissing",
        FailureClass::GrantIncomplete => "failed grantIncomplete",
        FailureClass::TooLate => "failed tooLate",
        FailureClass::Foreign => "failed foreign",
        FailureClass::ReadOnly => "failed readOnly",
        FailureClass::Busy => "failed busy",
        FailureClass::BadTask => "failed badTask",
        FailureClass::Server => "failed server",
        FailureClass::Other => "failed other",
    }
}
