//! Cases that need a machine with real cgroup v2 controllers.

use crate::machine::Who;
use invarlock_tests::Ran;
use invarlock_tests::leaks::{self, Places, Snapshot};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A case: who runs it, its name, and the function.
pub type Case = (Who, &'static str, fn(Who));

const IMAGE: &str = "invarlock-runtime:local";

/// All cases in order: later ones use the image that an earlier one built.
pub fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for who in Who::ALL {
        cases.push((who, "doctor", doctor));
        cases.push((who, "image-build", image_build));
        cases.push((who, "run", run));
        cases.push((who, "fs-verity", fs_verity));
        cases.push((who, "memory-flag", memory_flag));
        cases.push((who, "pids-are-limited", pids));
        cases.push((who, "killed-launcher", killed_launcher));
        cases.push((who, "killed-supervisor", killed_supervisor));
        cases.push((who, "evaluate", evaluate));
    }
    for who in Who::LIMITED {
        cases.push((who, "limits-read-back", read_back));
        cases.push((who, "memory-is-limited", memory));
        cases.push((who, "without-clone3", without_clone3));
    }
    cases
}

fn product(name: &str) -> PathBuf {
    // The launcher refuses an evaluator that is a symbolic link.
    std::fs::read_link(Path::new("/product").join(name)).unwrap()
}

fn invarlock(who: Who, args: &[&str]) -> Ran {
    let mut command = who.command(&product("invarlock"));
    Ran::from(command.args(args).output().unwrap())
}

/// The test launcher, which can set every limit.
fn launcher(who: Who, program: &[&str], argv: &[&str], memory: u64, pids: u64) -> Command {
    let required: &[&str] = if who == Who::Outsider { &[] } else { &["memory", "pids", "cpu"] };
    let argv = [&["/workload"], argv].concat();
    let plan = json!({"rootfs": ["/stage/bare"], "argv": argv, "memory": memory, "pids": pids, "required": required});
    let mut command = match program {
        [] => who.command(&product("invarlock-workload")),
        [first, rest @ ..] => {
            let mut command = who.command(&product(first));
            command.args(rest).arg(product("invarlock-workload"));
            command
        }
    };
    command.arg("launch").arg(plan.to_string());
    command
}

fn outcome(mut command: Command) -> Value {
    let ran = Ran::from(command.output().unwrap());
    let line = ran.out.lines().next().unwrap_or_else(|| panic!("no outcome: {ran:?}"));
    serde_json::from_str(line).unwrap()
}

#[track_caller]
fn held_by_cgroup(who: Who, observations: &Value) {
    let rows =
        observations["limits"]["value"].as_array().unwrap_or_else(|| panic!("no limits in {observations:#}"));
    for name in ["memory", "pids", "cpu"] {
        let row = rows.iter().find(|r| r["name"] == name).unwrap();
        let other = if name == "cpu" { "affinity" } else { "rlimit" };
        assert_eq!(row["by"], if who == Who::Outsider { other } else { "cgroup" }, "{row}");
        assert_eq!(row["reason"].is_string(), who == Who::Outsider, "a substitute limit has a reason: {row}");
    }
    let lines = observations["cgroup"]["value"].to_string();
    assert_eq!(lines.contains("invarlock-"), who != Who::Outsider, "{lines}");
}

fn doctor(who: Who) {
    let rows = invarlock(who, &["doctor", "--json"]).expect(0).json();
    for row in rows["boundary"].as_array().unwrap() {
        let name = row["control"].as_str().unwrap();
        // fs.file-max follows from the memory of the machine, which is small here: doctor warns.
        if name == "open files" {
            assert!(row["required"] == false && row["remedy"].is_string(), "{row}");
            continue;
        }
        let expected = !(name.starts_with("cgroup") && who == Who::Outsider);
        assert_eq!(row["available"], expected, "{row}");
    }
}

fn image_build(who: Who) {
    let workload = product("invarlock-workload");
    invarlock(who, &["runtime", "image", "build", "--evaluator", workload.to_str().unwrap()]).expect(0);
}

fn run(who: Who) {
    let places = places(who);
    let before = places.snapshot();
    let ran = invarlock(who, &["runtime", "run", "--json", IMAGE, "--", "noop"]).expect(0);
    let seen: Value = serde_json::from_str(ran.err.lines().last().unwrap()).unwrap();
    held_by_cgroup(who, &seen["observations"]);
    places.left_since(&before).is_nothing("a run");
}

/// The disk has fs-verity: the kernel protects the files of an image, for root and for a user, and a replaced file is detected.
fn fs_verity(who: Who) {
    let verified = |how: &str, code: i32| {
        let how = format!("--verify-image={how}");
        invarlock(who, &["runtime", "run", "--json", &how, IMAGE, "--", "noop"]).expect(code)
    };
    for _ in 0..2 {
        let ran = verified("fsverity", 0);
        let said: Value = serde_json::from_str(ran.err.lines().last().unwrap()).unwrap();
        assert_eq!(said["image"]["verification"], "fs-verity", "{said:#}");
    }
    let trees = std::fs::read_dir(format!("/home/{}/store/trees", who.name())).unwrap();
    let mut files = trees.map(|it| it.unwrap().path().join("root/invarlock-evaluator"));
    let file = files.find(|it| it.exists()).unwrap();
    let good = std::fs::read(&file).unwrap();
    let held = std::fs::OpenOptions::new().write(true).open(&file).unwrap_err();
    assert_eq!(held.raw_os_error(), Some(1), "root must not write either: {held}");
    verified("full", 0);
    // A file with other bytes under the same name.
    let aside = file.parent().unwrap().parent().unwrap().join("aside");
    std::fs::rename(&file, &aside).unwrap();
    std::fs::write(&file, [&good[..good.len() - 1], b"x"].concat()).unwrap();
    invarlock_tests::set_mode(&file, 0o555);
    if !who.is_root() {
        std::os::unix::fs::chown(&file, Some(invarlock_tests::USER), Some(invarlock_tests::USER)).unwrap();
    }
    let refused = verified("fsverity", 125);
    assert!(refused.err.contains("integrity") && refused.err.contains("invarlock-evaluator"), "{refused:?}");
    std::fs::rename(&aside, &file).unwrap();
    verified("fsverity", 0);
}

fn memory_flag(who: Who) {
    let args = ["runtime", "run", "--memory", "64M", IMAGE, "--", "eat", "300000000"];
    let ran = invarlock(who, &args).expect(125);
    match who {
        Who::Outsider => {
            ran.one_error(&["error[unsupported]", "control \"limits\"", "delegated", "without the flag"])
        }
        _ => ran.one_error(&["the memory limit"]),
    }
}

fn memory(who: Who) {
    let outcome = outcome(launcher(who, &[], &["eat", "300000000"], 64 << 20, 64));
    assert_eq!(outcome["result"]["status"], "memory_limit", "{outcome:#}");
    let usage = &outcome["result"]["usage"];
    assert!(usage["oom_kills"].as_u64().is_some_and(|n| n > 0), "{usage}");
    let peak = usage["peak_memory_bytes"].as_u64().unwrap();
    assert!((32 << 20..=64 << 20).contains(&peak) && usage["peak_memory_by"] == "cgroup", "{usage}");
}

fn pids(who: Who) {
    let outcome = outcome(launcher(who, &[], &["fork-bomb"], 256 << 20, 20));
    let text = outcome["stdout"].as_str().unwrap();
    let (children, errno) = text.trim().split_once(' ').unwrap_or_else(|| panic!("{outcome:#}"));
    assert!(errno == "11" && children.parse::<u32>().is_ok_and(|n| n < 20), "{outcome:#}");
    held_by_cgroup(who, &outcome["result"]["observations"]);
}

/// The builder then enters its cgroup by writing to `cgroup.procs`.
fn without_clone3(who: Who) {
    let outcome = outcome(launcher(who, &["without", "clone3", "--"], &["noop"], 256 << 20, 64));
    assert_eq!(outcome["result"]["status"], json!({"exited": 0}), "{outcome:#}");
    held_by_cgroup(who, &outcome["result"]["observations"]);
}

fn places(who: Who) -> Places {
    leaks::adopt_orphans();
    let home = PathBuf::from(format!("/home/{}", who.name()));
    let states = if who.is_root() { Vec::new() } else { vec![home.join("run/invarlock")] };
    Places { states, temporary: vec![home.join("tmp")] }
}

/// A sleeping run and its only cgroup directory.
struct Sleeping {
    launcher: Child,
    supervisor: u32,
    places: Places,
    before: Snapshot,
    cgroups: Vec<PathBuf>,
}

impl Sleeping {
    #[expect(clippy::zombie_processes, reason = "if no child starts, the machine is switched off")]
    fn start(who: Who) -> Self {
        let places = places(who);
        let before = places.snapshot();
        let mut command = launcher(who, &[], &["sleep"], 256 << 20, 64);
        let launcher = command.stdout(Stdio::null()).spawn().unwrap();
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let supervisor = leaks::children(launcher.id()).first().copied();
            let workload = supervisor
                .into_iter()
                .flat_map(leaks::children)
                .flat_map(leaks::children)
                .any(named_workload);
            if let (Some(supervisor), true) = (supervisor, workload) {
                let cgroups = places.snapshot().cgroups.into_iter().map(PathBuf::from).collect();
                return Sleeping { launcher, supervisor, places, before, cgroups };
            }
            assert!(Instant::now() < patience, "no workload was started");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn kill(pid: u32) {
        kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    }
}

fn named_workload(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "workload")
}

fn read_back(who: Who) {
    let mut run = Sleeping::start(who);
    let [dir] = run.cgroups.as_slice() else { panic!("one cgroup, not {:?}", run.cgroups) };
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap().trim().to_owned();
    assert_eq!(read("memory.max"), (256u64 << 20).to_string());
    if dir.join("memory.swap.max").exists() {
        assert_eq!(read("memory.swap.max"), "0");
    }
    assert_eq!(read("pids.max"), "64");
    let processors = std::thread::available_parallelism().unwrap();
    assert_eq!(read("cpu.max"), format!("{}00000 100000", processors));
    let inside: Vec<u32> = read("cgroup.procs").lines().map(|l| l.parse().unwrap()).collect();
    assert!(inside.iter().copied().any(named_workload), "{inside:?}");
    assert!(!inside.contains(&run.supervisor) && !inside.contains(&run.launcher.id()), "{inside:?}");
    Sleeping::kill(run.launcher.id());
    run.launcher.wait().unwrap();
    run.places.left_since(&run.before).is_nothing("a killed launcher");
}

fn killed_launcher(who: Who) {
    let mut run = Sleeping::start(who);
    assert_eq!(run.cgroups.is_empty(), who == Who::Outsider);
    Sleeping::kill(run.launcher.id());
    run.launcher.wait().unwrap();
    run.places.left_since(&run.before).is_nothing("a killed launcher");
}

fn killed_supervisor(who: Who) {
    let mut run = Sleeping::start(who);
    Sleeping::kill(run.supervisor);
    run.launcher.wait().unwrap();
    let left = run.places.left_without_processes(&run.before);
    assert!(left.processes.is_empty() && left.mounts.is_empty(), "{left:?}");
    assert!(!left.states.is_empty(), "the state file must stay, or the next start cannot clean up");
    let next = outcome(launcher(who, &[], &["noop"], 256 << 20, 64));
    assert_eq!(next["result"]["status"], json!({"exited": 0}), "{next:#}");
    run.places.left_since(&run.before).is_nothing("the next start");
}

/// Few and short windows, because the machine is emulated in software.
fn evaluate(who: Who) {
    let demo = product("demo");
    let preset = "dataset: {provider: {kind: local_jsonl, file: valid.jsonl, max_samples: 64}, seq_len: 16, preview_n: 4, final_n: 4}";
    let home = PathBuf::from(format!("/home/{}", who.name()));
    std::fs::write(home.join("preset.yaml"), preset).unwrap();
    std::fs::copy(demo.join("valid.jsonl"), home.join("valid.jsonl")).unwrap();
    let [baseline, subject] = ["baseline", "healthy"].map(|name| demo.join(name).display().to_string());
    let args = [
        "evaluate",
        "--quiet",
        "--profile",
        "dev",
        "--preset",
        "preset.yaml",
        "--baseline",
        &baseline,
        "--subject",
        &subject,
    ];
    invarlock(who, &args).expect(0);
    invarlock(who, &["verify", "--profile", "dev", "reports/eval/evaluation.report.json"]).expect(0);
}
