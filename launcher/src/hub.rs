//! Models and datasets by name: snapshots of the local Hugging Face cache. Nothing is downloaded.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Characters of a revision, or of a part of a name.
const MAX_NAME: usize = 200;
/// Bytes of a reference such as `refs/main`.
const MAX_REFERENCE: u64 = 200;

/// A checkpoint directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// As the evidence records it: the path as the user wrote it, or `NAME@REVISION` of a snapshot.
    pub name: String,
    /// Its path.
    pub dir: PathBuf,
}

impl Model {
    /// The directory that a user named by its path.
    pub fn directory(path: &Path) -> Self {
        Self { name: path.to_string_lossy().into_owned(), dir: path.to_owned() }
    }
}

/// The directory that a user named: a path, or the name of a model in the cache. `flag` is the option, for messages.
pub fn model(flag: &str, text: &Path) -> Result<Model> {
    // Names of datasets have this prefix, and no other name has a colon.
    let name = text.to_str().map(|text| text.strip_prefix("hf:").unwrap_or(text));
    let named = name.and_then(Name::parse).filter(|_| !text.exists());
    match named {
        None => Ok(Model::directory(text)),
        Some(name) => {
            let (revision, dir) = snapshot(Kind::Model, &name, &|variable| std::env::var_os(variable))
                .map_err(|error| {
                    error.context(format_args!("{flag} {}: no such directory", text.display()))
                })?;
            Ok(Model { name: format!("{}@{revision}", name.repository), dir })
        }
    }
}

/// The snapshot of a dataset in the cache: its exact revision and its directory. `text` is `ORG/NAME` or `ORG/NAME@REVISION`.
pub fn dataset(text: &str) -> Result<(String, PathBuf)> {
    let name = Name::parse(text).ok_or_else(|| {
        Error::input(format!("dataset `hf:{text}`: not the name of a dataset"))
            .with_hint("write hf:ORG/NAME or hf:ORG/NAME@REVISION")
    })?;
    let (revision, dir) = snapshot(Kind::Dataset, &name, &|variable| std::env::var_os(variable))
        .map_err(|error| error.context(format_args!("dataset `hf:{text}`")))?;
    Ok((format!("{}@{revision}", name.repository), dir))
}

#[derive(Clone, Copy)]
enum Kind {
    Model,
    Dataset,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Model => "models--",
            Self::Dataset => "datasets--",
        }
    }

    /// What helps where it is not in the cache. A model may as well be a directory whose path is wrong.
    fn remedy(self) -> &'static str {
        match self {
            Self::Model => "pass the directory that contains config.json, or download the model first",
            Self::Dataset => "download it first",
        }
    }

    /// What the downloading command needs besides the name.
    fn option(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => " --repo-type dataset",
        }
    }
}

/// `NAME` or `ORG/NAME`, and `@REVISION` where it is given.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    repository: String,
    revision: Option<String>,
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (text, None),
        };
        let plain = |part: &str| {
            part.len() <= MAX_NAME
                && part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
                && !part.contains("..")
                && !part.contains("--")
        };
        // A branch may have slashes in its name.
        let valid = repository.split('/').count() <= 2
            && repository.split('/').all(plain)
            && revision.is_none_or(|revision| revision.split('/').all(plain));
        valid.then(|| Self { repository: repository.to_owned(), revision: revision.map(str::to_owned) })
    }
}

/// The exact revision and the directory of a snapshot.
fn snapshot(
    kind: Kind,
    name: &Name,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<(String, PathBuf)> {
    let cache = cache(variable)?;
    let repository = cache.join(format!("{}{}", kind.prefix(), name.repository.replace('/', "--")));
    let wanted = name.revision.as_deref();
    let download = {
        let revision = wanted.map_or_else(String::new, |revision| format!(" --revision {revision}"));
        format!("{}: hf download{} {}{revision}", kind.remedy(), kind.option(), name.repository)
    };
    if !repository.is_dir() {
        return Err(Error::input(format!(
            "not in the Hugging Face cache: {} does not exist",
            repository.display()
        ))
        .with_hint(download));
    }
    let snapshots = repository.join("snapshots");
    let exact = |revision: &str| is_commit(revision) && snapshots.join(revision).is_dir();
    let found = match wanted {
        Some(revision) if exact(revision) => Some(revision.to_owned()),
        _ => reference(&repository.join("refs").join(wanted.unwrap_or("main")))
            .filter(|revision| exact(revision)),
    };
    match found {
        Some(revision) => Ok((revision.clone(), snapshots.join(revision))),
        None => {
            let wanted = wanted.unwrap_or("main");
            Err(Error::input(format!(
                "the Hugging Face cache has no snapshot of the revision {wanted} in {}",
                repository.display()
            ))
            .with_hint(download))
        }
    }
}

/// The directory of the cache, as huggingface_hub finds it.
fn cache(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("HF_HUB_CACHE")
        .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| path("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| path("XDG_CACHE_HOME").map(|home| home.join("huggingface/hub")))
        .or_else(|| path("HOME").map(|home| home.join(".cache/huggingface/hub")))
        .ok_or_else(|| {
            Error::input("the directory of the Hugging Face cache is unknown: HOME is not set")
                .with_hint("set HF_HUB_CACHE")
        })
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The commit that a reference, such as the file `refs/main`, names.
pub fn reference(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).ok().filter(|_| path.is_file())?;
    let mut text = String::new();
    file.take(MAX_REFERENCE).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned()).filter(|revision| is_commit(revision))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        let name = |text: &str| Name::parse(text).map(|name| (name.repository, name.revision));
        assert_eq!(name("gpt2"), Some(("gpt2".to_owned(), None)));
        assert_eq!(name("a-b/c.d_1@v1.0"), Some(("a-b/c.d_1".to_owned(), Some("v1.0".to_owned()))));
        assert_eq!(name("a/b@refs/pr/1"), Some(("a/b".to_owned(), Some("refs/pr/1".to_owned()))));
        for text in
            ["", "/a", "./a", "../a", "a/b/c", "a/", "~/a", "a b", "a@", "a@../b", "-a", "a--b", "\u{e9}"]
        {
            assert_eq!(name(text), None, "{text}");
        }
    }

    #[test]
    fn a_snapshot_is_found_by_branch_or_commit() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        let repository = root.path().join("hub/models--acme--tiny");
        for revision in [&one, &two] {
            std::fs::create_dir_all(repository.join("snapshots").join(revision)).unwrap();
        }
        std::fs::create_dir_all(repository.join("refs")).unwrap();
        std::fs::write(repository.join("refs/main"), format!("{one}\n")).unwrap();
        std::fs::write(repository.join("refs/evil"), "../../..").unwrap();
        let home = root.path().as_os_str().to_owned();
        let find = |text: &str| {
            snapshot(Kind::Model, &Name::parse(text).unwrap(), &|name| {
                (name == "HF_HOME").then(|| home.clone())
            })
        };
        assert_eq!(find("acme/tiny").unwrap(), (one.clone(), repository.join("snapshots").join(&one)));
        assert_eq!(find(&format!("acme/tiny@{two}")).unwrap().0, two);
        let error = find("acme/tiny@evil").unwrap_err();
        assert!(error.message().contains("no snapshot of the revision evil"), "{error}");
        assert_eq!(
            error.hint(),
            Some(
                "pass the directory that contains config.json, or download the model first: hf download acme/tiny --revision evil"
            )
        );
        let error = find("acme/other").unwrap_err();
        assert!(error.message().contains("hub/models--acme--other does not exist"), "{error}");
        let error = snapshot(Kind::Dataset, &Name::parse("acme/tiny").unwrap(), &|_| None).unwrap_err();
        assert!(error.message().contains("HOME is not set"), "{error}");
    }

    #[test]
    fn variables_are_tried_in_the_order_of_huggingface_hub() {
        let all = ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"];
        let expected = [
            "/HF_HUB_CACHE",
            "/HF_HOME/hub",
            "/XDG_CACHE_HOME/huggingface/hub",
            "/HOME/.cache/huggingface/hub",
        ];
        for (first, expected) in expected.into_iter().enumerate() {
            let found = cache(&|name| all[first..].contains(&name).then(|| format!("/{name}").into()));
            assert_eq!(found.unwrap(), Path::new(expected));
        }
    }
}
