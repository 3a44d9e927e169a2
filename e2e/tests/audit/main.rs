//! What lies in the database and what is on the books differ, and the operator notices and mends it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod books;
mod brake;
mod by_hand;
mod world;
