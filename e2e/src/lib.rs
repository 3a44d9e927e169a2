//! The local cluster and the scenarios on it.
//!
//! Everything here starts the real thing: etcd, kube-apiserver, kube-controller-manager, PostgreSQL and the programs of this
//! project, on free loopback ports. Nothing in this crate stands in for an API server or a database.
//!
//! Start with [`stack::Stack`], or with [`postgres::Server`] or [`control_plane::ControlPlane`] where one of them is enough.
//! Whatever is started lives in a run folder and goes with the process, however that ends; see [`run_dir`].
//!
//! | variable | meaning |
//! |---|---|
//! | `E2E_KUBECONFIG` | use this cluster instead of an own control plane |
//! | `E2E_KEEP` | keep the run folder with all logs until the next run |
//! | `PG_BIN` | folder with `initdb` and `postgres` to use for their major release |
//! | `DSV_BIN_DIR` | where `dsv-operator` and `dsv-engine` lie, if not beside the running program |
//! | `DSV_IMAGE_PROGRAMS` | folder with static programs for the images, instead of building them |
//! | `DSV_DEV_DIR` | where `dsv-dev up` keeps its cluster, if not in `target/dev` |
//! | `DSV_SCREENSHOTS` | folder to which the test in a browser writes pictures of the pages |
//! | `TESTS_AT_ONCE` | how many test programs `dsv-dev test` runs at a time, if not one for each core |
//! | `RUST_LOG` | log filter of operator and engines |

pub mod books;
pub mod browser;
pub mod certificates;
pub mod chart;
pub mod cluster;
pub mod control_plane;
pub mod demo;
pub mod dev;
pub mod diagnosis;
pub mod engine;
pub mod engine_runner;
pub mod faults;
pub mod health;
pub mod image;
pub mod install;
pub mod kubeconfig;
pub mod node;
pub mod objects;
pub mod operator;
pub mod places;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod run_dir;
pub mod sample;
pub mod say;
pub mod scene;
pub mod service;
pub mod stack;
pub mod suite;
