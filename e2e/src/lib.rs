//! The local cluster and the scenarios on it.
