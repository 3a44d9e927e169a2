//! The help of `dsv-engine`, word for word: people and scripts read it. After a change on purpose write the files anew with
//! `dsv-engine run -h > tests/engine_help/run.txt` and the same for `register`.

#![allow(clippy::unwrap_used, reason = "a test ends that way")]

use std::process::Command;

fn help(command: &str) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_dsv-engine"));
    // What is set here must not show: a default that is read from the environment would.
    let output = program.args([command, "-h"]).env_clear().output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_help_of_run_and_register_is_as_it_was() {
    assert_eq!(help("run"), include_str!("engine_help/run.txt"));
    assert_eq!(help("register"), include_str!("engine_help/register.txt"));
}
