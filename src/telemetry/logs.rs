//! Logs: one line per event on standard error, as text or JSON.

use std::error::Error;
use std::fmt;
use std::io::{IsTerminal, stderr};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The filter cannot be read.
    #[error("RUST_LOG does not say what to log; write a level such as info, or pairs such as dsv=debug,kube=warn")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// It was set up before.
    #[error("logging is set up already")]
    Again(#[source] tracing::subscriber::SetGlobalDefaultError),
}

/// Sets up logging for the whole process. Only `tracing` is heard, not the crate `log`: tokio-postgres writes whole SQL
/// texts there, verifiers included.
/// `RUST_LOG` says what is logged; without it, level info. Panics are logged too.
pub fn init(format: Format) -> Result<(), SetupError> {
    init_with(format, "")
}

/// The same, with what is logged where `RUST_LOG` is not set.
pub fn init_with(format: Format, otherwise: &str) -> Result<(), SetupError> {
    let directives = std::env::var("RUST_LOG").unwrap_or_else(|_| otherwise.to_owned());
    let subscriber = subscriber(format, &directives, stderr().is_terminal(), stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(SetupError::Again)?;
    std::panic::set_hook(Box::new(|panic| {
        // Written by the formatter of the log, since a bare panic message in a stream of JSON is lost.
        tracing::error!(%panic, "a fault in the program ended a task");
    }));
    Ok(())
}

/// The first line of a program's log: what runs, and which build of it.
pub fn announce(program: &str) {
    tracing::info!(
        program,
        version = env!("CARGO_PKG_VERSION"),
        commit = commit(),
        pid = std::process::id(),
        "starts"
    );
}

/// The commit that was built; `unknown` where the build was not told by the variable `DSV_COMMIT`.
pub fn commit() -> &'static str {
    option_env!("DSV_COMMIT").unwrap_or("unknown")
}

/// An error with its causes, for a field of a log line: `error = %chain(&error)`. The error itself would show its causes in
/// text but not in JSON.
pub fn chain(error: &dyn Error) -> Chain<'_> {
    Chain(error)
}

/// See [`chain`].
pub struct Chain<'a>(&'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

type Lines = Box<dyn Subscriber + Send + Sync>;

fn subscriber<W>(format: Format, directives: &str, colours: bool, writer: W) -> Result<Lines, SetupError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(directives)
        .map_err(SetupError::Filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colours);
    Ok(match format {
        Format::Text => Box::new(lines.finish()),
        Format::Json => Box::new(lines.json().flatten_event(true).finish()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut kept = self.0.lock().map_err(|_| std::io::ErrorKind::Other)?;
            kept.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, directives: &str, events: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = subscriber(format, directives, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, events);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write the Secret")]
    struct Outer(#[source] fmt::Error);

    #[test]
    fn json_lines_are_objects_that_carry_their_fields() {
        let text = logged(Format::Json, "", || {
            tracing::info_span!("reconcile", lease = "shop/a").in_scope(|| announce("dsv-operator"));
        });
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["message"], "starts");
        assert_eq!(line["program"], "dsv-operator");
        assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(line["span"]["lease"], "shop/a");
    }

    #[test]
    fn an_error_is_logged_with_its_causes() {
        for format in [Format::Text, Format::Json] {
            let text = logged(format, "", || {
                tracing::warn!(error = %chain(&Outer(fmt::Error)), "later again");
            });
            assert!(
                text.contains(&format!("cannot write the Secret: {}", fmt::Error)),
                "{text}"
            );
        }
    }

    #[test]
    fn info_is_the_default_and_the_filter_narrows_or_widens_it() {
        let events = || {
            tracing::debug!("fine grain");
            tracing::info!("coarse grain");
        };
        let default = logged(Format::Text, "", events);
        assert!(default.contains("coarse") && !default.contains("fine"), "{default}");
        let wide = logged(Format::Text, "dsv=debug", events);
        assert!(wide.contains("coarse") && wide.contains("fine"), "{wide}");
        assert_eq!(logged(Format::Text, "error", events), "");
        assert!(matches!(
            subscriber(Format::Text, "dsv=loud", false, stderr),
            Err(SetupError::Filter(_))
        ));
    }
}
