//! Passwords with their verifiers, made ahead. A verifier is most of a millisecond of one core, and nobody who waits for a
//! credential should wait for that as well.
//!
//! Each is given away once. What is in stock never leaves the process and is wiped with it.

use crate::keys::{Password, Verifier};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How many are ready: as many as may be asked for at once before the first new one is.
const READY: usize = 16;

/// Passwords that nobody has yet.
#[derive(Clone, Default)]
pub struct PasswordStock(Arc<Shelf>);

#[derive(Default)]
struct Shelf {
    ready: Mutex<Vec<(Password, Verifier)>>,
    filling: AtomicBool,
}

impl PasswordStock {
    /// One that nobody else has or gets. Where none is ready it is made now, beside what else runs here.
    pub async fn take(&self) -> (Password, Verifier) {
        let ready = self.0.ready.lock().unwrap_or_else(PoisonError::into_inner).pop();
        self.fill();
        match ready {
            Some(ready) => ready,
            // Only a runtime that stops does not run it.
            None => tokio::task::spawn_blocking(make).await.unwrap_or_else(|_| make()),
        }
    }

    fn fill(&self) {
        if !self.0.filling.swap(true, Ordering::AcqRel) {
            let ready = self.0.clone();
            tokio::task::spawn_blocking(move || ready.fill());
        }
    }
}

impl Shelf {
    fn fill(&self) {
        while self.ready.lock().unwrap_or_else(PoisonError::into_inner).len() < READY {
            let one = make();
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        }
        self.filling.store(false, Ordering::Release);
    }
}

fn make() -> (Password, Verifier) {
    let password = Password::generate();
    let verifier = Verifier::of(&password);
    (password, verifier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[tokio::test]
    async fn none_is_given_twice_and_each_has_a_verifier_of_its_own() {
        let stock = PasswordStock::default();
        let (mut passwords, mut verifiers) = (HashSet::new(), HashSet::new());
        for _ in 0..3 * READY {
            let (password, verifier) = stock.take().await;
            assert!(Verifier::parse(verifier.as_str()).is_ok());
            assert!(passwords.insert(password.reveal().to_owned()) && verifiers.insert(verifier.as_str().to_owned()));
        }
        assert!(stock.0.ready.lock().unwrap().len() <= READY);
    }
}
