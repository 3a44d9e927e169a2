//! `kubectl dsv completion`: a script by which a shell completes commands and flags.

use super::{Arguments, Error, show};
use clap::CommandFactory;
pub use clap_complete::Shell;

/// The program as it is called by itself; kubectl hides its plugins from the shell.
const PROGRAM: &str = "kubectl-dsv";

/// Runs the command.
pub fn run(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    let mut command = Arguments::command().bin_name(PROGRAM);
    clap_complete::generate(shell, &mut command, PROGRAM, &mut script);
    show::print(String::from_utf8_lossy(&script).trim_end())
}
