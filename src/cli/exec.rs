//! `kubectl dsv exec` and `kubectl dsv psql`: a program with a fresh account in its environment, which ends with it.

use super::Error;
use super::bound::{self, Named};
use super::connect::Cluster;
use super::follow::interrupt;
use super::issue::{IssueArguments, length, obtain};
use crate::api::ttl::Span;
use clap::Args;
use std::process::{Command, Stdio};

/// What is run, with which account.
#[derive(Debug, Args)]
pub struct ExecArguments {
    /// Name of the DynamicSecret
    name: String,
    /// A shorter life than the DynamicSecret's ttl: seconds, or a duration such as 15m
    #[arg(long, value_parser = length)]
    ttl: Option<Span>,
    /// End the account with a Pod, Job or ServiceAccount of the namespace, should nobody be left to take it back
    #[arg(long, value_parser = bound::named, value_name = "KIND/NAME")]
    bound_to: Option<Named>,
    /// How long to wait for the account, in seconds
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// The program and its arguments, behind --
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// psql, with which account.
#[derive(Debug, Args)]
pub struct PsqlArguments {
    /// Name of the DynamicSecret
    name: String,
    /// A shorter life than the DynamicSecret's ttl: seconds, or a duration such as 15m
    #[arg(long, value_parser = length)]
    ttl: Option<Span>,
    /// How long to wait for the account, in seconds
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// Arguments for psql, behind --
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs psql.
pub async fn psql(cluster: &Cluster, asked: PsqlArguments) -> Result<(), Error> {
    let mut command = vec!["psql".to_owned()];
    command.extend(asked.arguments);
    let asked = ExecArguments {
        name: asked.name,
        ttl: asked.ttl,
        bound_to: None,
        timeout: asked.timeout,
        command,
    };
    Box::pin(run(cluster, asked)).await
}

/// How long an account for one question lives at most, should nobody be left to take it back.
const QUESTION: u64 = 60;

/// What a program prints that runs with a fresh account.
pub async fn answer(cluster: &Cluster, name: String, words: &[&str]) -> Result<String, Error> {
    let Some((program, arguments)) = words.split_first() else {
        return Ok(String::new());
    };
    let wanted = IssueArguments::of(name, Some(Span::Seconds(QUESTION.cast_signed())), QUESTION);
    let obtained = Box::pin(obtain(cluster, &wanted)).await?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(obtained.credential.variables())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let _heard = interrupt()?;
    let ended = tokio::task::spawn_blocking(move || command.output()).await;
    obtained.take_back().await?;
    let ended = ended.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let output = ended.map_err(|error| Error::Start((*program).to_owned(), error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let code = output
        .status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Err(Error::Program((*program).to_owned(), code))
}

/// Runs the program. Its end ends the account, and its code becomes ours.
pub async fn run(cluster: &Cluster, asked: ExecArguments) -> Result<(), Error> {
    let Some((program, arguments)) = asked.command.split_first() else {
        return Err(Error::Refused("name a program behind --".to_owned()));
    };
    let wanted = IssueArguments::of(asked.name.clone(), asked.ttl, asked.timeout).bound_to(asked.bound_to);
    let obtained = Box::pin(obtain(cluster, &wanted)).await?;
    let mut command = Command::new(program);
    command.args(arguments).envs(obtained.credential.variables());
    // Ctrl-C goes to the program, which shares our terminal; we stay to take the account back.
    let _heard = interrupt()?;
    let ended = tokio::task::spawn_blocking(move || command.status()).await;
    obtained.take_back().await?;
    let ended = ended.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let status = ended.map_err(|error| Error::Start(program.clone(), error))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Err(Error::Program(program.clone(), code))
}
