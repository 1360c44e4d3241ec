//! `make bench`: the boundary's cost for a no-op against crun, runc and bubblewrap, interleaved in one run, and the tokens
//! per second of an evaluation. Prints medians and ratios; a peer that is not installed is named as skipped.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark stops at the first thing that goes wrong"
)]

use invarlock_tests::{demo, program, read_json, set_mode};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 60;
const PAUSE: Duration = Duration::from_millis(200);
/// Set when this program has put itself into a mount namespace that crun can work in.
const PREPARED: &str = "INVARLOCK_BENCH_PREPARED";

/// One way to run the no-op.
struct Contender {
    name: &'static str,
    command: Box<dyn Fn(usize) -> Command>,
}

fn main() {
    let invarlock =
        PathBuf::from(std::env::args_os().nth(1).expect("usage: invarlock-bench PATH-OF-INVARLOCK"));
    if std::env::var_os(PREPARED).is_none() && hybrid_root() {
        enter_plain_v1();
    }
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o755);
    let contenders = contenders(&invarlock, dir.path());
    println!("boundary: whole command for a static no-op, {ROUNDS} rounds interleaved, milliseconds\n");
    println!(
        "{:<18} {:>10} {:>10} {:>8} {:>14} {:>10} {:>8}",
        "", "median", "min", "ratio", "0.2 s: median", "min", "ratio"
    );
    let hot = rounds(&contenders, Duration::ZERO);
    let cold = rounds(&contenders, PAUSE);
    for (i, c) in contenders.iter().enumerate() {
        let ratio = |all: &[Vec<f64>]| median(&all[0]) / median(&all[i]);
        println!(
            "{:<18} {:>10.2} {:>10.2} {:>8.2} {:>14.2} {:>10.2} {:>8.2}",
            c.name,
            median(&hot[i]),
            hot[i][0],
            ratio(&hot),
            median(&cold[i]),
            cold[i][0],
            ratio(&cold)
        );
    }
    println!("\nratio: ours divided by the peer's median\n");
    evaluate(&invarlock, dir.path());
}

/// crun refuses a hybrid cgroup layout; without the unified mount it works, and ours sees the same.
fn hybrid_root() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists()
}

fn enter_plain_v1() -> ! {
    let script = "mount --make-rprivate / && umount /sys/fs/cgroup/unified && exec \"$@\"";
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args(std::env::args_os())
        .env(PREPARED, "1")
        .status()
        .unwrap();
    std::process::exit(status.code().unwrap_or(1));
}

fn contenders(invarlock: &Path, dir: &Path) -> Vec<Contender> {
    let (store, bundle) = (dir.join("store"), dir.join("bundle"));
    std::fs::create_dir(&store).unwrap();
    let noop = program("noop");
    let built = Command::new(invarlock)
        .args(["runtime", "image", "build", "--evaluator"])
        .arg(&noop)
        .env("INVARLOCK_STORE", &store)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(built.success(), "building the no-op image failed");
    make_bundle(&bundle, &noop);
    let (ours, rootfs) = (invarlock.to_path_buf(), bundle.join("rootfs"));
    let mut all = vec![Contender {
        name: "invarlock",
        command: Box::new(move |_| {
            let mut c = Command::new(&ours);
            c.args(["runtime", "run", "invarlock-runtime:local"]).env("INVARLOCK_STORE", &store);
            c
        }),
    }];
    for name in ["crun", "runc"] {
        let (bundle, state) = (bundle.clone(), dir.join(name));
        all.push(Contender {
            name,
            command: Box::new(move |i| {
                let mut c = Command::new(name);
                c.arg("--root")
                    .arg(&state)
                    .args(["run", "--bundle"])
                    .arg(&bundle)
                    .arg(format!("invarlock-bench-{i}"));
                c
            }),
        });
    }
    all.push(Contender {
        name: "bwrap",
        command: Box::new(move |_| {
            let mut c = Command::new("bwrap");
            c.args(["--unshare-all", "--cap-drop", "ALL", "--die-with-parent", "--ro-bind"])
                .arg(&rootfs)
                .arg("/");
            c.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/noop"]);
            c
        }),
    });
    all.retain(works);
    assert_eq!(all.first().map(|c| c.name), Some("invarlock"), "our own run failed");
    all
}

/// Runs it once; a contender that is missing or fails is named and left out.
fn works(contender: &Contender) -> bool {
    let why = match (contender.command)(usize::MAX).stdin(Stdio::null()).output() {
        Err(e) => e.to_string(),
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    };
    println!("SKIPPED {}: {why}", contender.name);
    false
}

fn make_bundle(bundle: &Path, noop: &Path) {
    for name in ["proc", "dev", "tmp", "sys"] {
        std::fs::create_dir_all(bundle.join("rootfs").join(name)).unwrap();
    }
    std::fs::copy(noop, bundle.join("rootfs/noop")).unwrap();
    set_mode(&bundle.join("rootfs/noop"), 0o755);
    let namespaces: Vec<_> =
        ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|t| json!({"type": t})).into();
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 65532, "gid": 65532}, "args": ["/noop"], "env": [], "cwd": "/",
            "capabilities": {"bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": []},
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "noexec"]},
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": {"memory": {"limit": 1 << 30}, "pids": {"limit": 64}},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
}

/// Sorted milliseconds of each contender, measured round robin.
fn rounds(contenders: &[Contender], pause: Duration) -> Vec<Vec<f64>> {
    let mut times = vec![Vec::with_capacity(ROUNDS); contenders.len()];
    for round in 0..ROUNDS {
        for (contender, times) in contenders.iter().zip(&mut times) {
            let mut command = (contender.command)(round);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            std::thread::sleep(pause);
            let start = Instant::now();
            let status = command.status().unwrap();
            times.push(start.elapsed().as_secs_f64() * 1e3);
            assert!(status.success(), "{} failed in round {round}", contender.name);
        }
    }
    times.iter_mut().for_each(|t| t.sort_by(f64::total_cmp));
    times
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// The demo evaluation as a user runs it, five times.
fn evaluate(invarlock: &Path, dir: &Path) {
    let (mut walls, mut rates) = (Vec::new(), Vec::new());
    let mut tokens = 0.0;
    for i in 0..5 {
        let (out, report) = (dir.join(format!("runs{i}")), dir.join(format!("eval{i}")));
        let start = Instant::now();
        let status = Command::new(invarlock)
            .args(["evaluate", "--quiet", "--baseline"])
            .arg(demo("baseline"))
            .arg("--subject")
            .arg(demo("healthy"))
            .arg("--preset")
            .arg(demo("preset.yaml"))
            .arg("--out")
            .arg(&out)
            .arg("--report-out")
            .arg(&report)
            .env("INVARLOCK_STORE", dir.join("evaluate-store"))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        walls.push(start.elapsed().as_secs_f64());
        assert!(status.success(), "the demo evaluation failed");
        let telemetry = &read_json(&report.join("evaluation.report.json"))["telemetry"];
        let number = |name: &str| telemetry[name].as_f64().unwrap_or(f64::NAN);
        tokens = number("preview_total_tokens") + number("final_total_tokens");
        rates.push(number("throughput_tok_per_s"));
    }
    walls.sort_by(f64::total_cmp);
    rates.sort_by(f64::total_cmp);
    println!("evaluate: demo checkpoints, profile ci, {tokens} tokens a side, 5 runs, medians");
    println!("  whole command        {:>10.2} s", median(&walls));
    println!("  tokens per second    {:>10.0} (whole command, both sides)", 2.0 * tokens / median(&walls));
    println!("  tokens per second    {:>10.0} (subject's container, measuring only)", median(&rates));
}
