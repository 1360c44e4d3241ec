//! Images of the store by the names that callers of container engines use, and the commands about them.

use super::{Engine, about, to_value};
use crate::error::{Context as _, Error, Kind, Result};
use crate::image;
use crate::network::NetworkPolicy;
use crate::registry::{self, RegistryOptions};
use crate::ui;
use invarlock_images::{Digest, Policy as SpecialFiles, Reference, ResolvedImage, Store};
use serde::Serialize;
use std::collections::BTreeSet;

/// The host that Podman adds to the name of an image that came from no registry.
const LOCALHOST: &str = "localhost/";

/// An image that a caller named.
pub struct Found {
    /// The image.
    pub image: ResolvedImage,
    /// A reference to exactly this image, with the caller's name where it used one.
    pub pinned: String,
}

/// Finds an image of the store by its name (`NAME[:TAG]`, with or without `localhost/`), by name and digest, or by the digest of its
/// configuration, which engines call its id.
pub fn find(store: &Store, text: &str) -> Result<Found> {
    let image = match id(text) {
        Some(id) => by_id(store, &id, text)?,
        None => by_name(store, text)?,
    };
    if image.speaks.as_deref() == Some("measure") {
        let message = format!("image {text} speaks `measure`: only `invarlock evaluate` can use it");
        return Err(Error::input(message)).hint(
            "name an image with the Python package, such as one of `make python-image` (INVARLOCK_RUNTIME_IMAGE)",
        );
    }
    let pinned = match &image.reference {
        named if id(text).is_some() || has_digest(named) => named.to_string(),
        named => format!("{named}@{}", image.manifest_digest),
    };
    Ok(Found { image, pinned })
}

fn has_digest(reference: &Reference) -> bool {
    match reference {
        Reference::Tag { digest, .. } => digest.is_some(),
        Reference::Registry(name) => name.digest.is_some(),
        _ => true,
    }
}

/// `sha256:HEX`, or 64 hexadecimal digits.
fn id(text: &str) -> Option<Digest> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_id = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| Digest::parse(&format!("sha256:{hex}")).ok())?
}

/// The image with this configuration, or with this manifest. Several manifests can have one configuration: each is the same image, packed
/// in another way.
fn by_id(store: &Store, id: &Digest, text: &str) -> Result<ResolvedImage> {
    for listed in store.list()? {
        let image = store.resolve(&Reference::Digest(listed.manifest_digest))?;
        if image.config_digest == *id || image.manifest_digest == *id {
            return Ok(image);
        }
    }
    Err(Error::input(format!("image {text} not found"))).hint("`invarlock runtime image ls` lists the images")
}

fn by_name(store: &Store, text: &str) -> Result<ResolvedImage> {
    let name = name(text)?;
    store.resolve(&name).map_err(|error| match (error.kind(), &name) {
        (Kind::Input, Reference::Registry(_)) => {
            error.without_hint().with_hint(format!("pull it first: `podman pull {text}`"))
        }
        _ => error,
    })
}

fn name(text: &str) -> Result<Reference> {
    let local = text.strip_prefix(LOCALHOST).filter(|name| !name.contains('/'));
    match Reference::parse(local.unwrap_or(text))? {
        named @ (Reference::Tag { .. } | Reference::Registry(_)) => Ok(named),
        other => Err(Error::input(format!("image {other} is not in the store")))
            .hint(format!("import it first: `invarlock runtime image import {other} NAME:TAG`")),
    }
}

/// An image as engines describe it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    digest: Digest,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    architecture: &'static str,
    os: &'static str,
    size: u64,
    config: Config,
    #[serde(rename = "RootFS")]
    root_fs: RootFs,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    user: String,
    env: Vec<String>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    working_dir: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    #[serde(rename = "Type")]
    kind: &'static str,
    layers: Vec<Digest>,
}

impl Inspected {
    fn new(engine: Engine, store: &Store, image: ResolvedImage) -> Result<Self> {
        let listed = store.list()?;
        let names = listed.iter().filter(|listed| listed.manifest_digest == image.manifest_digest);
        let names: Vec<&str> =
            names.map(|listed| &*listed.reference).filter(|name| id(name).is_none()).collect();
        let repositories: BTreeSet<&str> = names.iter().map(|name| repository(name)).collect();
        let digests = repositories.into_iter().flat_map(|repository| {
            let local = (!repository.contains('/')).then(|| format!("{LOCALHOST}{repository}"));
            [Some(repository.to_owned()), local].into_iter().flatten()
        });
        let id = image.config_digest.to_string();
        Ok(Inspected {
            id: match engine {
                Engine::Docker => id,
                Engine::Podman => id.trim_start_matches("sha256:").to_owned(),
            },
            digest: image.manifest_digest,
            repo_tags: names.iter().map(|name| (*name).to_owned()).collect(),
            repo_digests: digests.map(|name| format!("{name}@{}", image.manifest_digest)).collect(),
            architecture: about::architecture(),
            os: "linux",
            size: image.bytes,
            config: Config {
                user: image.user.unwrap_or_default(),
                env: image.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
                entrypoint: image.entrypoint,
                cmd: image.cmd,
                working_dir: image.cwd,
            },
            root_fs: RootFs {
                kind: "layers",
                layers: image.layers.iter().map(|layer| layer.diff_id).collect(),
            },
        })
    }
}

/// The name without its tag.
fn repository(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// `image inspect`.
pub fn inspect(engine: Engine, text: &str, format: Option<&str>) -> Result<u8> {
    let store = image::store()?;
    let found = find(&store, text).inspect_err(|_| {
        // Podman and Docker print the list of what was found, also if that is nothing.
        if format.is_none() {
            ui::out("[]");
        }
    })?;
    let inspected = to_value(&Inspected::new(engine, &store, found.image)?)?;
    match format {
        None => super::print(&vec![inspected].into(), None),
        format => super::print(&inspected, format),
    }
}

/// `image exists`.
pub fn exists(text: &str) -> Result<u8> {
    match find(&image::store()?, text) {
        Ok(_) => Ok(0),
        Err(error) if error.kind() == Kind::Input => Ok(1),
        Err(error) => Err(error),
    }
}

/// `pull`. Prints the id of the image, as the engine does.
pub fn pull(engine: Engine, text: &str, network: &NetworkPolicy) -> Result<u8> {
    let (name, store) = (registry::name(text)?, image::store()?);
    let client = registry::client(network.require("pulling an image")?, &name, RegistryOptions::default())?;
    let pulled = store.pull(&name, &client, None, Some(SpecialFiles::default()), &|_, _| ())?;
    if pulled.platform_assumed {
        ui::on_stderr(ui::PLATFORM_ASSUMED);
    }
    let image = store.resolve(&Reference::Digest(pulled.manifest_digest))?;
    let id = image.config_digest.to_string();
    ui::out(match engine {
        Engine::Docker => text,
        Engine::Podman => id.trim_start_matches("sha256:"),
    });
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::{id, name, repository};

    #[test]
    fn names_and_ids_are_told_apart() {
        let hex = "a".repeat(64);
        assert!(id(&hex).is_some() && id(&format!("sha256:{hex}")).is_some());
        assert!(id("a").is_none() && id("tool:1").is_none() && id(&format!("tool@sha256:{hex}")).is_none());
        for (text, named) in [
            ("tool", "tool:latest"),
            ("localhost/tool:1", "tool:1"),
            ("localhost/a/tool:1", "localhost/a/tool:1"),
            ("ghcr.io/a/tool:1", "ghcr.io/a/tool:1"),
        ] {
            assert_eq!(name(text).expect(text).to_string(), named);
        }
        for bad in ["oci:dir:tag", "oci-archive:file.tar", "-x", "", "a b"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn repository_is_the_name_without_its_tag() {
        for (name, expected) in
            [("a:1", "a"), ("h:5000/a:1", "h:5000/a"), ("h:5000/a", "h:5000/a"), ("a", "a")]
        {
            assert_eq!(repository(name), expected, "{name}");
        }
    }
}
