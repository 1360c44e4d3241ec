//! Converts errors of the HTTP library: which kind of failure they are, and whether another attempt may succeed.

use invarlock_error::{Error, Kind};
use ureq::Timeout;

use crate::deadline::TooMuchOverhead;
use crate::guarded_resolver::ForbiddenAddress;
use crate::limits::{Deadlines, MAX_HEADERS};
use crate::retry::RequestError;
use crate::url::authority;

const CHECK_HOST: &str = "check the host, the port, the network and HTTPS_PROXY";
const TOO_SLOW: &str = "try again; if the host stays slow, use another network, another registry or a mirror";

/// The error of a request to `url`.
pub(crate) fn from_ureq(url: &str, error: ureq::Error, deadlines: &Deadlines) -> RequestError {
    let host = authority(url);
    match error {
        ureq::Error::Timeout(part) => transient(from_timeout(host, part, deadlines)),
        ureq::Error::LargeResponseHeader(..) => {
            Error::safety(format!("{host} sends more than {MAX_HEADERS} bytes of headers")).into()
        }
        ureq::Error::Other(inner) => match inner.downcast::<ForbiddenAddress>() {
            Ok(forbidden) => {
                let hint = forbidden.hint();
                let error = Error::from_source(Kind::Safety, *forbidden);
                hint.into_iter().fold(error, |error, hint| error.with_hint(hint)).into()
            }
            Err(other) if other.is::<TooMuchOverhead>() => {
                Error::safety(format!("{host} sends {other} instead of a response")).into()
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

fn from_timeout(host: &str, part: Timeout, deadlines: &Deadlines) -> Error {
    let Deadlines { connect, silence, headers, exchange, rate, .. } = deadlines;
    let why = match part {
        Timeout::Connect | Timeout::Resolve => {
            let why = format!("the registry {host} did not answer within {connect:?}");
            return Error::system(why).with_hint(CHECK_HOST);
        }
        Timeout::PerRead => format!("{host} sent no byte for {silence:?}"),
        Timeout::PerWrite => format!("{host} received no byte for {silence:?}"),
        Timeout::SendRequest => {
            format!("{host} did not receive the headers of the request within {headers:?}")
        }
        Timeout::SendBody => {
            format!("{host} received the upload slower than {} bytes per {:?}", rate.bytes, rate.interval)
        }
        Timeout::RecvResponse => {
            format!("{host} did not finish the headers of its response within {headers:?}")
        }
        _ => format!("{host} did not answer a request with its redirects within {exchange:?}"),
    };
    Error::system(why).with_hint(TOO_SLOW)
}

/// The error of a response whose body made too little progress.
pub(crate) fn slow_body(url: &str, payload: u64, deadlines: &Deadlines) -> RequestError {
    let (host, rate) = (authority(url), deadlines.rate);
    let why = format!(
        "{host} sent only {payload} bytes of content within {:?}; at least {} are required",
        rate.interval, rate.bytes
    );
    transient(Error::system(why).with_hint(TOO_SLOW))
}

fn communication(host: &str, error: Error) -> RequestError {
    transient(error.context(format_args!("communicating with the registry {host}")).with_hint(CHECK_HOST))
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
