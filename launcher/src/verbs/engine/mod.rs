//! `invarlock runtime engine …`: answers the commands of Podman and Docker that InvarLock's Python package calls, with containers of this
//! program.
//!
//! The caller is another program, which asks for a container by options. What this boundary has anyway is accepted; what would weaken it is
//! refused by its name. The network is only for `pull`: variables that allow it are meant for the caller, and have no effect here.

mod about;
mod changed_files;
mod control;
mod images;
mod install;
mod record;
mod run;
mod template;

use super::row::Verb;
use crate::args::{CallArgs, EngineCall, EngineCommand, EngineImage};
use crate::error::{Error, Result};
#[cfg(feature = "schemas")]
use crate::output::{NamedSchema, schema};
use crate::policy::{Needs, Policy};
use crate::ui;
use serde_json::Value;

/// The engine that this program stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Podman,
    Docker,
}

impl Engine {
    const ALL: [Engine; 2] = [Engine::Podman, Engine::Docker];

    fn name(self) -> &'static str {
        match self {
            Engine::Podman => "podman",
            Engine::Docker => "docker",
        }
    }
}

/// The row of a verb.
pub fn of(command: &EngineCommand) -> Verb<'_> {
    match command {
        EngineCommand::Install(args) => Verb::new(|_| install::run(args)),
        EngineCommand::Podman(args) => call(Engine::Podman, args),
        EngineCommand::Docker(args) => call(Engine::Docker, args),
    }
}

fn call(engine: Engine, args: &CallArgs) -> Verb<'_> {
    let (is_run, is_pull) =
        (matches!(args.command, EngineCall::Run(_)), matches!(args.command, EngineCall::Pull { .. }));
    let needs = Needs {
        allow_network: is_pull,
        only_flags: true,
        containers: usize::from(is_run),
        has_image_user: is_run,
        ..Needs::default()
    };
    Verb::new(move |policy| answer(engine, args, policy)).needs(needs).own_exit_code()
}

fn answer(engine: Engine, args: &CallArgs, policy: &Policy) -> Result<u8> {
    match &args.command {
        EngineCall::Version(args) => print(&about::version(engine)?, args.format.as_deref()),
        EngineCall::Info(args) => print(&about::info(engine)?, args.format.as_deref()),
        EngineCall::Image(EngineImage::Inspect { image, format }) => {
            images::inspect(engine, image, format.format.as_deref())
        }
        EngineCall::Image(EngineImage::Exists { image }) => images::exists(image),
        EngineCall::Pull { image } => images::pull(engine, image, &policy.network),
        EngineCall::Run(run) => run::run(engine, run, args, policy),
        EngineCall::Stop { time, which } => control::stop(which, *time),
        EngineCall::Kill { which } => control::kill(which),
    }
}

/// Prints a value as a template says.
fn print(value: &Value, template: Option<&str>) -> Result<u8> {
    match template {
        None => ui::indented_json(value)?,
        Some(text) => ui::out(&template::render(text, value)?),
    }
    Ok(0)
}

/// A value as JSON.
fn to_value(value: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::system(format!("writing JSON: {error}")))
}

/// The schema of each file.
#[cfg(feature = "schemas")]
pub fn schemas() -> [NamedSchema; 1] {
    [schema::<record::EngineRecord<'_>>("engine-record-v1")]
}
