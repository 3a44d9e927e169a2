//! `kubectl dsv`: parses its command line, hands over to the library, and turns errors into sentences.

use clap::{CommandFactory, FromArgMatches};
use dsv::cli::{self, Arguments};
use dsv::telemetry::version::version;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words = Arguments::command().version(version()).get_matches();
    let arguments = Arguments::from_arg_matches(&words).unwrap_or_else(|error| error.exit());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("kubectl dsv: this machine gives no event loop: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli::run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kubectl dsv: {}", error.sentence());
            ExitCode::from(error.exit_code())
        }
    }
}
