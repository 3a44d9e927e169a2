//! `kubectl dsv`: parses its command line, hands over to the library, and turns errors into sentences.

use clap::Parser;
use dsv::cli::{self, Arguments};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
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
