//! `invarlock runtime image push`.

use crate::args::PushArgs;
use crate::error::Result;
use crate::image;
use crate::network::NetworkPolicy;
use crate::registry::{self, RegistryOptions};
use crate::ui::{self, Level, Ui};
use invarlock_images::Reference;
use serde_json::json;

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
    let value = json!({"format_version": "runtime-image-push-v1", "to": to, "manifest_digest": digest});
    ui::result(args.json, &value, &format!("{} {digest}", ui::printable(&args.to)));
    Ok(0)
}
