//! Who the user is to a registry: the files that `docker login` and `podman login` write, and the programs that they name.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use invarlock_images::{Error, Result};
use serde::Deserialize;

use crate::helper;

const LONGEST_FILE: u64 = 1 << 20;

/// What proves who the user is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// Name and password.
    Password(String, String),
    /// A token that is only good for getting others.
    Refresh(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential")
    }
}

impl Credential {
    /// From a name and a secret as these files and programs give them.
    pub fn of(name: String, secret: String) -> Self {
        if name == "<token>" { Self::Refresh(secret) } else { Self::Password(name, secret) }
    }
}

/// One of these files. What else is in it is none of our business.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AuthFile {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl AuthFile {
    /// Reads one.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("it is not what it should be: {error}"))
    }

    /// What it has for a repository of a host. The longest key that fits counts: podman has keys for parts of a registry.
    pub fn find(&self, host: &str, repository: &str) -> std::result::Result<Option<Credential>, String> {
        let keys = keys(host, repository);
        if let Some(name) = self.cred_helpers.get(host) {
            return helper::get(name, server(host));
        }
        let entry = keys
            .iter()
            .find_map(|key| self.auths.iter().find(|(known, _)| bare(known) == key).map(|(_, entry)| entry));
        if let Some(found) = entry.and_then(|entry| entry.credential().transpose()) {
            return found.map(Some);
        }
        match &self.creds_store {
            Some(name) if !name.is_empty() => helper::get(name, server(host)),
            _ => Ok(None),
        }
    }
}

/// What programs and Docker's files call a registry.
fn server(host: &str) -> &str {
    if host == "docker.io" { "https://index.docker.io/v1/" } else { host }
}

/// A key without what Docker has written around hosts.
fn bare(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.strip_suffix('/').unwrap_or(key);
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

/// From the whole name to the host.
fn keys(host: &str, repository: &str) -> Vec<String> {
    let mut keys = vec![format!("{host}/{repository}")];
    while let Some((shorter, _)) = keys.last().and_then(|it| it.rsplit_once('/')) {
        keys.push(shorter.to_owned());
    }
    if host == "docker.io" {
        keys.push("index.docker.io".to_owned());
    }
    keys
}

impl Entry {
    fn credential(&self) -> std::result::Result<Option<Credential>, String> {
        if let Some(token) = self.identitytoken.clone().filter(|it| !it.is_empty()) {
            return Ok(Some(Credential::Refresh(token)));
        }
        let Some(auth) = self.auth.as_deref().filter(|it| !it.is_empty()) else {
            return Ok(self
                .username
                .clone()
                .zip(self.password.clone())
                .map(|(n, p)| Credential::Password(n, p)));
        };
        // Docker pads some with zeros.
        let text = BASE64_STANDARD.decode(auth).ok().and_then(|it| String::from_utf8(it).ok());
        let pair = text.as_deref().map(|it| it.trim_end_matches('\0')).and_then(|it| it.split_once(':'));
        match pair {
            Some((name, password)) => Ok(Some(Credential::of(name.to_owned(), password.to_owned()))),
            None => Err("an \"auth\" in it is not NAME:PASSWORD in base64".to_owned()),
        }
    }
}

/// The user's credential for a repository. The first file that has one counts; where there is none he is nobody, which may do.
pub(crate) fn find(
    host: &str,
    repository: &str,
    env: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<Option<Credential>> {
    let (named, others) = files(env);
    for (path, must) in named.into_iter().map(|it| (it, true)).chain(others.into_iter().map(|it| (it, false)))
    {
        let wrong =
            |why: String| Error::input(format!("looking for credentials in {}: {why}", path.display()));
        let bytes = match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must => continue,
            other => other.map_err(|error| wrong(error.to_string()))?,
        };
        let file = AuthFile::parse(&bytes).map_err(wrong)?;
        if let Some(found) = file.find(host, repository).map_err(wrong)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The file that the user named for this, alone, else those that tools write.
fn files(env: &dyn Fn(&str) -> Option<PathBuf>) -> (Option<PathBuf>, Vec<PathBuf>) {
    let given = |name: &str| env(name).filter(|it| !it.as_os_str().is_empty());
    if let Some(named) = given("REGISTRY_AUTH_FILE") {
        return (Some(named), Vec::new());
    }
    let home = given("HOME");
    let below = |dir: Option<PathBuf>, path: &str| dir.map(|it| it.join(path));
    let docker = given("DOCKER_CONFIG").or_else(|| below(home.clone(), ".docker"));
    let others = [
        below(given("XDG_RUNTIME_DIR"), "containers/auth.json"),
        below(given("XDG_CONFIG_HOME").or_else(|| below(home, ".config")), "containers/auth.json"),
        below(docker, "config.json"),
    ];
    (None, others.into_iter().flatten().collect())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LONGEST_FILE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LONGEST_FILE {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1 MiB")),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;

    fn password(name: &str) -> Option<Credential> {
        Some(Credential::Password(name.to_owned(), "pw".to_owned()))
    }

    #[test]
    fn files_of_docker_and_podman() {
        let auth = |name: &str| BASE64_STANDARD.encode(format!("{name}:pw"));
        let text = serde_json::json!({ "auths": {
            "https://index.docker.io/v1/": { "auth": auth("hub") },
            "localhost:5000": { "auth": auth("host") },
            "localhost:5000/team": { "auth": auth("team") },
            "other.example": { "username": "plain", "password": "pw" },
            "token.example": { "identitytoken": "secret", "auth": auth("x") },
            "empty.example": {}, "bad.example": { "auth": "!" }
        }, "psFormat": 1 });
        let file = AuthFile::parse(text.to_string().as_bytes()).expect("file");
        let find = |host, repository| file.find(host, repository).expect("found");
        assert_eq!(find("docker.io", "library/x"), password("hub"));
        assert_eq!(find("localhost:5000", "a/b"), password("host"));
        assert_eq!(find("localhost:5000", "team/b"), password("team"));
        assert_eq!(find("localhost:5000", "teams"), password("host"));
        assert_eq!(find("localhost:5001", "a"), None);
        assert_eq!(find("localhost", "a"), None);
        assert_eq!(find("other.example", "a"), password("plain"));
        assert_eq!(find("sub.other.example", "a"), None);
        assert_eq!(find("token.example", "a"), Some(Credential::Refresh("secret".to_owned())));
        assert_eq!(find("empty.example", "a"), None);
        assert!(file.find("bad.example", "a").is_err());
        assert!(AuthFile::parse(b"{\"auths\": 1}").is_err());
    }

    #[test]
    fn the_named_file_alone_counts_and_must_be_there() {
        let env = |name: &str| match name {
            "REGISTRY_AUTH_FILE" => Some(PathBuf::from("/nonexistent/auth.json")),
            _ => Some(PathBuf::from("/tmp")),
        };
        assert!(matches!(find("x.example", "a", &env), Err(error) if error.kind() == Kind::Input));
        assert_eq!(find("x.example", "a", &|_| None).expect("nobody"), None);
    }
}
