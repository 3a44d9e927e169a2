//! Where an operator listens, as people write it.

use crate::channel::CONNECT_PATH;
use http::Uri;
use std::str::FromStr;

/// An operator's address: `host`, `host:port` or `wss://host[:port][/path]`. Without a port it is 443.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    path: String,
}

/// A text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Nothing there.
    #[error("an endpoint is empty; write host, host:port or wss://host:port")]
    Empty,
    /// A plain-text scheme.
    #[error("the endpoint {endpoint:?} asks for a connection without TLS; write wss:// or leave the scheme out")]
    PlainText {
        /// What was written.
        endpoint: String,
    },
    /// Cannot be read.
    #[error("the endpoint {endpoint:?} is no address; write host, host:port or wss://host:port")]
    Unreadable {
        /// What was written.
        endpoint: String,
    },
    /// Login data in the address.
    #[error("an endpoint has a user name in it; engines prove who they are with their key, so leave it out")]
    UserInfo,
}

impl Endpoint {
    /// Name or address, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The websocket's address.
    pub(super) fn websocket(&self) -> String {
        format!("wss://{}:{}{}", self.host, self.port, self.path)
    }

    /// The same as an HTTPS address, which proxies and their exceptions are chosen by.
    pub(super) fn https(&self) -> Option<Uri> {
        format!("https://{}:{}/", self.host, self.port).parse().ok()
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(EndpointError::Empty);
        }
        let endpoint = || text.to_owned();
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if matches!(scheme.to_ascii_lowercase().as_str(), "wss" | "https") => rest,
            Some((scheme, _)) if matches!(scheme.to_ascii_lowercase().as_str(), "ws" | "http") => {
                return Err(EndpointError::PlainText { endpoint: endpoint() });
            }
            Some(_) => return Err(EndpointError::Unreadable { endpoint: endpoint() }),
        };
        if rest.contains('@') {
            return Err(EndpointError::UserInfo);
        }
        let unreadable = || EndpointError::Unreadable { endpoint: endpoint() };
        let uri: Uri = format!("wss://{rest}").parse().map_err(|_| unreadable())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(unreadable)?;
        // A port that is no number, or above 65535, must not turn into 443 silently.
        let authority = uri.authority().map_or("", http::uri::Authority::as_str);
        let port = match authority.strip_prefix(host).unwrap_or_default() {
            "" => 443,
            port => port
                .trim_start_matches(':')
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(unreadable)?,
        };
        let path = Some(uri.path())
            .filter(|path| !path.is_empty() && *path != "/")
            .unwrap_or(CONNECT_PATH);
        Ok(Self {
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, EndpointError};
    use proptest::prelude::*;

    #[test]
    fn an_endpoint_may_be_written_as_people_write_it() {
        let cases = [
            ("dsv.example.com", "wss://dsv.example.com:443/v1/engines/connect"),
            ("dsv.example.com:8443", "wss://dsv.example.com:8443/v1/engines/connect"),
            (
                " acme.ws.example.com ",
                "wss://acme.ws.example.com:443/v1/engines/connect",
            ),
            ("wss://dsv.example.com", "wss://dsv.example.com:443/v1/engines/connect"),
            ("WSS://dsv.example.com:9/", "wss://dsv.example.com:9/v1/engines/connect"),
            (
                "https://dsv.example.com/engines/dial",
                "wss://dsv.example.com:443/engines/dial",
            ),
            ("10.0.0.7:9443", "wss://10.0.0.7:9443/v1/engines/connect"),
            ("[fd00::7]:9443", "wss://[fd00::7]:9443/v1/engines/connect"),
            ("[fd00::7]", "wss://[fd00::7]:443/v1/engines/connect"),
        ];
        for (text, url) in cases {
            assert_eq!(text.parse::<Endpoint>().unwrap().websocket(), url, "{text}");
        }
        assert_eq!("[fd00::7]".parse::<Endpoint>().unwrap().host(), "fd00::7");
    }

    #[test]
    fn what_is_no_endpoint_is_refused_in_words() {
        assert_eq!("".parse::<Endpoint>(), Err(EndpointError::Empty));
        assert!(matches!(
            "ws://a".parse::<Endpoint>(),
            Err(EndpointError::PlainText { .. })
        ));
        assert!(matches!(
            "http://a:80".parse::<Endpoint>(),
            Err(EndpointError::PlainText { .. })
        ));
        assert_eq!("wss://me:secret@a".parse::<Endpoint>(), Err(EndpointError::UserInfo));
        for text in [
            "ftp://a", "a b", "a:port", "a:70000", "a:0", ":443", "wss://", "fd00::7",
        ] {
            assert!(
                matches!(text.parse::<Endpoint>(), Err(EndpointError::Unreadable { .. })),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = text.parse::<Endpoint>();
        }
    }
}
