//! Secrets that are kept in step at a DSV tenant, which is our own REST API: one control plane, one operator that can be
//! killed at every step.

#![allow(clippy::too_many_lines, reason = "what is said in one breath is read in one")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod crash;
mod credentials;
#[path = "../docs_support/text.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of the documentation, which use all of it"
)]
mod docs;
mod down;
mod many;
mod proxy;
mod pushes;
mod refusals;
mod rest;
mod setup;
mod walk;
#[path = "../vault/world.rs"]
#[allow(dead_code, reason = "shared with the scenarios of the REST API, which use all of it")]
mod world;

/// What the world of these scenarios runs on. The API keeps its port, so a killed operator is the same tenant again.
fn shape() -> anyhow::Result<e2e::stack::Shape> {
    let address = format!("127.0.0.1:{}", e2e::ports::free()?);
    let args = [
        "--api-addr",
        &address,
        "--sync-period",
        "1",
        "--sync-allow-destinations",
        "127.0.0.0/8",
    ];
    Ok(e2e::stack::Shape {
        operator_args: args.map(str::to_owned).into(),
        faults: true,
        ..e2e::stack::Shape::default()
    })
}
