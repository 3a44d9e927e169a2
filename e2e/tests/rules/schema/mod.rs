//! What the API server itself accepts and refuses: every rule of the definitions, against a real API server and without an
//! operator. A refusal names the field and says what would be right.

mod dynamic_secret;
mod engine;
mod lease;
mod pool;
mod reading;
mod sync;
mod world;
