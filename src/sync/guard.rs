//! Resolving names to addresses that may be connected to.

use crate::plan::sync::destination::Allowed;
use hyper_util::client::legacy::connect::dns::Name;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_service::Service;

/// Resolves names, and gives out none but allowed addresses. The connector uses the addresses that it is given, so what was
/// checked is what is connected to, however often the name changes its mind.
#[derive(Debug, Clone)]
pub struct Guarded {
    allowed: Arc<Allowed>,
}

/// A name that leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It has no address.
    #[error("the name {0} has no address")]
    Unknown(String, #[source] std::io::Error),
    /// All of its addresses are refused.
    #[error("{0} is an address that nothing is pushed to")]
    Refused(String),
}

impl Guarded {
    /// With what the installer allows.
    pub fn new(allowed: Arc<Allowed>) -> Self {
        Self { allowed }
    }

    /// A host that is an address is never resolved, so it is looked at here.
    pub fn check_literal(&self, host: &str) -> Result<(), ResolveError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) if !self.allowed.admits(address) => Err(ResolveError::Refused(bare.to_owned())),
            _ => Ok(()),
        }
    }

    /// The allowed addresses of a host.
    pub async fn resolve(&self, host: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let found = tokio::net::lookup_host((host, 0)).await;
        let found = found.map_err(|error| ResolveError::Unknown(host.to_owned(), error))?;
        let admitted: Vec<SocketAddr> = found.filter(|address| self.allowed.admits(address.ip())).collect();
        if admitted.is_empty() {
            return Err(ResolveError::Refused(host.to_owned()));
        }
        Ok(admitted)
    }
}

impl Service<Name> for Guarded {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ResolveError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.clone();
        Box::pin(async move { guard.resolve(name.as_str()).await.map(Vec::into_iter) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_of_this_machine_leads_nowhere_without_leave() {
        let closed = Guarded::new(Arc::new(Allowed::default()));
        for host in ["localhost", "127.1", "2130706433"] {
            let found = closed.resolve(host).await;
            assert!(found.is_err(), "{host}: {found:?}");
        }
        assert!(closed.check_literal("[::1]").is_err() && closed.check_literal("10.0.0.1").is_err());
        assert!(closed.check_literal("example.com").is_ok() && closed.check_literal("1.1.1.1").is_ok());
        let open = Guarded::new(Arc::new(Allowed::new(vec!["127.0.0.0/8".parse().unwrap()])));
        let found = open.resolve("localhost").await.unwrap();
        assert!(
            found.iter().all(|address| address.ip().to_string() == "127.0.0.1"),
            "{found:?}"
        );
    }
}
