//! What a registry asks for: the header `WWW-Authenticate`.

/// One way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password.
    Basic,
    /// A token, which is had at `realm`.
    Bearer {
        /// Where.
        realm: String,
        /// For whom.
        service: Option<String>,
    },
}

/// Longer headers are not looked at.
const LONGEST: usize = 8 << 10;
/// Nor further parameters.
const MOST: usize = 32;

/// The ways in that a header names and that we know. It may name several, and others may have other parameters.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    if header.len() > LONGEST {
        return found;
    }
    let mut rest = header;
    // The scheme that parameters belong to, with those we want.
    let mut scheme = String::new();
    let mut parameters: Vec<(String, String)> = Vec::new();
    for _ in 0..MOST {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let Some((word, after)) = token(rest) else { break };
        match after.trim_start().strip_prefix('=') {
            Some(value) => {
                let Some((value, after)) = value_of(value.trim_start()) else { break };
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            None => {
                found.extend(finish(&scheme, &parameters));
                (scheme, parameters) = (word.to_ascii_lowercase(), Vec::new());
                rest = after;
            }
        }
    }
    found.extend(finish(&scheme, &parameters));
    found
}

fn finish(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    // The first of a name counts: nothing that follows changes where we go.
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

/// A token or a quoted text.
fn value_of(text: &str) -> Option<(String, &str)> {
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
    fn headers_of_registries() {
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
    fn nonsense_asks_for_nothing() {
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
        assert_eq!(parse(&format!("Basic realm=\"{}\"", "x".repeat(LONGEST))), []);
        assert_eq!(parse(&"a=b,".repeat(1000)), []);
    }
}
