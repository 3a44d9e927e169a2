//! The REST API in the dialect of DevOps Secrets Vault, as its clients use it: one control plane, two operators.

#![allow(clippy::too_many_lines, reason = "what is said in one breath is read in one")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod abuse;
mod access;
mod browser;
mod failures;
mod kubernetes;
mod messages;
mod openapi;
mod page;
mod page_forms;
mod page_rights;
mod person;
mod plan;
mod plugin;
mod python;
mod register;
mod secrets;
mod stock;
mod stock_cli;
mod stock_eso;
mod stock_go;
mod stock_people;
mod walk;
mod world;

/// What the world of these scenarios runs on.
#[allow(clippy::unnecessary_wraps, reason = "other programs with this world look for a port")]
fn shape() -> anyhow::Result<e2e::stack::Shape> {
    Ok(e2e::stack::Shape {
        operators: 2,
        operator_args: [
            "--api-addr",
            "127.0.0.1:0",
            "--api-name",
            "127.0.0.1,*.dsv.test",
            "--sync-allow-destinations",
            "127.0.0.0/8",
        ]
        .map(str::to_owned)
        .into(),
        ..e2e::stack::Shape::default()
    })
}
