//! One side of an evaluation: a container (or, as a recorded exception, a host process) measures one checkpoint.

use crate::args::EvaluateArgs;
use crate::bundle::RunDir;
use crate::error::{Error, Kind, Result};
use crate::plan::{Input, JobPaths, Plan};
use crate::policy::Policy;
use crate::progress::{Progress, ReportedError};
use crate::refused;
use crate::signals::Signals;
use crate::ui::{Level, Ui, printable};
use invarlock_error::Context as _;
use invarlock_evidence::events::Cause;
use invarlock_evidence::job::Role;
use invarlock_evidence::json::parse_run_report;
use invarlock_evidence::numerics::digest::sha256_hex;
use invarlock_evidence::run_report::{BaselineWindows, ReplayArm, RunReport, WindowArm};
use invarlock_runtime::{ContainerSpec, HostSpec, Input as Mount, InputSource, Outcome, Status};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Members of a run report besides its tokens: losses, counts, guards, settings.
const MAX_MEMBERS: usize = 100_000;

/// What an interrupted evaluation leaves.
const KEPT: &str = "finished run directories are kept";

/// A measured side and what the manifest says of it.
pub struct Side {
    /// The parsed run report.
    pub report: RunReport,
    /// Where the run report lies.
    pub path: PathBuf,
    /// Lower-case hex SHA-256 of the run report's bytes.
    pub sha256: String,
    /// `context.sides.<role>` of the manifest.
    pub evidence: Map<String, Value>,
    /// Denied system calls with their counts; none where the filter does not report them.
    pub refused: Option<BTreeMap<String, u64>>,
}

/// Directory of a role below `--out`, as upstream names it.
pub fn directory(role: Role) -> &'static str {
    match role {
        Role::Baseline => "source",
        Role::Subject => "edited",
    }
}

/// Lower-case name of a role.
pub fn name(role: Role) -> &'static str {
    match role {
        Role::Baseline => "baseline",
        Role::Subject => "subject",
    }
}

/// What one run is given.
pub struct Run<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The arguments it was made from.
    pub args: &'a EvaluateArgs,
    /// Where its supervisor comes from.
    pub policy: &'a Policy,
    /// Which side.
    pub role: Role,
    /// The baseline's windows, for the subject.
    pub windows: Option<&'a BaselineWindows>,
}

impl Run<'_> {
    /// Measures the side; its files are in the run directory, which the caller commits with the manifest.
    pub fn measure(&self, ui: &Ui, signals: &Signals) -> Result<(Side, RunDir)> {
        let run_dir = RunDir::begin(&self.args.out, directory(self.role))?;
        let mut sink = Progress::new(ui, name(self.role));
        let outcome = match &self.plan.image {
            Some(_) => {
                self.container().and_then(|spec| self.policy.supervisor()?.run(spec, signals.fd(), &mut sink))
            }
            None => self.on_host(signals, &mut sink),
        };
        sink.finish();
        // Of a run that failed, too: it may be the reason.
        refused::show(outcome.as_ref().ok().and_then(|o| o.refused.as_ref()), Some(name(self.role)));
        // A signal before the workload starts ends the run with an error of its own; the signal is the reason.
        let outcome = outcome.map_err(|error| signals.check(KEPT).err().unwrap_or(error));
        let measured = outcome.and_then(|outcome| match failure(&outcome, &sink, signals) {
            Some(error) => Err(error),
            None => {
                for limit in crate::plan::limits_hit(&outcome) {
                    ui.say(Level::Normal, &format!("{}: {limit}", name(self.role)));
                }
                self.collect(outcome, &run_dir)
            }
        });
        match measured {
            Ok(side) => Ok((side, run_dir)),
            Err(error) => Err(keep_log(error, run_dir, &sink)),
        }
    }

    /// The container of this side.
    pub fn container(&self) -> Result<ContainerSpec> {
        let image =
            self.plan.image.as_ref().ok_or_else(|| Error::new(Kind::System, "no image in the plan"))?;
        let mut inputs = mounts("/in/checkpoint", self.plan.checkpoint(self.role))?;
        if self.role == Role::Baseline {
            inputs.extend(mounts("/in/dataset", &self.plan.data)?);
        }
        let dataset = self.plan.data.files.iter().map(|f| format!("/in/dataset/{}", f.name)).collect();
        let paths =
            JobPaths { checkpoint: "/in/checkpoint".into(), dataset, windows: "/in/windows.json".into() };
        inputs.push(memory("/in/job.json", &self.plan.job(self.role, self.args, paths))?);
        if self.role == Role::Subject {
            inputs.push(memory("/in/windows.json", &self.windows)?);
        }
        let argv = ["/invarlock-evaluator", "--job", "/in/job.json", "--out", "/out"];
        Ok(ContainerSpec {
            rootfs: image.rootfs.layers.clone(),
            argv: argv.map(String::from).to_vec(),
            env: vec![("INVARLOCK_CONTAINER_EXECUTION".into(), "1".into())],
            cwd: "/".into(),
            inputs,
            filter: self.plan.filter.clone(),
            limits: self.plan.limits.clone(),
            collect_output: true,
        })
    }

    /// The same program as a plain child: no container, but no network either (its filter refuses it).
    fn on_host(&self, signals: &Signals, sink: &mut Progress<'_>) -> Result<Outcome> {
        let scratch = invarlock_security::secure_tempdir("invarlock-host-")?;
        let at = |name: &str| scratch.path().join(name).to_string_lossy().into_owned();
        let failed = |e: std::io::Error| Error::from(e).context("preparing host execution");
        let link = |dir: &str, input: &Input| -> Result<Vec<String>> {
            std::fs::create_dir(at(dir)).map_err(failed)?;
            let one = |f: &crate::inputs::InputFile| {
                let name = at(&format!("{dir}/{}", f.name));
                std::os::unix::fs::symlink(&f.path, &name).map(|()| name).map_err(failed)
            };
            input.files.iter().map(one).collect()
        };
        link("checkpoint", self.plan.checkpoint(self.role))?;
        let dataset = link("dataset", &self.plan.data)?;
        std::fs::create_dir(at("out")).map_err(failed)?;
        let paths = JobPaths { checkpoint: at("checkpoint"), dataset, windows: at("windows.json") };
        let job = self.plan.job(self.role, self.args, paths);
        std::fs::write(at("job.json"), to_json(&job)?).map_err(failed)?;
        std::fs::write(at("windows.json"), to_json(&self.windows)?).map_err(failed)?;
        let program = self
            .plan
            .host_evaluator
            .clone()
            .ok_or_else(|| Error::new(Kind::System, "no evaluator in the plan"))?;
        let spec = HostSpec {
            program,
            args: ["--job", &at("job.json"), "--out", &at("out")].map(String::from).to_vec(),
            env: vec![],
            output: PathBuf::from(at("out")),
            filter: self.plan.filter.clone(),
            limits: self.plan.limits.clone(),
        };
        let outcome = invarlock_runtime::run_on_host(spec, signals.fd(), sink)?;
        scratch.close()?;
        Ok(outcome)
    }

    /// Checks and keeps what the run left in `/out`.
    fn collect(&self, outcome: Outcome, run_dir: &RunDir) -> Result<Side> {
        let inputs = [self.plan.checkpoint(self.role), &self.plan.data];
        inputs.iter().flat_map(|i| &i.files).try_for_each(crate::inputs::InputFile::check_unchanged)?;
        let outputs: Vec<Value> = outcome
            .output
            .iter()
            .map(|f| json!({"name": f.name, "sha256": sha256_hex(&f.bytes), "bytes": f.bytes.len()}))
            .collect();
        let find = |name: &str| outcome.output.iter().find(|f| f.name == name);
        let bytes =
            &find("report.json").ok_or_else(|| bad_output(self.role, "it left no report.json".into()))?.bytes;
        plausible(bytes, self.plan.dataset.tokens()).map_err(|why| bad_output(self.role, why))?;
        let report =
            parse_run_report("report.json", bytes).map_err(|e| bad_output(self.role, e.to_string()))?;
        if let Some(stranger) =
            outcome.output.iter().find(|f| !["report.json", "events.jsonl"].contains(&f.name.as_str()))
        {
            return Err(bad_output(
                self.role,
                format!("it left {:?}, which nobody asked for", printable(&stranger.name)),
            ));
        }
        for file in &outcome.output {
            run_dir.write(&file.name, &file.bytes)?;
        }
        let mut evidence = members(json!({
            "reused": false,
            "checkpoint": self.plan.checkpoint(self.role).digest,
            "outputs": outputs,
            "filter_digest": self.plan.filter.digest,
            "refused": outcome.refused,
            "status": outcome.status,
            "observations": outcome.observations,
            "usage": outcome.usage,
        }));
        if self.role == Role::Baseline {
            evidence.insert("dataset".into(), json!(self.plan.data.digest));
        }
        let sha256 = sha256_hex(bytes);
        Ok(Side { report, path: run_dir.path("report.json"), sha256, evidence, refused: outcome.refused })
    }
}

/// The members of an object.
fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// A failed run leaves what it printed and says where.
fn keep_log(error: Error, run_dir: RunDir, sink: &Progress<'_>) -> Error {
    if sink.stderr.is_empty() && sink.strange.is_empty() {
        return error;
    }
    let log = printable(&String::from_utf8_lossy(&[sink.strange.as_slice(), &sink.stderr].concat()));
    let path = run_dir.path("stderr.log");
    let kept = match keep_only(run_dir, log.as_bytes()) {
        Ok(()) => format!("what it printed is in {}", path.display()),
        Err(e) => format!("its log could not be kept: {e}"),
    };
    error.with_note(kept)
}

/// Commits a run directory that holds the log and nothing that was measured.
fn keep_only(run_dir: RunDir, log: &[u8]) -> Result<()> {
    for name in ["report.json", "events.jsonl"] {
        run_dir.discard(name);
    }
    run_dir.write("stderr.log", log)?;
    run_dir.commit()
}

/// The windows of a measured baseline, without its losses.
pub fn baseline_windows(report: &RunReport) -> BaselineWindows {
    let arm = |a: &WindowArm| ReplayArm {
        window_ids: a.window_ids.clone(),
        input_ids: a.input_ids.clone(),
        attention_masks: a.attention_masks.clone(),
    };
    let windows = &report.evaluation_windows;
    BaselineWindows {
        tokenizer_hash: report.meta.tokenizer_hash.clone(),
        preview: arm(&windows.preview),
        final_: arm(&windows.final_),
    }
}

fn mounts(target: &str, input: &Input) -> Result<Vec<Mount>> {
    let mount = |f: &crate::inputs::InputFile| {
        let file = f.file.try_clone().context("duplicating a file handle")?;
        let source = InputSource::File { path: f.path.clone(), file };
        Ok(Mount { target: format!("{target}/{}", f.name), source })
    };
    input.files.iter().map(mount).collect()
}

fn memory(target: &str, value: &impl serde::Serialize) -> Result<Mount> {
    Ok(Mount { target: target.into(), source: InputSource::Bytes(to_json(value)?) })
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::new(Kind::System, format!("writing JSON: {e}")))
}

/// Refuses a report with more members than the windows asked for can have, before it is parsed: a parsed member takes many
/// times the memory of its text.
fn plausible(bytes: &[u8], tokens: usize) -> std::result::Result<(), String> {
    let (mut members, mut containers) = (0usize, 0usize);
    for byte in bytes {
        match byte {
            b',' | b':' => members += 1,
            b'{' | b'[' => containers += 1,
            _ => {}
        }
    }
    // A token stands in the ids, the mask and the labels; a window in a handful of lists.
    match members > 3 * tokens + MAX_MEMBERS || containers > 4 * tokens + MAX_MEMBERS {
        true => Err(format!(
            "report.json has {members} members and {containers} lists, far more than {tokens} tokens need"
        )),
        false => Ok(()),
    }
}

fn bad_output(role: Role, why: String) -> Error {
    let message = format!("reading what the {} container measured: {why}; nothing of it is used", name(role));
    Error::new(Kind::Integrity, message)
}

/// Why a run counts as failed, if it does.
fn failure(outcome: &Outcome, sink: &Progress<'_>, signals: &Signals) -> Option<Error> {
    let side = sink.side;
    let hit = crate::plan::limits_hit(outcome);
    let also = if hit.is_empty() { String::new() } else { format!("; {}", hit.join(", and ")) };
    match (&outcome.status, &sink.error) {
        (Status::Exited(0), None) => None,
        (Status::Cancelled, _) => Some(
            signals
                .check(KEPT)
                .err()
                .unwrap_or_else(|| Error::new(Kind::System, format!("measuring the {side}: cancelled"))),
        ),
        (Status::TimedOut, _) => Some(Error::new(
            Kind::System,
            format!("measuring the {side}: {}, or use fewer windows", hit.join(", and ")),
        )),
        (Status::MemoryLimit, _) => Some(Error::new(
            Kind::System,
            format!("measuring the {side}: {}, or use a smaller model", hit.join(", and ")),
        )),
        (_, Some(ReportedError { error, cause })) => {
            let message = error.message().replace("/in/checkpoint", "its checkpoint");
            let reported = Error::new(error.kind(), format!("measuring the {side}: {message}"));
            // The evaluator removes what it could not write whole, so that no limit is met at the end.
            Some(match (cause, error.hint()) {
                (Some(Cause::OutputFull), _) => reported.with_hint("raise --output-size"),
                (None, hint) => {
                    let reported =
                        if hit.is_empty() { reported } else { reported.with_note(hit.join(", and ")) };
                    hint.into_iter().fold(reported, Error::with_hint)
                }
            })
        }
        (status, None) => Some(Error::new(
            Kind::System,
            format!("measuring the {side}: the evaluator ended with {status}{also}"),
        )),
    }
}
