//! A program that can be stopped, killed and started again under the same arguments, as scenarios do.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use nix::sys::signal::Signal;

use crate::process::{Process, Spec, tail};

/// One program of the stack. Dropping it kills what runs.
pub struct Service {
    spec: Spec,
    process: Mutex<Option<Process>>,
}

impl Service {
    /// Knows how to start; nothing runs yet.
    pub fn new(spec: Spec) -> Self {
        Self {
            spec,
            process: Mutex::new(None),
        }
    }

    /// The same with further arguments, not started yet.
    #[must_use]
    pub fn with(&self, args: &[String]) -> Self {
        Self::new(self.spec.clone().args(args))
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it, unless it runs.
    pub fn launch(&self) -> Result<()> {
        let mut process = self.process();
        if !process.as_ref().is_some_and(Process::is_running) {
            *process = Some(Process::start(&self.spec)?);
        }
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn pid(&self) -> Option<i32> {
        self.process()
            .as_ref()
            .filter(|process| process.is_running())
            .map(Process::pid)
    }

    pub fn is_running(&self) -> bool {
        self.process().as_ref().is_some_and(Process::is_running)
    }

    /// Fails with the end of the log if it does not run.
    pub fn check(&self) -> Result<()> {
        match self.process().as_ref() {
            Some(process) => process.check(),
            None => bail!("{} is stopped", self.spec.name),
        }
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process();
        process
            .as_ref()
            .ok_or_else(|| anyhow!("{} is stopped", self.spec.name))?
            .signal(signal)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(&self) {
        if let Some(process) = self.process().take() {
            process.kill9();
        }
    }

    /// Asks it to end and kills it after `limit`. True if it ended by itself.
    pub fn end(&self, signal: Signal, limit: Duration) -> bool {
        let process = self.process().take();
        process.is_none_or(|process| process.end(signal, limit))
    }

    pub fn log_path(&self) -> &Path {
        &self.spec.log
    }

    /// Everything written by all its lives so far.
    pub fn log_text(&self) -> String {
        std::fs::read(&self.spec.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log_text(), lines)
    }
}
