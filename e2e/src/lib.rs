//! The local cluster and the scenarios on it.
//!
//! Everything here starts the real thing: etcd, kube-apiserver, kube-controller-manager, PostgreSQL and the programs of this
//! project, on free loopback ports. Nothing in this crate stands in for an API server or a database.

pub mod certificates;
pub mod cluster;
pub mod control_plane;
pub mod demo;
pub mod dev;
pub mod diagnosis;
pub mod engine;
pub mod engine_runner;
pub mod health;
pub mod install;
pub mod kubeconfig;
pub mod operator;
pub mod places;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod run_dir;
pub mod sample;
pub mod say;
pub mod service;
pub mod stack;
