//! The errors of responses with an unexpected status.

use std::time::Duration;

use invarlock_error::Error;
use ureq::Body;
use ureq::http::Response;

use crate::http::{Http, header};
use crate::retry::RequestError;
use crate::url::printable;

/// How much of an error response is read.
const MAX_ERROR: u64 = 16 << 10;

/// The error of a response with an unexpected status; `context` is what was being done.
pub(crate) fn unexpected(http: &Http, url: &str, response: Response<Body>, context: &str) -> RequestError {
    let status = response.status();
    let retry_after =
        header(&response, "retry-after").and_then(|value| value.parse().ok()).map(Duration::from_secs);
    let message = format!("{context}: the registry responds {status}{}", details(http, url, response));
    match status.as_u16() {
        404 => Error::input(message)
            .with_hint("check the name; a registry may also hide images that you may not read")
            .into(),
        401 | 403 => Error::input(message)
            .with_hint("log in with an account that has access (`podman login` or `docker login`)")
            .into(),
        408 | 429 | 500 | 502..=504 => RequestError::Transient(Error::system(message), retry_after),
        300..=399 => Error::unsupported(message).into(),
        _ => Error::system(message).into(),
    }
}

/// Code and message of an error response in the format of the distribution protocol, in parentheses; empty if there is none.
fn details(http: &Http, url: &str, response: Response<Body>) -> String {
    let text = http.read_document(url, response, MAX_ERROR).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let first = &value["errors"][0];
    let details =
        [&first["code"], &first["message"]].map(|field| field.as_str().unwrap_or_default()).join(" ");
    match details.trim() {
        "" => String::new(),
        details => format!(" ({})", printable(details)),
    }
}
