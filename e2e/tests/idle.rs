//! What the operator costs the API server: nearly nothing while nothing happens, and a handful of writes for a credential.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use e2e::objects::text;
use e2e::say::say;
use e2e::scene::{Scene, sleep_until};
use e2e::stack::Stack;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Those who count take turns: what one does, the other would count.
static TURN: Mutex<()> = Mutex::const_new(());
const OPERATOR: &str = "system:serviceaccount:dsv-system:dsv-operator";

/// Writes that the API server took from the operator, as the audit log has them, leadership left out. Each as
/// `verb resource/name/subresource`.
fn writes(stack: &Stack) -> Vec<String> {
    let log = stack
        .cluster()
        .control_plane()
        .expect("counting needs a cluster of our own")
        .audit_log();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter(|event| text(event, "/user/username") == OPERATOR && text(event, "/stage") == "ResponseComplete")
        .filter(|event| text(event, "/objectRef/apiGroup") != "coordination.k8s.io")
        .map(|event| {
            let parts = ["resource", "name", "subresource"].map(|part| text(&event, &format!("/objectRef/{part}")));
            let parts: Vec<&str> = parts
                .iter()
                .map(String::as_str)
                .filter(|part| !part.is_empty())
                .collect();
            format!("{} {}", text(&event, "/verb"), parts.join("/"))
        })
        .collect()
}
