//! `invarlock runtime image import`.

use crate::error::{Context as _, Error, Kind, Result};
use crate::{image, ui};
use invarlock_images::{Policy as SpecialFiles, Reference};
use serde_json::json;
use std::path::Path;

/// Copies an image into the store and extracts its layers.
pub fn run(from: &str, name: Option<&str>, special_files: SpecialFiles, json: bool) -> Result<u8> {
    let store = image::store()?;
    let reference = source(from)?;
    let step = image::copy_step("importing", &store, &reference)?;
    let imported = store.import(&reference, name, special_files, &|bytes| step.add(bytes))?;
    drop(step);
    let mut value = json!(imported);
    value["format_version"] = "runtime-image-import-v1".into();
    let text = match name {
        Some(name) => format!("{name} {}", imported.manifest_digest),
        None => imported.reference,
    };
    ui::result(json, &value, &text);
    Ok(0)
}

/// The source of the import. Without a format, a path is easily taken for the name of an image.
fn source(from: &str) -> Result<Reference> {
    let has_format =
        ["oci:", "oci-archive:", "docker-archive:", "sha256:"].iter().any(|f| from.starts_with(f));
    let parsed = Reference::parse(from);
    let is_path = match &parsed {
        _ if has_format || from.contains("://") => false,
        Ok(Reference::Registry(_)) => Path::new(from).exists(),
        Ok(_) => false,
        Err(error) => error.kind() == Kind::Input,
    };
    match is_path {
        true => Err(Error::input(format!("image source {from:?} has no format")))
            .hint("write oci:DIR, oci-archive:FILE or docker-archive:FILE"),
        false => parsed,
    }
}

#[cfg(test)]
mod tests {
    use super::source;

    #[test]
    fn source_without_format_is_reported_as_such() {
        for path in ["demo/valid.jsonl", "image.tar", "./image.tar", "/images/image.tar", "/"] {
            let error = source(path).expect_err(path);
            assert!(error.message().ends_with("has no format"), "{error:?}");
            assert_eq!(error.hint(), Some("write oci:DIR, oci-archive:FILE or docker-archive:FILE"));
        }
        for good in ["oci:dir", "oci-archive:image.tar", "docker-archive:image.tar:a:b", "ghcr.io/a/b:1"] {
            assert!(source(good).is_ok(), "{good}");
        }
        for malformed in ["oci:", "http://host.example/a", "sha256:00"] {
            assert!(!source(malformed).expect_err(malformed).message().ends_with("has no format"));
        }
    }
}
