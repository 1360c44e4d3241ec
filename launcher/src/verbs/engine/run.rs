//! `run`: the options of Podman and Docker as those of `runtime run`.

use super::Engine;
use super::images;
use super::record::Recorder;
use crate::args::{
    CallArgs, ChangeArgs, EngineRunArgs, LimitArgs, MountArgs, RunArgs, StreamArgs, VerifyImageArgs,
    WorkloadArgs,
};
use crate::error::{Error, ExitCodes, Format, Result, report};
use crate::image;
use crate::policy::Policy;
use crate::verbs::runtime_run;
use invarlock_runtime::Stdio;
use std::time::Duration;

/// As in Podman and Docker.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The exit codes of Podman and Docker for a program that cannot be started, and for one that does not exist.
const NOT_STARTED: u8 = 126;
const NOT_FOUND: u8 = 127;
/// `ENOENT` and `ENOTDIR`.
const MISSING: [i32; 2] = [2, 20];

/// Returns the exit code of the command.
pub fn run(engine: Engine, args: &EngineRunArgs, call: &CallArgs, policy: &Policy) -> Result<u8> {
    if let Some((name, why)) = args.refused.first {
        return Err(Error::input(format!("--{name} is refused: {why}")))
            .map_err(|error| error.with_hint(format!("leave out --{name}")));
    }
    let Some((image, argv)) = args.command.split_first() else {
        return Err(Error::input("the image is missing"));
    };
    let found = images::find(&image::store()?, image)?;
    let mut recorder = Recorder::new(engine, call, own_arguments())?;
    let mut run = request(args, found.pinned, argv);
    run.workload.limits.weaker = call.weaker_limits;
    match runtime_run::run_with(&run, Stdio::Output, policy, &mut recorder) {
        Err(error) => {
            recorder.failed(&error)?;
            match error.program_errno() {
                None => Err(error),
                Some(errno) => {
                    report(&error, Format::Text, ExitCodes::OwnFailure);
                    Ok(if MISSING.contains(&errno) { NOT_FOUND } else { NOT_STARTED })
                }
            }
        }
        ended => ended,
    }
}

/// The arguments of this process from the word `run` on.
fn own_arguments() -> Vec<String> {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    // Before it stand the program, `runtime engine NAME` and the option `--record`.
    words.by_ref().take(3).for_each(drop);
    words.skip_while(|word| word != "run").collect()
}

fn request(args: &EngineRunArgs, image: String, argv: &[String]) -> RunArgs {
    RunArgs {
        workload: WorkloadArgs {
            image: Some(image),
            argv: argv.to_vec(),
            changes: ChangeArgs {
                env: args.env.clone(),
                env_file: Vec::new(),
                workdir: args.workdir.clone(),
                entrypoint: args.entrypoint.clone(),
                user: args.user.clone(),
            },
            mounts: MountArgs {
                mount: args.mount.clone(),
                volume: args.volume.clone(),
                tmpfs: args.tmpfs.clone(),
                input: Vec::new(),
                device: args.device.iter().chain(&args.gpus).cloned().collect(),
                cdi_spec_dir: Vec::new(),
            },
            verify: VerifyImageArgs::default(),
            allow_network: false,
            seccomp: None,
            limits: LimitArgs {
                memory: args.memory,
                cpus: args.cpus,
                pids: args.pids_limit,
                ..LimitArgs::default()
            },
        },
        bundle: None,
        streams: StreamArgs { interactive: false, tty: false },
        output: None,
        name: args.name.clone(),
        cidfile: args.cidfile.clone(),
        stop_timeout: Some(args.stop_timeout.unwrap_or(STOP_TIMEOUT)),
        json: false,
        always: args.always,
        network: None,
    }
}
