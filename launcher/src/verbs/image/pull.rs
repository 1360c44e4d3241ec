//! `invarlock runtime image pull`.

use crate::args::PullArgs;
use crate::error::Result;
use crate::image;
use crate::network::NetworkPolicy;
use crate::registry::{self, RegistryOptions};
use crate::ui::{self, Level, Ui};
use invarlock_images::Pulled;
use serde::Serialize;

/// The output of `runtime image pull --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct PullOutput {
    /// The image.
    #[serde(flatten)]
    pulled: Pulled,
    /// Always `runtime-image-pull-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-image-pull-v1")))]
    format_version: &'static str,
}

/// Pulls an image from a registry.
pub fn run(args: &PullArgs, network: &NetworkPolicy) -> Result<u8> {
    let name = registry::name(&args.from)?;
    let network = network.require("pulling an image")?;
    let extract = (!args.no_unpack).then(|| args.special_files.into());
    let store = image::store()?;
    let options = RegistryOptions { plain_http: args.registry.plain_http, push: false };
    let client = registry::client(network, &name, options)?;
    let step = Ui::new(Level::Normal).step("pulling", 0, true);
    let add = |bytes, total| step.add_of(bytes, total);
    let pulled = store.pull(&name, &client, args.tag.as_deref(), extract, &add)?;
    drop(step);
    if pulled.platform_assumed {
        ui::on_stderr(ui::PLATFORM_ASSUMED);
    }
    let text = format!("{} {}", ui::printable(&pulled.reference), pulled.manifest_digest);
    let output = PullOutput { pulled, format_version: "runtime-image-pull-v1" };
    ui::result(args.json, &output, &text)?;
    Ok(0)
}
