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
