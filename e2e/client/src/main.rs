//! The application of the node scenarios. It knows nothing of the operator: it reads a credential where every application
//! finds one, in the files of a mounted Secret or in its environment, and asks PostgreSQL.

mod credential;
mod session;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use credential::Credential;

#[derive(Parser)]
#[command(about = "Reads rows from PostgreSQL with the credential of a Secret.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sleep until told to stop: what holds the namespaces of a pod.
    Pause,
    /// Log in, ask once, print the answer.
    Ask(Source),
    /// Log in anew again and again, each time with what the files say then; print a line whenever the user changes or a
    /// login fails, and how many there were at the end.
    Follow {
        #[command(flatten)]
        source: Source,
        /// Milliseconds between two logins.
        #[arg(long, default_value_t = 50)]
        every: u64,
    },
}

#[derive(clap::Args)]
struct Source {
    /// Folder in which the Secret is mounted; without it the keys are taken from the environment.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// What is asked; the first column of the first row is an integer.
    #[arg(long, default_value = "SELECT count(*) FROM public.orders")]
    query: String,
}

impl Source {
    fn credential(&self) -> Result<Credential> {
        match &self.folder {
            Some(folder) => Credential::of_folder(folder),
            None => Credential::of_environment(),
        }
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(Arguments::parse().command)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dsv-client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    // Installed first: as the first process of a container it would not end by a signal that it does not listen to.
    let mut stop = signal(SignalKind::terminate())?;
    match command {
        Command::Pause => {
            stop.recv().await;
            Ok(())
        }
        Command::Ask(source) => {
            let credential = source.credential()?;
            let answer = session::ask(&credential, &source.query).await?;
            say(&json!({"user": credential.username, "answer": answer}))
        }
        Command::Follow { source, every } => {
            tokio::select! {
                _ = stop.recv() => Ok(()),
                ended = follow(&source, Duration::from_millis(every)) => ended,
            }
        }
    }
}

async fn follow(source: &Source, every: Duration) -> Result<()> {
    let (mut user, mut logins, mut failures) = (String::new(), 0_u64, 0_u64);
    loop {
        let asked = async {
            let credential = source.credential()?;
            let answer = session::ask(&credential, &source.query).await?;
            anyhow::Ok((credential.username, answer))
        };
        match asked.await {
            Ok((now, answer)) => {
                logins += 1;
                if now != user || logins % 200 == 0 {
                    user = now;
                    say(&json!({"user": user, "answer": answer, "logins": logins, "failures": failures}))?;
                }
            }
            Err(error) => {
                failures += 1;
                say(&json!({"error": format!("{error:#}"), "logins": logins, "failures": failures}))?;
            }
        }
        tokio::time::sleep(every).await;
    }
}

fn say(line: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
