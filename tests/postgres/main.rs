//! The `postgres` module against real servers. Each test's name is the guarantee that it holds.

mod connect;
mod group;
mod issue;
mod proxy;
mod revoke;
mod world;
