//! The fault matrix: everything that can break, at every step of a credential's life, judged by the database.

pub mod apart;
pub mod api_proxy;
pub mod api_rules;
pub mod api_server;
pub mod blows;
pub mod clocks;
pub mod database;
pub mod death;
pub mod failpoints;
pub mod hang;
pub mod judge;
pub mod lane;
pub mod lead;
pub mod many;
pub mod matrix;
pub mod people;
pub mod relay;
pub mod resisting;
pub mod round;
pub mod run;
pub mod servers;
pub mod steps;
pub mod tales;
pub mod torture;
pub mod wires;
pub mod wiring;
