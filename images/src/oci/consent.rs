//! What the user agreed to for an image of the store, as annotations in the store's index.
//!
//! The agreement is kept for the image and not for its layers: another image with the same layer needs its own. An index outside the store is
//! not trusted to contain one.

use oci_spec::image::Descriptor;
use serde::Serialize;
use serde_json::Value;

use super::descriptor::annotation;

/// Devices and fifos of the image are left out.
const DEVICES_DROPPED: &str = "org.invarlock.devices-dropped";
/// The most bytes that all files of a layer may have.
const LAYER_SIZE: &str = "org.invarlock.layer-size";

/// What the user agreed to when an image was added to the store, as far as the image needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Consent {
    /// Devices and fifos of the image are left out (`--drop-devices`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub drop_devices: bool,
    /// The most bytes that all files of a layer may have, with holes (`--layer-size`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_size: Option<u64>,
}

impl Consent {
    /// Whether nothing was agreed to.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// That of an entry of the store's index.
    pub(crate) fn of(entry: &Descriptor) -> Self {
        Self::read(|name| annotation(entry, name))
    }

    /// The same for an entry as JSON.
    pub(crate) fn of_json(entry: &Value) -> Self {
        Self::read(|name| entry["annotations"][name].as_str())
    }

    fn read<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Self {
        Self {
            drop_devices: annotation(DEVICES_DROPPED) == Some("true"),
            layer_size: annotation(LAYER_SIZE).and_then(|bytes| bytes.parse().ok()),
        }
    }

    /// Both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            drop_devices: self.drop_devices || other.drop_devices,
            layer_size: self.layer_size.max(other.layer_size),
        }
    }

    /// Adds it to an entry of the store's index, as JSON.
    pub(crate) fn add_to(self, entry: &mut Value) {
        let Self { drop_devices, layer_size } = self.and(Self::of_json(entry));
        if drop_devices {
            entry["annotations"][DEVICES_DROPPED] = "true".into();
        }
        if let Some(bytes) = layer_size {
            entry["annotations"][LAYER_SIZE] = bytes.to_string().into();
        }
    }
}
