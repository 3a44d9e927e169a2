//! A namespace that no pool admits gets nothing of another's.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::application;
use crate::node::world::{SHOP, World, dynamic_secret, secret_of};
use crate::sample;

const ROGUE: &str = "rogue";

pub async fn run(world: &World) -> Result<()> {
    let mut request = dynamic_secret("reach", &serde_json::json!({}));
    if let Some(namespace) = request.pointer_mut("/metadata/namespace") {
        *namespace = ROGUE.into();
    }
    world.apply(&[sample::namespace(ROGUE, &BTreeMap::new()), request])?;
    let reason = r#"-o=jsonpath={.status.conditions[?(@.type=="Ready")].reason}"#;
    let refused = ["get", "dynamicsecret", "reach", "-n", ROGUE, reason];
    world
        .until("a namespace that is not admitted is refused", &refused, "AccessDenied")
        .await?;
    let made = world.kubectl(&["get", "secret", &secret_of("reach"), "-n", ROGUE, "--ignore-not-found"])?;
    ensure!(made.trim().is_empty(), "a Secret was made: {made}");
    let account = format!("--as=system:serviceaccount:{ROGUE}:default");
    let secret = format!("secret/{}", secret_of(application::NAME));
    for (verb, what) in [
        ("get", secret.as_str()),
        ("create", "dynamicsecrets.dsv.dev"),
        ("patch", "deployments.apps"),
    ] {
        let answer = world.kubectl(&["auth", "can-i", verb, what, "-n", SHOP, &account]);
        // kubectl says no by its exit code.
        ensure!(answer.is_err(), "{account} may {verb} {what} in {SHOP}");
    }
    world.kubectl(&["delete", "namespace", ROGUE]).map(drop)
}
