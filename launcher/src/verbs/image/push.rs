//! `invarlock runtime image push`.

use crate::args::PushArgs;
use crate::error::Result;
use crate::image;
use crate::network::NetworkPolicy;
use crate::registry::{self, RegistryOptions};
use crate::ui::{self, Level, Ui};
use invarlock_images::{Digest, Reference};
use serde::Serialize;

/// The output of `runtime image push --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct PushOutput {
    /// Always `runtime-image-push-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-image-push-v1")))]
    format_version: &'static str,
    /// The destination.
    to: String,
    /// The digest of the manifest.
    manifest_digest: Digest,
}

/// Pushes an image to a registry.
pub fn run(args: &PushArgs, network: &NetworkPolicy) -> Result<u8> {
    let to = registry::name(&args.to)?;
    let reference = Reference::parse(&args.image)?;
    let network = network.require("pushing an image")?;
    let store = image::store()?;
    // A missing image is reported before the registry is contacted.
    store.resolve(&reference)?;
    let options = RegistryOptions { plain_http: args.registry.plain_http, push: true };
    let client = registry::client(network, &to, options)?;
    let step = Ui::new(Level::Normal).step("pushing", 0, true);
    let digest = store.push(&reference, &to, &client, &|bytes, total| step.add_of(bytes, total))?;
    drop(step);
    let output =
        PushOutput { format_version: "runtime-image-push-v1", to: to.to_string(), manifest_digest: digest };
    ui::result(args.json, &output, &format!("{} {digest}", ui::printable(&args.to)))?;
    Ok(0)
}
