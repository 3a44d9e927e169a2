//! Why a command did not do what it was asked, as sentences with the next step.

use std::fmt::Write as _;

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig.
    #[error("the kubeconfig cannot be used; check KUBECONFIG, --kubeconfig and --context")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    /// No kubeconfig, and not in a pod.
    #[error("no cluster is configured; set KUBECONFIG or give --kubeconfig")]
    NoCluster(#[source] kube::config::InferConfigError),
    /// A call to the API server.
    #[error("could not {intention}; {next}")]
    Call {
        /// What was intended.
        intention: String,
        /// What to do.
        next: &'static str,
        /// What the client or the API server said. Boxed since it is large.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object can be read, but what was asked makes no sense for it.
    #[error("{0}")]
    Refused(String),
    /// The operator did not get there in time.
    #[error("{0}")]
    TooSlow(String),
    /// The terminal or pipe.
    #[error("the result could not be written")]
    Write(#[source] std::io::Error),
    /// A program that was started ended badly; its code becomes ours.
    #[error("{0} ended with code {1}")]
    Program(String, u8),
    /// A program could not be started.
    #[error("{0} cannot be started")]
    Start(String, #[source] std::io::Error),
    /// Ctrl-C.
    #[error("{0}")]
    Interrupted(String),
}

impl Error {
    /// The error with its causes, in one line.
    pub fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut below = std::error::Error::source(self);
        while let Some(cause) = below {
            let _ = write!(text, ": {cause}");
            below = cause.source();
        }
        text
    }

    /// 130 for Ctrl-C, as shells have it; else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted(_) => 130,
            Self::Program(_, code) => *code,
            _ => 1,
        }
    }
}

/// Puts the intention and the next step on a client error.
pub(super) trait Intention<T> {
    /// `to` completes "could not ...".
    fn to(self, intention: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Intention<T> for Result<T, kube::Error> {
    fn to(self, intention: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Call {
            intention: intention(),
            next: next_step(&source),
            source: Box::new(source),
        })
    }
}

fn next_step(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => {
            "your user lacks the right; ask for the cluster role view (to read) or edit (to ask for credentials)"
        }
        // An object that is missing is answered by the caller; what is left is a kind that is missing.
        kube::Error::Api(status) if status.is_not_found() => {
            "the kind is not installed in this cluster: kubectl apply -f crds/"
        }
        kube::Error::Api(status) if status.code == 401 => "log in to the cluster again",
        kube::Error::Api(_) => "the API server refused it",
        _ => "is the API server reachable?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn a_refusal_says_which_role_helps() {
        let forbidden = Status::failure("no", "Forbidden").with_code(403);
        let call: Result<(), kube::Error> = Err(kube::Error::Api(Box::new(forbidden)));
        let error = call.to(|| "list the dynamic secrets".to_owned()).unwrap_err();
        let text = error.sentence();
        assert!(
            text.starts_with("could not list the dynamic secrets; your user lacks the right"),
            "{text}"
        );
        assert_eq!(error.exit_code(), 1);
        assert_eq!(Error::Interrupted("stopped".into()).exit_code(), 130);
    }
}
