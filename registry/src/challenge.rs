//! Parses the header `WWW-Authenticate`. It is untrusted input; malformed parts are ignored.

/// A supported authentication challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password.
    Basic,
    /// A token of a token server.
    Bearer {
        /// URL of the token server.
        realm: String,
        /// The service that the token is for.
        service: Option<String>,
    },
}

/// Longer headers are ignored.
const MAX_HEADER: usize = 8 << 10;
/// Further parameters are ignored.
const MAX_PARAMETERS: usize = 32;

/// The supported challenges of a header, which may contain several challenges and unknown parameters.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    if header.len() > MAX_HEADER {
        return found;
    }
    let mut rest = header;
    // The current scheme and its parameters.
    let mut scheme = String::new();
    let mut parameters: Vec<(String, String)> = Vec::new();
    for _ in 0..MAX_PARAMETERS {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let Some((word, after)) = token(rest) else { break };
        match after.trim_start().strip_prefix('=') {
            Some(value) => {
                let Some((value, after)) = token_or_quoted_string(value.trim_start()) else { break };
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            None => {
                found.extend(challenge(&scheme, &parameters));
                (scheme, parameters) = (word.to_ascii_lowercase(), Vec::new());
                rest = after;
            }
        }
    }
    found.extend(challenge(&scheme, &parameters));
    found
}

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    // Of duplicate parameters the first counts, so that a later one cannot change the realm.
    let get = |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: get("realm")?, service: get("service") }),
        _ => None,
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// The value of a parameter.
fn token_or_quoted_string(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, rest)| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) }
    }

    #[test]
    fn parses_headers_of_registries() {
        assert_eq!(parse(r#"Basic realm="Registry Realm""#), [Challenge::Basic]);
        assert_eq!(
            parse(r#"Bearer realm="https://auth.example/token",service="x",scope="repository:a/b:pull""#),
            [bearer("https://auth.example/token", Some("x"))]
        );
        assert_eq!(
            parse(r#"bearer  realm = "https://a.example/\"t" , Basic realm=x, Digest nonce="1,2""#),
            [bearer("https://a.example/\"t", None), Challenge::Basic]
        );
        assert_eq!(parse(r#"Bearer realm="first",realm="second""#), [bearer("first", None)]);
    }

    #[test]
    fn ignores_malformed_headers() {
        for text in [
            "",
            ",,,",
            "Bearer",
            r#"Bearer realm="open"#,
            r#"Bearer realm="x\"#,
            "=x",
            "Negotiate",
            "Bearer service=x",
            "é",
        ] {
            assert_eq!(parse(text), [], "{text}");
        }
        assert_eq!(parse(&format!("Basic realm=\"{}\"", "x".repeat(MAX_HEADER))), []);
        assert_eq!(parse(&"a=b,".repeat(1000)), []);
    }
}
