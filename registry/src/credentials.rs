//! Finds the user's credential for a registry in the files that `docker login` and `podman login` write, and in the credential helpers
//! that these files name. The files are trusted as far as the user is: they may name a program to start.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use invarlock_error::{Error, Result};
use serde::Deserialize;

use crate::credential::Credential;
use crate::credential_helper;

const MAX_FILE: u64 = 1 << 20;

/// The fields of a credential file that are used; others are ignored.
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
    pub fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("invalid credential file: {error}"))
    }

    /// The credential for a repository of a host. The longest matching key wins: podman stores keys for parts of a registry.
    pub fn find(&self, host: &str, repository: &str) -> std::result::Result<Option<Credential>, String> {
        if let Some(name) = self.cred_helpers.get(host) {
            return credential_helper::get(name, server_name(host));
        }
        let entry = candidate_keys(host, repository).into_iter().find_map(|key| {
            self.auths.iter().find(|(known, _)| normalized_key(known) == key).map(|(_, entry)| entry)
        });
        if let Some(found) = entry.and_then(|entry| entry.credential().transpose()) {
            return found.map(Some);
        }
        match &self.creds_store {
            Some(name) if !name.is_empty() => credential_helper::get(name, server_name(host)),
            _ => Ok(None),
        }
    }
}

/// The name of a registry in Docker's files and in credential helpers.
fn server_name(host: &str) -> &str {
    if host == "docker.io" { "https://index.docker.io/v1/" } else { host }
}

/// A key without the scheme and the version path that Docker adds to hosts.
fn normalized_key(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.strip_suffix('/').unwrap_or(key);
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

/// Keys that match a repository, from the whole name down to the host.
fn candidate_keys(host: &str, repository: &str) -> Vec<String> {
    let mut keys = vec![format!("{host}/{repository}")];
    while let Some((shorter, _)) = keys.last().and_then(|key| key.rsplit_once('/')) {
        keys.push(shorter.to_owned());
    }
    if host == "docker.io" {
        keys.push("index.docker.io".to_owned());
    }
    keys
}

impl Entry {
    fn credential(&self) -> std::result::Result<Option<Credential>, String> {
        if let Some(token) = self.identitytoken.clone().filter(|token| !token.is_empty()) {
            return Ok(Some(Credential::Refresh(token)));
        }
        let Some(auth) = self.auth.as_deref().filter(|auth| !auth.is_empty()) else {
            let pair = self.username.clone().zip(self.password.clone());
            return Ok(pair.map(|(name, password)| Credential::Password(name, password)));
        };
        let text = BASE64_STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        // Docker pads some values with NUL bytes.
        let pair = text.as_deref().map(|text| text.trim_end_matches('\0'));
        match pair.and_then(|pair| pair.split_once(':')) {
            Some((name, password)) => Ok(Some(Credential::from_pair(name.to_owned(), password.to_owned()))),
            None => Err("an \"auth\" value is not NAME:PASSWORD in base64".to_owned()),
        }
    }
}

/// The user's credential for a repository, from the first file that has one. Without a credential, requests are anonymous.
pub(crate) fn find(
    host: &str,
    repository: &str,
    env: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<Option<Credential>> {
    let (required, optional) = candidate_files(env);
    let required = required.into_iter().map(|path| (path, true));
    for (path, is_required) in required.chain(optional.into_iter().map(|path| (path, false))) {
        let failed =
            |why: String| Error::input(format!("looking for credentials in {}: {why}", path.display()));
        let bytes = match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_required => continue,
            other => other.map_err(|error| failed(error.to_string()).with_source(error))?,
        };
        let file = AuthFile::parse(&bytes).map_err(failed)?;
        if let Some(found) = file.find(host, repository).map_err(failed)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The file that `REGISTRY_AUTH_FILE` names, which then is the only one and must exist; otherwise the default files of podman and Docker.
fn candidate_files(env: &dyn Fn(&str) -> Option<PathBuf>) -> (Option<PathBuf>, Vec<PathBuf>) {
    let variable = |name: &str| env(name).filter(|value| !value.as_os_str().is_empty());
    if let Some(path) = variable("REGISTRY_AUTH_FILE") {
        return (Some(path), Vec::new());
    }
    let home = variable("HOME");
    let below = |dir: Option<PathBuf>, path: &str| dir.map(|dir| dir.join(path));
    let docker = variable("DOCKER_CONFIG").or_else(|| below(home.clone(), ".docker"));
    let defaults = [
        below(variable("XDG_RUNTIME_DIR"), "containers/auth.json"),
        below(variable("XDG_CONFIG_HOME").or_else(|| below(home, ".config")), "containers/auth.json"),
        below(docker, "config.json"),
    ];
    (None, defaults.into_iter().flatten().collect())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_FILE {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than 1 MiB")),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_error::Kind;

    fn password_of(name: &str) -> Option<Credential> {
        Some(Credential::Password(name.to_owned(), "pw".to_owned()))
    }

    #[test]
    fn finds_credentials_in_files_of_docker_and_podman() {
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
        let find = |host, repository| file.find(host, repository).expect("valid entry");
        assert_eq!(find("docker.io", "library/x"), password_of("hub"));
        assert_eq!(find("localhost:5000", "a/b"), password_of("host"));
        assert_eq!(find("localhost:5000", "team/b"), password_of("team"));
        assert_eq!(find("localhost:5000", "teams"), password_of("host"));
        assert_eq!(find("localhost:5001", "a"), None);
        assert_eq!(find("localhost", "a"), None);
        assert_eq!(find("other.example", "a"), password_of("plain"));
        assert_eq!(find("sub.other.example", "a"), None);
        assert_eq!(find("token.example", "a"), Some(Credential::Refresh("secret".to_owned())));
        assert_eq!(find("empty.example", "a"), None);
        assert!(file.find("bad.example", "a").is_err());
        assert!(AuthFile::parse(b"{\"auths\": 1}").is_err());
    }

    #[test]
    fn file_named_by_variable_must_exist() {
        let env = |name: &str| match name {
            "REGISTRY_AUTH_FILE" => Some(PathBuf::from("/nonexistent/auth.json")),
            _ => Some(PathBuf::from("/tmp")),
        };
        let error = find("x.example", "a", &env).expect_err("missing file");
        assert_eq!((error.kind(), error.io_kind()), (Kind::Input, Some(io::ErrorKind::NotFound)));
        assert_eq!(find("x.example", "a", &|_| None).expect("no file"), None);
    }
}
