//! `invarlock runtime image import`.

use crate::error::{Error, Kind, Result};
use crate::{image, ui};
use invarlock_images::{Imported, Policy as SpecialFiles, Reference};
use serde::Serialize;
use std::path::Path;

/// The output of `runtime image import --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct ImportOutput {
    /// The image.
    #[serde(flatten)]
    imported: Imported,
    /// Always `runtime-image-import-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-image-import-v1")))]
    format_version: &'static str,
}

/// Copies an image into the store and extracts its layers.
pub fn run(from: &str, name: Option<&str>, special_files: SpecialFiles, json: bool) -> Result<u8> {
    let store = image::store()?;
    let reference = source(from)?;
    // `tar:image` is also how an image of the store would be named.
    if matches!(reference, Reference::Tag { .. }) && store.resolve(&reference).is_err() {
        return Err(unknown_format(from));
    }
    let step = image::copy_step("importing", &store, &reference)?;
    let imported = store.import(&reference, name, special_files, &|bytes| step.add(bytes))?;
    drop(step);
    if imported.platform_assumed {
        ui::on_stderr(ui::PLATFORM_ASSUMED);
    }
    let text = match name {
        Some(name) => format!("{name} {}", imported.manifest_digest),
        None => imported.reference.clone(),
    };
    let output = ImportOutput { imported, format_version: "runtime-image-import-v1" };
    ui::result(json, &output, &text)?;
    Ok(0)
}

/// The source of the import. Without a format, a path is easily taken for the name of an image.
fn source(from: &str) -> Result<Reference> {
    let has_format = ["oci:", "oci-archive:", "docker-archive:", "sha256:", "docker://"]
        .iter()
        .any(|format| from.starts_with(format));
    let parsed = Reference::parse(from);
    let is_wrong = match &parsed {
        _ if has_format => false,
        Ok(Reference::Registry(_)) => Path::new(from).exists(),
        // A name alone means an image of the store, which is no source.
        Ok(Reference::Tag { .. }) => !from.contains([':', '@']),
        Ok(_) => false,
        Err(error) => error.kind() == Kind::Input,
    };
    if is_wrong { Err(unknown_format(from)) } else { parsed }
}

/// The error for a source that is neither in a known format nor in the store.
fn unknown_format(from: &str) -> Error {
    let prefix = from.split_once(':').map(|(prefix, _)| prefix);
    let message = match prefix.filter(|prefix| !prefix.is_empty() && !prefix.contains('/')) {
        Some(prefix) => {
            format!(
                "image source {from:?}: {prefix:?} is not a format that import reads, and the store has no image {from}"
            )
        }
        None => format!("image source {from:?} has no format"),
    };
    Error::input(message).with_hint("import reads oci:DIR, oci-archive:FILE and docker-archive:FILE")
}

#[cfg(test)]
mod tests {
    use super::source;

    #[test]
    fn source_without_format_is_reported_as_such() {
        for path in ["demo/valid.jsonl", "image.tar", "./image.tar", "/images/image.tar", "/"] {
            let error = source(path).expect_err(path);
            assert!(error.message().ends_with("has no format"), "{error:?}");
            assert_eq!(error.hint(), Some("import reads oci:DIR, oci-archive:FILE and docker-archive:FILE"));
        }
        for (from, prefix) in [("dir:/images/x", "dir"), ("http://host.example/a", "http"), ("OCI:x", "OCI")]
        {
            let error = source(from).expect_err(from);
            assert!(
                error.message().contains(&format!("{prefix:?} is not a format that import reads")),
                "{error:?}"
            );
            assert!(error.hint().is_some_and(|hint| hint.contains("oci-archive:FILE")), "{error:?}");
        }
        for good in ["oci:dir", "oci-archive:image.tar", "docker-archive:image.tar:a:b", "ghcr.io/a/b:1"] {
            assert!(source(good).is_ok(), "{good}");
        }
        for malformed in ["oci:", "docker://x/y", "sha256:00"] {
            assert!(!source(malformed).expect_err(malformed).message().ends_with("has no format"));
        }
    }
}
