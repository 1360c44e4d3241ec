//! A small launcher: reads a plan, runs its containers and prints one JSON object for each run.

use invarlock_runtime::{
    ContainerSpec, Error, HostSpec, IdsInside, Input, InputSource, LimitName, Limits, Outcome, Rootfs, Sink,
    Supervisor,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

#[derive(Deserialize, Clone)]
struct Plan {
    rootfs: Vec<PathBuf>,
    argv: Vec<String>,
    #[serde(default)]
    env: Vec<(String, String)>,
    #[serde(default)]
    cwd: Option<String>,
    /// Target and path.
    #[serde(default)]
    files: Vec<(String, PathBuf)>,
    /// Target and content.
    #[serde(default)]
    bytes: Vec<(String, String)>,
    #[serde(default)]
    memory: Option<u64>,
    #[serde(default)]
    pids: Option<u64>,
    #[serde(default)]
    wall_ms: Option<u64>,
    #[serde(default)]
    output_bytes: Option<u64>,
    #[serde(default)]
    required: Vec<LimitName>,
    /// `general` or `evaluator`.
    #[serde(default)]
    filter: Option<String>,
    /// Cancels the run so long after the first output of the workload.
    #[serde(default)]
    cancel_after_ms: Option<u64>,
    #[serde(default)]
    threads: Option<usize>,
    #[serde(default)]
    runs: Option<usize>,
    /// Host execution with this output directory.
    #[serde(default)]
    host: Option<PathBuf>,
    /// Print only times, in microseconds.
    #[serde(default)]
    bench: bool,
    #[serde(default)]
    pause_ms: u64,
    /// Replaces the first path by the second after it was opened; the flag says whether the opened file keeps a name.
    #[serde(default)]
    swap: Option<(PathBuf, PathBuf, bool)>,
    /// Print the content of the input handles too.
    #[serde(default)]
    read: bool,
    /// Install a filter in the launcher first, as `invarlock` does.
    #[serde(default)]
    filtered: bool,
    /// Tells the supervisor these ids, one after the other.
    #[serde(default)]
    ids: Vec<[u32; 2]>,
    /// Trace the profile: the filter reports every call.
    #[serde(default)]
    learn: bool,
    /// Install a filter with a notification listener in the launcher first, as another sandbox would.
    #[serde(default)]
    heard: bool,
}

#[derive(Default)]
struct Kept {
    out: Vec<u8>,
    err: Vec<u8>,
    /// Dropped at the first output.
    silent: Option<mpsc::Sender<()>>,
}

impl Sink for Kept {
    fn stdout(&mut self, bytes: &[u8]) {
        self.silent = None;
        let free = (1usize << 20).saturating_sub(self.out.len());
        self.out.extend_from_slice(&bytes[..bytes.len().min(free)]);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        let free = (1usize << 20).saturating_sub(self.err.len());
        self.err.extend_from_slice(&bytes[..bytes.len().min(free)]);
    }
}

pub fn launch(plan: &str) {
    let plan: Plan = serde_json::from_str(plan).expect("a plan");
    if plan.filtered {
        invarlock_seccomp::Profile::no_network()
            .compile()
            .expect("a filter")
            .install_all_threads()
            .expect("installing it");
    }
    let _listener = plan.heard.then(|| {
        let program = invarlock_seccomp::Profile::no_network().compile_notify().expect("a filter");
        program.ready().and_then(|ready| ready.install_notify()).expect("installing it")
    });
    let threads = plan.threads.unwrap_or(1);
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let plan = plan.clone();
            std::thread::spawn(move || {
                (0..plan.runs.unwrap_or(1))
                    .map(|_| {
                        std::thread::sleep(Duration::from_millis(plan.pause_ms));
                        one(&plan)
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    // The threads allocate all the time, so a fork of this process would deadlock at some point.
    let results: Vec<Value> = workers.into_iter().flat_map(|w| w.join().expect("a worker")).collect();
    if plan.bench {
        let times: Vec<String> = results.iter().map(ToString::to_string).collect();
        println!("{}", times.join("\n"));
    } else {
        results.iter().for_each(|r| println!("{r}"));
    }
}

/// One run, with the state of the launcher before and after it.
fn one(plan: &Plan) -> Value {
    let before = (!plan.bench).then(itself);
    let mut outcome = run(plan);
    if let Some(before) = before {
        outcome["launcher"] = json!({"before": before, "after": itself()});
    }
    outcome
}

fn run(plan: &Plan) -> Value {
    let start = Instant::now();
    let (cancel, trigger) = UnixStream::pair().expect("a pair");
    let mut kept = Kept::default();
    let timer = plan.cancel_after_ms.map(|ms| {
        let trigger = trigger.try_clone().expect("a socket");
        let (silent, first_output) = mpsc::channel::<()>();
        kept.silent = Some(silent);
        std::thread::spawn(move || {
            let _disconnected = first_output.recv();
            std::thread::sleep(Duration::from_millis(ms));
            drop(std::io::Write::write_all(&mut &trigger, b"x"));
        })
    });
    let mut read = Vec::new();
    let result = match &plan.host {
        Some(output) => invarlock_runtime::run_on_host(host(plan, output), cancel.as_fd(), &mut kept),
        None => container(plan).and_then(|spec| {
            if let Some((this, that, kept)) = &plan.swap {
                if *kept {
                    std::fs::rename(this, this.with_extension("old")).expect("keeping");
                }
                std::fs::rename(that, this).expect("swapping");
            }
            if plan.read {
                read = spec.inputs.iter().filter_map(held).collect();
            }
            match plan.learn {
                true => {
                    Supervisor::for_container()?.trace_profile(spec, meaning(plan), cancel.as_fd(), &mut kept)
                }
                false if !plan.ids.is_empty() => {
                    let mut supervisor = Supervisor::for_container_with_ids()?;
                    let mut ids = plan.ids.iter().map(|[uid, gid]| IdsInside { uid: *uid, gid: *gid });
                    ids.try_for_each(|ids| supervisor.prepare(ids))?;
                    supervisor.run(spec, cancel.as_fd(), &mut kept)
                }
                false => invarlock_runtime::run(spec, cancel.as_fd(), &mut kept),
            }
        }),
    };
    if plan.bench {
        assert!(matches!(&result, Ok(o) if o.status.exit_code() == 0), "{result:?}");
        return json!(start.elapsed().as_micros() as u64);
    }
    drop((trigger, kept.silent.take()));
    if let Some(timer) = timer {
        timer.join().expect("the timer");
    }
    json!({"result": show(plan, result), "stdout": String::from_utf8_lossy(&kept.out), "stderr": String::from_utf8_lossy(&kept.err), "read": read})
}

/// The first bytes of an input, read through its handle.
fn held(input: &Input) -> Option<String> {
    use std::os::unix::fs::FileExt as _;
    let InputSource::File { file, .. } = &input.source else { return None };
    let mut bytes = [0; 256];
    let count = file.read_at(&mut bytes, 0).ok()?;
    Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

/// The process state of the launcher that a run must not change.
fn itself() -> Value {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).expect("a file of /proc");
    let status = read("status");
    let line =
        |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim).map(str::to_owned);
    json!({
        "descriptors": std::fs::read_dir("/proc/self/fd").expect("descriptors").count(),
        "dumpable": format!("{:?}", rustix::process::dumpable_behavior().expect("dumpable")),
        "oom_score_adj": read("oom_score_adj").trim(),
        "cgroup": read("cgroup"),
        "directory": std::fs::read_link("/proc/self/cwd").expect("a working directory"),
        "umask": line("Umask:"), "blocked": line("SigBlk:"), "ignored": line("SigIgn:"), "caught": line("SigCgt:"),
        "groups": line("Groups:"), "uid": line("Uid:"), "capabilities": line("CapEff:"), "filter": line("Seccomp:"),
    })
}

fn show(plan: &Plan, result: Result<Outcome, Error>) -> Value {
    match result {
        Ok(o) => {
            let output: serde_json::Map<String, Value> =
                o.output.iter().map(|f| (f.name.clone(), json!(String::from_utf8_lossy(&f.bytes)))).collect();
            let learned = o.profile_trace.map(|learned| {
                let decisions = meaning(plan).decisions.into_iter().zip(&learned.used);
                let used: Vec<_> = decisions
                    .map(|(rule, count)| json!({"syscall": rule.syscall, "args": rule.when, "reason": rule.reason, "count": count}))
                    .collect();
                json!({"used": used, "unmatched": learned.unmatched, "refused": learned.denied})
            });
            json!({"status": o.status, "output": output, "observations": o.observations, "usage": o.usage, "refused": o.denied_calls,
                   "learned": learned})
        }
        Err(e) => json!({"error": e}),
    }
}

fn limits(plan: &Plan) -> Limits {
    let mut limits = Limits::for_machine();
    limits.memory_bytes = plan.memory.unwrap_or(256 << 20);
    limits.pids = plan.pids.unwrap_or(64);
    limits.wall = Duration::from_millis(plan.wall_ms.unwrap_or(30_000));
    limits.output_bytes = plan.output_bytes.unwrap_or(1 << 20);
    limits.output_files = 16;
    limits.required = plan.required.iter().copied().collect();
    limits
}

fn profile(plan: &Plan) -> invarlock_seccomp::Profile {
    match plan.filter.as_deref() {
        Some("evaluator") => invarlock_seccomp::Profile::evaluator(),
        Some("evaluator-amx") => invarlock_seccomp::Profile::evaluator_amx(),
        Some("no-network") => invarlock_seccomp::Profile::no_network(),
        _ => invarlock_seccomp::Profile::general(),
    }
}

fn meaning(plan: &Plan) -> invarlock_seccomp::ResolvedProfile {
    invarlock_seccomp::Arch::native().and_then(|arch| profile(plan).resolve(arch)).expect("a meaning")
}

fn filter(plan: &Plan) -> invarlock_seccomp::Program {
    let profile = profile(plan);
    let program = if plan.host.is_some() { profile.compile() } else { profile.compile_notify() };
    program.expect("a filter")
}

fn container(plan: &Plan) -> Result<ContainerSpec, Error> {
    let file = |(target, path): &(String, PathBuf)| {
        let file = File::open(path).map_err(|e| Error::input(format!("{}: {e}", path.display())))?;
        Ok(Input { target: target.clone(), source: InputSource::File { path: path.clone(), file } })
    };
    let mut inputs = plan.files.iter().map(file).collect::<Result<Vec<_>, Error>>()?;
    inputs.extend(plan.bytes.iter().map(|(target, text)| Input {
        target: target.clone(),
        source: InputSource::Bytes(text.clone().into_bytes()),
    }));
    Ok(ContainerSpec {
        rootfs: Rootfs::Layers(plan.rootfs.clone()),
        argv: plan.argv.clone(),
        env: plan.env.clone(),
        cwd: plan.cwd.clone().unwrap_or_else(|| "/".into()),
        inputs,
        filter: filter(plan),
        limits: limits(plan),
        collect_output: true,
        stdio: invarlock_runtime::Stdio::Output,
        runtime_files: None,
        stop_timeout: ContainerSpec::STOP_TIMEOUT,
        mounts: Vec::new(),
    })
}

fn host(plan: &Plan, output: &std::path::Path) -> HostSpec {
    let mut argv = plan.argv.clone();
    let program = PathBuf::from(argv.remove(0));
    HostSpec {
        program,
        args: argv,
        env: plan.env.clone(),
        output: output.to_owned(),
        filter: filter(plan),
        limits: limits(plan),
    }
}
