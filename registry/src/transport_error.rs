//! Converts errors of the HTTP library: which kind of failure they are, and whether another attempt may succeed.

use std::time::Duration;

use invarlock_error::{Error, Kind};
use ureq::Timeout;

use crate::guarded_resolver::ForbiddenAddress;
use crate::limits::{CONNECT_TIMEOUT, MAX_HEADERS};
use crate::retry::RequestError;
use crate::url::authority;

/// The error of a request to `url`, whose connection may stay silent for `stall`.
pub(crate) fn from_ureq(url: &str, error: ureq::Error, stall: Duration) -> RequestError {
    let host = authority(url);
    match error {
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            let seconds = CONNECT_TIMEOUT.as_secs();
            transient(
                Error::system(format!("the registry {host} did not answer within {seconds} s"))
                    .with_hint("check the host, the port, the network and HTTPS_PROXY"),
            )
        }
        ureq::Error::Timeout(_) => transient(Error::system(format!(
            "{host} sent no byte for {} s, or did not finish its response in time",
            stall.as_secs_f32()
        ))),
        ureq::Error::LargeResponseHeader(..) => {
            Error::safety(format!("{host} sends more than {MAX_HEADERS} bytes of headers")).into()
        }
        ureq::Error::Other(inner) => match inner.downcast::<ForbiddenAddress>() {
            Ok(forbidden) => {
                let hint = forbidden.hint();
                let error = Error::from_source(Kind::Safety, *forbidden);
                hint.into_iter().fold(error, |error, hint| error.with_hint(hint)).into()
            }
            Err(other) => communication(host, Error::system(other.to_string())),
        },
        ureq::Error::Rustls(error) => from_tls(host, &error),
        ureq::Error::Protocol(error) => {
            Error::integrity(format!("the response of {host} is not valid HTTP: {error}")).into()
        }
        ureq::Error::Io(error) => match error.get_ref().and_then(|payload| payload.downcast_ref()) {
            Some(tls) => from_tls(host, tls),
            None => communication(host, Error::from_source(Kind::System, error)),
        },
        other => communication(host, Error::from_source(Kind::System, other)),
    }
}

fn communication(host: &str, error: Error) -> RequestError {
    transient(
        error
            .context(format_args!("communicating with the registry {host}"))
            .with_hint("check the host, the port, the network and HTTPS_PROXY"),
    )
}

fn transient(error: Error) -> RequestError {
    RequestError::Transient(error, None)
}

fn from_tls(host: &str, error: &rustls::Error) -> RequestError {
    match error {
        rustls::Error::InvalidCertificate(_) => {
            Error::safety(format!("the certificate of {host} is not trusted: {error}"))
                .with_hint(format!(
                    "if the registry is yours, put the certificate of its authority into /etc/containers/certs.d/{host}/ca.crt, or \
                     set SSL_CERT_FILE to it"
                ))
                .into()
        }
        rustls::Error::InvalidMessage(_) => Error::input(format!("{host} does not speak TLS"))
            .with_hint("if the registry is meant to be used without TLS, add --plain-http")
            .into(),
        other => transient(Error::system(format!("TLS connection to {host}: {other}"))),
    }
}

/// Whether the error means that the peer does not use TLS.
pub(crate) fn is_not_tls(error: &ureq::Error) -> bool {
    let tls = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|payload| payload.downcast_ref()),
        _ => None,
    };
    matches!(tls, Some(rustls::Error::InvalidMessage(_)))
}
