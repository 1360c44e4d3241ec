//! From arguments to what the plan takes: typed and checked. No file is opened here.

use crate::adapter::Adapters;
use crate::args::{BundleArgs, ChangeArgs, ContainerArgs, EvaluateArgs, LimitArgs, MountArgs, WorkloadArgs};
use crate::error::{Context as _, Error, Kind, Result};
use crate::hub;
use crate::image::Choice;
use crate::limits::Requested;
use crate::metric_choice;
use crate::plan::{DataSource, DatasetChanges, Request};
use crate::preset;
use crate::tiers_file;
use crate::workload::Workload;
use crate::workload_changes::Changes;
use invarlock_evidence::calibration::ve_sweep;
use invarlock_evidence::format::compute_dtype::ComputeDtype;
use invarlock_evidence::format::devices::parse_name;
use invarlock_evidence::format::guard_request::{GuardMode, GuardRequest};
use invarlock_evidence::policy::{Profile, Tier};
use invarlock_images::Digest;
use std::path::Path;
use std::time::Duration;

/// `--dtype` and `--guards`, if they are not set.
const DTYPE: &str = "float32";
const GUARDS: &str = "compare";

/// The request that the arguments of `evaluate` make.
pub fn of_evaluate(args: &EvaluateArgs) -> Result<Request> {
    let (profile, tier) = profile_and_tier(&args.profile, &args.tier)?;
    check_device(&args.device)?;
    let dtype = args.dtype.as_deref().unwrap_or(DTYPE).parse::<ComputeDtype>();
    let dtype = dtype.map_err(|error| error.context("--dtype"))?;
    let guards = guards(args)?;
    let adapters = Adapters::of(args)?;
    let mut metric = metric_choice::Choice::default();
    metric.metric("--metric", &args.metric)?;
    Ok(Request {
        baseline: hub::model("--baseline", &args.baseline)?,
        subject: hub::model("--subject", &args.subject)?,
        data: data_source(args.preset.as_deref(), args.dataset.as_deref())?,
        metric,
        dtype,
        weight_only: args.weight_only,
        changes: DatasetChanges {
            packing: args
                .packing
                .as_deref()
                .map(|name| preset::packing(Some(name)))
                .transpose()
                .context("reading --packing")?,
            draw: args.draw_windows,
        },
        profile,
        tier,
        tiers: args.tiers.as_deref().map(|file| tiers_file::for_tier(file, tier)).transpose()?,
        guards,
        out: args.out.clone(),
        report_out: args.report_out.clone(),
        baseline_report: args.baseline_report.clone(),
        edit_label: args.edit_label.clone(),
        adapters,
        lock: args.lock.clone(),
        image: choice(&args.container)?,
        seccomp: args.container.seccomp.clone(),
        limits: limits(&args.container.limits),
    })
}

/// How the guards judge.
fn guards(args: &EvaluateArgs) -> Result<GuardRequest> {
    let mode = args.guards.as_deref().unwrap_or(GUARDS).parse::<GuardMode>().context("reading --guards")?;
    let calibration = match args.guard_windows {
        Some(_) if mode == GuardMode::Compare => {
            return Err(Error::input("--guard-windows needs --guards upstream"));
        }
        windows => {
            windows.map(|windows| ve_sweep::calibration(windows, args.draw_windows.unwrap_or_default()))
        }
    };
    if mode == GuardMode::Upstream && args.tiers.is_some() {
        return Err(Error::input(
            "--tiers has limits of the comparison with the baseline, which --guards upstream does not make",
        ))
        .hint("leave out --tiers or --guards upstream");
    }
    Ok(GuardRequest { mode, calibration })
}

/// The command that the arguments of `runtime run` and `runtime learn` name.
pub fn of_workload(args: &WorkloadArgs) -> Workload {
    Workload {
        image: args.image.clone().unwrap_or_default(),
        argv: args.argv.clone(),
        changes: changes(&args.changes),
        terminal: false,
        mounts: args.mounts.clone(),
        verify: args.verify.verify_image,
        seccomp: args.seccomp.clone(),
        limits: limits(&args.limits),
    }
}

/// The command that the arguments of `runtime bundle` name.
pub fn of_bundle(args: &BundleArgs) -> Workload {
    Workload {
        image: args.image.clone(),
        argv: args.argv.clone(),
        changes: changes(&args.changes),
        terminal: false,
        mounts: MountArgs::default(),
        verify: args.verify.verify_image,
        seccomp: args.seccomp.clone(),
        limits: limits(&args.limits),
    }
}

fn changes(args: &ChangeArgs) -> Changes {
    Changes {
        env_files: args.env_file.clone(),
        env: args.env.clone(),
        workdir: args.workdir.clone(),
        entrypoint: args.entrypoint.clone(),
        user: args.user.clone(),
    }
}

/// The limits that the arguments set.
pub fn limits(args: &LimitArgs) -> Requested {
    Requested {
        memory: args.memory,
        cpus: args.cpus,
        pids: args.pids,
        wall: args.timeout.map(Duration::from_secs),
        tmp: args.tmp_size,
        output: args.output_size,
        weaker: args.weaker,
    }
}

/// A blank image or digest means none, as in the Python package.
pub fn choice(args: &ContainerArgs) -> Result<Choice> {
    let not_blank = |text: &Option<String>| {
        text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let digest = not_blank(&args.image_digest).as_deref().map(Digest::parse).transpose();
    // Also for an algorithm that is not supported: the value of the option is wrong.
    let digest = digest.map_err(|error| error.with_kind(Kind::Input));
    Ok(Choice {
        reference: not_blank(&args.image),
        digest: digest.context("reading --image-digest (INVARLOCK_RUNTIME_IMAGE_DIGEST)")?,
        evaluator: args.evaluator.clone(),
        verify: args.verify.verify_image,
    })
}

pub fn profile_and_tier(profile: &str, tier: &str) -> Result<(Profile, Tier)> {
    let profile = profile.parse().map_err(|e| Error::input(format!("--profile: {e}")));
    let profile: Profile =
        profile.hint("use --profile dev, --profile ci_cpu, --profile ci or --profile release")?;
    let tier = tier.parse().map_err(|e| Error::input(format!("--tier: {e}")));
    let tier: Tier = tier.hint("use --tier conservative, --tier balanced or --tier aggressive")?;
    Ok((profile, tier))
}

fn check_device(device: &str) -> Result<()> {
    const GPU: &str = "use --device auto or --device cpu; or let InvarLock's Python package measure on a GPU: --image IMAGE, with an image \
         that speaks `delegate` and has PyTorch for GPUs (docs/delegate.md)";
    let on_gpu = device.starts_with("cuda") || parse_name(device).is_some();
    let error = match device {
        "auto" | "cpu" => return Ok(()),
        gpu if on_gpu || gpu == "mps" => {
            Error::unsupported(format!("--device {gpu}: the evaluator supports only the CPU"))
        }
        unknown => Error::input(format!("--device {unknown}: unknown device")),
    };
    Err(error).hint(if on_gpu { GPU } else { "use --device auto or --device cpu" })
}

pub fn data_source(preset: Option<&Path>, dataset: Option<&Path>) -> Result<DataSource> {
    match (preset, dataset) {
        (Some(preset), _) => Ok(DataSource::Preset(preset.to_owned())),
        (None, Some(file)) => Ok(DataSource::File(file.to_owned())),
        (None, None) => {
            Err(Error::input("no dataset: the default dataset of the Python package needs the network"))
                .hint("pass --dataset FILE.jsonl or --preset FILE.yaml")
        }
    }
}
