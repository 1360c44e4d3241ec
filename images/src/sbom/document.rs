//! SBOM documents in CycloneDX format.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde_json::{Value, json};

use crate::oci::Digest;

/// Characters that are escaped in a part of a package URL.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// One component of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Component {
    pub name: String,
    pub version: String,
    /// The package URL.
    pub purl: String,
    /// Package URLs of its dependencies, if known.
    pub needs: Vec<String>,
}

impl Component {
    pub fn new(kind: &str, name: &str, version: &str, rest: &str) -> Self {
        let purl = format!("pkg:{kind}/{}@{}{rest}", escaped(name), escaped(version));
        Self { name: name.to_owned(), version: version.to_owned(), purl, needs: Vec::new() }
    }
}

/// The components of an image by package URL.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sbom(BTreeMap<String, Component>);

impl Sbom {
    pub fn add(&mut self, component: Component) {
        self.0.insert(component.purl.clone(), component);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Component> {
        self.0.values()
    }

    pub fn retain(&mut self, stays: impl Fn(&Component) -> bool) {
        self.0.retain(|_, component| stays(component));
    }

    /// The document. It depends only on the components and the image: the serial number follows from its digest, and it has no timestamp.
    pub fn to_document(&self, name: &str, image: &Digest) -> Value {
        let component = |it: &Component| json!({ "type": "library", "bom-ref": it.purl, "name": it.name, "version": it.version, "purl": it.purl });
        let needs = |it: &Component| json!({ "ref": it.purl, "dependsOn": it.needs });
        let mut document = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "serialNumber": "",
            "version": 1,
            "metadata": { "component": {
                "type": "container", "bom-ref": image, "name": name, "version": image,
                "hashes": [{ "alg": "SHA-256", "content": image.hex() }],
            } },
            "components": self.0.values().map(component).collect::<Vec<_>>(),
            "dependencies": self.0.values().map(needs).collect::<Vec<_>>(),
        });
        let mut hex = Digest::of(document.to_string().as_bytes()).hex();
        // UUID version 8 (custom), variant of RFC 9562.
        hex.replace_range(12..13, "8");
        hex.replace_range(16..17, "8");
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]];
        document["serialNumber"] = json!(format!("urn:uuid:{}", parts.join("-")));
        document
    }

    /// Parses a document that InvarLock wrote.
    pub fn from_document(document: &Value) -> Option<Self> {
        let mut sbom = Self::default();
        for it in document["components"].as_array()? {
            let text = |key: &str| it[key].as_str().map(str::to_owned);
            let (name, version, purl) = (text("name")?, text("version")?, text("purl")?);
            sbom.add(Component { name, version, purl, needs: Vec::new() });
        }
        for it in document["dependencies"].as_array()? {
            if let Some(component) = sbom.0.get_mut(it["ref"].as_str()?) {
                let needs = it["dependsOn"].as_array()?.iter();
                component.needs = needs.filter_map(|it| it.as_str().map(str::to_owned)).collect();
            }
        }
        Some(sbom)
    }
}

/// A part of a package URL.
fn escaped(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, ESCAPED)
}
