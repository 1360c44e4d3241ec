//! The rows of `invarlock runtime image …`, one file per verb.

mod build;
mod export;
mod gc;
mod import;
mod inspect;
mod ls;
mod pull;
mod push;
mod rm;
mod sbom;
mod tag;
mod verify;

use super::row::Verb;
use crate::args::ImageCommand;
#[cfg(feature = "schemas")]
use crate::output::{NamedSchema, schema};

/// The row of a verb.
#[rustfmt::skip]
pub fn of(command: &ImageCommand) -> Verb<'_> {
    match command {
        ImageCommand::Build(args) => Verb::new(|_| build::run(args)).json(args.json),
        ImageCommand::Ls { json } => Verb::new(|_| ls::run(*json)).json(*json),
        ImageCommand::Inspect { image, json } => Verb::new(|_| inspect::run(image, *json)).json(*json),
        ImageCommand::Sbom { image } => Verb::new(|_| sbom::run(image)),
        ImageCommand::Import { from, name, special_files, json } =>
            Verb::new(|_| import::run(from, name.as_deref(), (*special_files).into(), *json)).json(*json),
        ImageCommand::Pull(args) => Verb::new(|policy| pull::run(args, &policy.network)).json(args.json).network(args.registry.allow_network),
        ImageCommand::Push(args) => Verb::new(|policy| push::run(args, &policy.network)).json(args.json).network(args.registry.allow_network),
        ImageCommand::Export { image, to, json } => Verb::new(|_| export::run(image, to, *json)).json(*json),
        ImageCommand::Tag { image, name, json } => Verb::new(|_| tag::run(image, name, *json)).json(*json),
        ImageCommand::Rm { image, json } => Verb::new(|_| rm::run(image, *json)).json(*json),
        ImageCommand::Verify { image, repair, json } => Verb::new(|_| verify::run(image.as_deref(), *repair, *json)).json(*json),
        ImageCommand::Gc { dry_run, json } => Verb::new(|_| gc::run(*dry_run, *json)).json(*json),
    }
}

/// The schema of each output.
#[cfg(feature = "schemas")]
pub fn schemas() -> [NamedSchema; 11] {
    [
        schema::<build::BuildOutput<'_>>("runtime-image-build-v1"),
        schema::<ls::LsOutput<'_>>("runtime-image-ls-v1"),
        schema::<inspect::InspectOutput>("runtime-image-inspect-v1"),
        schema::<import::ImportOutput>("runtime-image-import-v1"),
        schema::<pull::PullOutput>("runtime-image-pull-v1"),
        schema::<push::PushOutput>("runtime-image-push-v1"),
        schema::<export::ExportOutput>("runtime-image-export-v1"),
        schema::<tag::TagOutput<'_>>("runtime-image-tag-v1"),
        schema::<rm::RmOutput<'_>>("runtime-image-rm-v1"),
        schema::<verify::VerifyImageOutput<'_>>("runtime-image-verify-v1"),
        schema::<gc::GcOutput<'_>>("runtime-image-gc-v1"),
    ]
}
