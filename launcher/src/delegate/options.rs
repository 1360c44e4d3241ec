//! The options of `evaluate` that another program takes, and the refusal of those that it does not.

use crate::args::EvaluateArgs;
use crate::device_name::DeviceName;
use crate::error::{Error, Result};
use crate::hub::{self, Model};
use crate::image::Choice;
use crate::limits::Requested;
use crate::request;
use invarlock_evidence::delegated::{ALL, AUTO, CPU, CUDA, NVIDIA, Version};
use invarlock_evidence::format::delegated::DelegatedRequest;
use invarlock_evidence::policy::{Profile, Tier};
use std::path::{Path, PathBuf};

/// Largest number of characters of a label.
const MAX_LABEL: usize = 200;

/// What the user asked for.
pub struct Request {
    /// As the evidence records it.
    pub recorded: DelegatedRequest,
    pub baseline: Model,
    pub subject: Model,
    pub baseline_report: Option<PathBuf>,
    pub preset: PathBuf,
    pub edit_config: Option<PathBuf>,
    pub out: PathBuf,
    pub report_out: PathBuf,
    pub profile: Profile,
    pub tier: Tier,
    pub image: Choice,
    pub seccomp: Option<PathBuf>,
    pub limits: Requested,
    /// The device of the host, if there is one, and where its specification is.
    pub device: Option<DeviceName>,
    pub cdi_spec_dir: Vec<PathBuf>,
}

/// Options that only this program's own evaluator has: the name, whether it was set, and what to do instead.
fn own_options(args: &EvaluateArgs) -> [(&'static str, bool, &'static str); 12] {
    const LEAVE_OUT: &str = "leave it out";
    const SETTINGS: &str = "leave it out; the preset has the settings of that program";
    [
        ("--dataset", args.dataset.is_some(), "name the file in a preset: --preset FILE.yaml"),
        ("--packing", args.packing.is_some(), LEAVE_OUT),
        ("--tiers", args.tiers.is_some(), LEAVE_OUT),
        ("--guards", args.guards.is_some(), SETTINGS),
        ("--metric", args.metric != AUTO, SETTINGS),
        ("--dtype", args.dtype.is_some(), SETTINGS),
        ("--weight-only", args.weight_only, SETTINGS),
        (
            "--signing-key",
            args.signing_key.is_some(),
            "leave it out; only evidence of this program is signed",
        ),
        ("--lock", args.lock.is_some(), LEAVE_OUT),
        ("--no-resume", args.no_resume, "leave it out; that program always measures all windows"),
        ("--draw-windows", args.draw_windows.is_some(), LEAVE_OUT),
        ("--evaluator", args.container.evaluator.is_some(), LEAVE_OUT),
    ]
}

/// Options that only the program of an image has.
fn its_options(args: &EvaluateArgs) -> [(&'static str, bool); 3] {
    [
        ("--edit-config", args.edit_config.is_some()),
        ("--assurance", args.assurance.is_some()),
        ("--cdi-spec-dir", !args.cdi_spec_dir.is_empty()),
    ]
}

/// Refuses the options that only the program of an image has, where the evaluator measures.
pub fn refuse_without(args: &EvaluateArgs) -> Result<()> {
    match its_options(args).into_iter().find(|(_, is_set)| *is_set) {
        None => Ok(()),
        Some((name, _)) => Err(Error::input(format!(
            "{name}: this option is for images with InvarLock's Python package, and none was named"
        )))
        .map_err(|error| {
            error.with_hint(format!("name an image that speaks `delegate` with --image, or leave out {name}"))
        }),
    }
}

/// What the options ask for; no file is opened.
pub fn request(args: &EvaluateArgs) -> Result<Request> {
    if let Some((name, _, instead)) = own_options(args).into_iter().find(|(_, is_set, _)| *is_set) {
        let message = format!(
            "{name}: the program of the image has no such option, and --image names an image that speaks `delegate`"
        );
        return Err(Error::input(message).with_hint(instead));
    }
    let (profile, tier) = request::profile_and_tier(&args.profile, &args.tier)?;
    let device = device(&args.device)?;
    if device.is_none() && !args.cdi_spec_dir.is_empty() {
        return Err(Error::input(format!("--cdi-spec-dir: --device {} needs no specification", args.device))
            .with_hint("name the device with --device, or leave out --cdi-spec-dir"));
    }
    let Some(preset) = args.preset.clone() else {
        return Err(Error::input("no preset: the default dataset of the Python package needs the network")
            .with_hint("pass --preset FILE.yaml"));
    };
    let (baseline, subject) =
        (hub::model("--baseline", &args.baseline)?, hub::model("--subject", &args.subject)?);
    let adapter = |side: &Option<String>| side.clone().unwrap_or_else(|| args.adapter.clone());
    let (baseline_adapter, subject_adapter) =
        (adapter(&args.baseline_adapter), adapter(&args.subject_adapter));
    for (name, value) in [("baseline", &baseline_adapter), ("subject", &subject_adapter)] {
        check_word(&format!("the adapter of the {name}"), value)?;
    }
    if let Some(assurance) = &args.assurance
        && !matches!(assurance.as_str(), "strict" | "off")
    {
        return Err(Error::input(format!("--assurance {assurance}: unknown"))
            .with_hint("use --assurance strict or --assurance off"));
    }
    if let Some(label) = &args.edit_label {
        check_label(label)?;
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let recorded = DelegatedRequest {
        baseline: baseline.name.clone(),
        subject: subject.name.clone(),
        baseline_report: args.baseline_report.as_deref().map(text),
        preset: text(&preset),
        edit_config: args.edit_config.as_deref().map(text),
        edit_label: args.edit_label.clone(),
        baseline_adapter,
        subject_adapter,
        device: args.device.clone(),
        assurance: args.assurance.clone(),
        out: text(&args.out),
        report_out: text(&args.report_out),
    };
    Ok(Request {
        recorded,
        baseline,
        subject,
        baseline_report: args.baseline_report.clone(),
        preset,
        edit_config: args.edit_config.clone(),
        out: args.out.clone(),
        report_out: args.report_out.clone(),
        profile,
        tier,
        image: request::choice(&args.container)?,
        seccomp: args.container.seccomp.clone(),
        limits: request::limits(&args.container.limits),
        device,
        cdi_spec_dir: args.cdi_spec_dir.clone(),
    })
}

/// The device that `--device` names; none if the program gets none.
///
/// The program can be told `cuda:N`, too. Its GPUs are numbered in the container, so the number would say nothing about this machine.
fn device(text: &str) -> Result<Option<DeviceName>> {
    let gpu = |name: &str| DeviceName { kind: NVIDIA.to_owned(), name: name.to_owned() };
    let named = |error: Error| Err(error.context(format!("--device {text}")));
    match text {
        AUTO | CPU => Ok(None),
        CUDA => Ok(Some(gpu(ALL))),
        name if name.contains(['/', '=']) => match DeviceName::parse(name) {
            Ok(device) => Ok(Some(device)),
            Err(why) => named(Error::input(why)),
        },
        _ => match text.strip_prefix("cuda:").filter(|number| number.parse::<u32>().is_ok()) {
            Some(number) => named(
                Error::input("GPUs are numbered anew in a container").with_hint(format!(
                    "name the GPU: --device {}; or use --device cuda for all that you were given",
                    gpu(number)
                )),
            ),
            None => named(Error::input("this device is not supported").with_hint(
                "use auto, cpu, cuda (the GPUs that you were given), or the name of a device, such as nvidia.com/gpu=0",
            )),
        },
    }
}

/// A word that is an argument of the program.
fn check_word(what: &str, text: &str) -> Result<()> {
    let is_word = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    match is_word {
        true => Ok(()),
        false => Err(Error::input(format!("{what} is {text:?}, which is not a name of an adapter"))
            .with_hint("use auto, hf_causal, hf_mlm or hf_seq2seq")),
    }
}

fn check_label(label: &str) -> Result<()> {
    let plain = !label.starts_with('-') && !label.chars().any(char::is_control) && !label.is_empty();
    match plain && label.chars().count() <= MAX_LABEL {
        true => Ok(()),
        false => Err(Error::input(format!("--edit-label {label:?}: not a label"))
            .with_hint(format!("use 1 to {MAX_LABEL} characters that do not start with `-`"))),
    }
}

impl Request {
    /// Refuses the options that this version of the program does not have.
    pub fn check_version(&self, version: &str) -> Result<()> {
        let DelegatedRequest { baseline_adapter, subject_adapter, assurance, .. } = &self.recorded;
        if Version::parse(version).is_some_and(Version::has_assurance) {
            return Ok(());
        }
        if assurance.is_some() {
            return Err(Error::input(format!("--assurance: InvarLock {version} has no such option"))
                .with_hint("leave out --assurance, or use an image with InvarLock 0.12"));
        }
        match baseline_adapter == subject_adapter {
            true => Ok(()),
            false => Err(Error::input(format!(
                "InvarLock {version} has one adapter for both sides, but they are {baseline_adapter} and {subject_adapter}"
            ))
            .with_hint("use --adapter for both, or an image with InvarLock 0.12")),
        }
    }
}
