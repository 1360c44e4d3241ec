//! `invarlock runtime image build`.

use crate::args::BuildArgs;
use crate::error::{Error, Result};
use crate::image::{self, DEFAULT_IMAGE};
use crate::output::ShownPath;
use crate::ui::{self, Level, Ui};
use invarlock_images::{
    Base, Built, Changes, Digest, Policy, Recipe, Reference, SpecialFilePolicy, parse_time,
};
use serde::Serialize;

/// The output of `runtime image build --json`.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum BuildOutput<'a> {
    /// Without `--name`.
    Default(DefaultImageOutput<'a>),
    /// With `--name`.
    Named(NamedImageOutput),
}

/// The default image.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct DefaultImageOutput<'a> {
    /// Always `runtime-image-build-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-image-build-v1")))]
    format_version: &'static str,
    /// The name of the image.
    reference: String,
    /// The digest of the manifest.
    manifest_digest: Digest,
    /// The digest of the configuration.
    config_digest: Digest,
    /// File of the evaluator in the image.
    evaluator: ShownPath<'a>,
}

/// An image that the flags describe.
#[derive(Serialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub struct NamedImageOutput {
    /// The image.
    #[serde(flatten)]
    built: Built,
    /// Always `runtime-image-build-v1`.
    #[cfg_attr(feature = "schemas", schemars(extend("const" = "runtime-image-build-v1")))]
    format_version: &'static str,
}

/// Builds the default image, or with `--name` the image that the flags describe.
pub fn run(args: &BuildArgs) -> Result<u8> {
    // Checked also for the default image, which does not depend on it: an invalid value is an error in every case.
    let time = source_date()?;
    match &args.name {
        None => default_image(args),
        Some(name) => named_image(args, name, time),
    }
}

fn default_image(args: &BuildArgs) -> Result<u8> {
    let path = image::evaluator(args.evaluator.as_deref())?;
    let resolved = image::build(&path)?;
    let output = BuildOutput::Default(DefaultImageOutput {
        format_version: "runtime-image-build-v1",
        reference: resolved.reference.to_string(),
        manifest_digest: resolved.manifest_digest,
        config_digest: resolved.config_digest,
        evaluator: ShownPath(&path),
    });
    ui::result(args.json, &output, &format!("{} {}", resolved.reference, resolved.manifest_digest))?;
    Ok(0)
}

fn named_image(args: &BuildArgs, name: &str, time: Option<u64>) -> Result<u8> {
    let base = match (&args.from, &args.base) {
        (Some(root), _) => Base::Root(root.clone()),
        (None, Some(reference)) => Base::Image(Reference::parse(reference)?),
        (None, None) => {
            image::build(&image::evaluator(args.evaluator.as_deref())?)?;
            Base::Image(Reference::parse(DEFAULT_IMAGE)?)
        }
    };
    let devices = if args.drop_devices { SpecialFilePolicy::Drop } else { SpecialFilePolicy::Refuse };
    let recipe = Recipe {
        name: name.to_owned(),
        base,
        layers: args.layers.clone(),
        changes: Changes {
            labels: args.labels.clone(),
            env: args.env.clone(),
            entrypoint: args.entrypoint.clone().map(|words| words.0),
            cmd: args.cmd.clone().map(|words| words.0),
            workdir: args.workdir.clone(),
            user: args.user.clone(),
        },
        policy: Policy { devices, layer_size: args.layer_size, ..Policy::default() },
        time,
    };
    let store = image::store()?;
    // The number of bytes is not known before they are read.
    let step = Ui::new(Level::Normal).step("building", 0, true);
    let built = store.build(&recipe, &|bytes| step.add(bytes))?;
    drop(step);
    let left = &built.left_out;
    let mut text = format!("{} {}", ui::printable(&built.reference), built.manifest_digest);
    for (count, what) in [
        (left.set_id, "set-id bits"),
        (left.devices, "devices, fifos and sockets"),
        (left.attributes, "extended attributes"),
    ] {
        if count > 0 {
            text.push_str(&format!("\nleft out: {count} {what}"));
        }
    }
    let output = NamedImageOutput { built, format_version: "runtime-image-build-v1" };
    ui::result(args.json, &BuildOutput::Named(output), &text)?;
    Ok(0)
}

/// `SOURCE_DATE_EPOCH`, in seconds since 1970.
fn source_date() -> Result<Option<u64>> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let text = text.to_str().ok_or_else(|| Error::input("SOURCE_DATE_EPOCH is not UTF-8 text"))?;
    Ok(Some(parse_time(text)?))
}
