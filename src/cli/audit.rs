//! `kubectl dsv audit verify`: whether a stream of audit lines is whole.

use super::{Error, show};
use crate::vault::verify;
use clap::Subcommand;
use std::path::PathBuf;

/// What is asked of audit streams.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no line of an audit file was changed, taken out, put in or moved
    Verify {
        /// The file that the operator writes (--api-audit-file)
        file: PathBuf,
    },
}

/// Runs the command. It needs no cluster.
pub fn run(asked: &AuditCommand) -> Result<(), Error> {
    let AuditCommand::Verify { file } = asked;
    let name = file.display();
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| Error::Refused(format!("{name} cannot be read: {error}")))?;
    match verify(&text) {
        Ok(lines) => show::print(&format!("{lines} lines, all whole and in order")),
        Err(error) => Err(Error::Refused(format!("{name}: {error}"))),
    }
}
