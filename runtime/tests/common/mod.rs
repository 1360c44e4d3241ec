//! Shared by the tests: images that contain the workload, a launcher started as root or as an ordinary user, and a check that runs
//! leave nothing behind.
#![allow(dead_code, reason = "each test file uses its part")]

use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

pub const WORKLOAD: &str = env!("CARGO_BIN_EXE_invarlock-workload");
/// The user id of the rootless runs when the tests run as root. It has no account.
pub const USER: u32 = 54_321;

/// The user who starts the launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Root,
    User,
}

/// Both users. Without root only the ordinary one; the rest is reported as skipped.
pub fn callers(test: &str) -> Vec<Caller> {
    if rustix::process::geteuid().is_root() {
        return vec![Caller::Root, Caller::User];
    }
    report_skip(&format!("{test} as root: the tests run as an ordinary user"));
    vec![Caller::User]
}

/// Whether the tests run as root; reports the test as skipped otherwise.
pub fn is_root_or_skip(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        report_skip(&format!("{test}: needs root"));
    }
    root
}

/// Writes to standard error directly, because the test harness captures `eprintln!`.
pub fn report_skip(what: &str) {
    drop(writeln!(std::io::stderr(), "SKIPPED {what}"));
}

/// A directory readable by all users, of this test process with two images: `bare` contains only the workload, `whole` also all mount points.
pub fn stage() -> &'static Path {
    static STAGE: OnceLock<PathBuf> = OnceLock::new();
    STAGE.get_or_init(|| {
        // No code runs after the last test, so the next test process removes the directory.
        for entry in fs::read_dir("/tmp").expect("/tmp").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let of = name.strip_prefix("invarlock-runtime-test-").map(|pid| PathBuf::from("/proc").join(pid));
            if of.is_some_and(|process| !process.exists()) {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
        let dir = PathBuf::from(format!("/tmp/invarlock-runtime-test-{}", std::process::id()));
        for image in ["bare", "whole"] {
            fs::create_dir_all(dir.join(image)).expect("an image");
            fs::copy(WORKLOAD, dir.join(image).join("workload")).expect("the program");
        }
        for mount_point in ["dev", "in", "out", "proc", "tmp"] {
            fs::create_dir(dir.join("whole").join(mount_point)).expect("a mount point");
        }
        for path in [dir.clone(), dir.join("bare"), dir.join("whole")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        dir
    })
}

/// A new, empty directory owned by `caller`.
pub fn scratch_dir(caller: Caller) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let dir = stage().join(format!("scratch-{}", COUNT.fetch_add(1, Ordering::SeqCst)));
    fs::create_dir(&dir).expect("a directory");
    own(&dir, caller);
    dir
}

/// Makes `caller` the owner.
pub fn own(path: &Path, caller: Caller) {
    if caller == Caller::User && rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).expect("an owner");
    }
}

/// The launcher as a command, not started.
pub fn launcher(caller: Caller, plan: &Value) -> Command {
    let mut command = Command::new(stage().join("bare/workload"));
    command.arg("launch").arg(plan.to_string());
    if caller == Caller::User && rustix::process::geteuid().is_root() {
        command.uid(USER).gid(USER);
    }
    command
        .env("SECRET_TOKEN", "must not be seen")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A plan that runs the workload with these arguments.
pub fn plan(argv: &[&str]) -> Value {
    let argv: Vec<&str> = std::iter::once("/workload").chain(argv.iter().copied()).collect();
    json!({"rootfs": [stage().join("bare")], "argv": argv, "env": [["LANG", "C"], ["PATH", "/"]]})
}

/// Runs the launcher and returns its first line: `{result, stdout, stderr}`.
pub fn launch(caller: Caller, plan: &Value) -> Value {
    let out = launcher(caller, plan).output().expect("the launcher");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    let line = text.lines().next().unwrap_or_else(|| panic!("no outcome as {caller:?}: {stderr}"));
    serde_json::from_str(line).expect("JSON")
}

/// Standard output of the workload, as JSON.
pub fn printed(outcome: &Value) -> Value {
    let text = outcome["stdout"].as_str().unwrap_or_default();
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {outcome:#}"))
}

/// Asserts an error of this kind whose control, message or hint contains each of `words`.
pub fn assert_error(outcome: &Value, kind: &str, words: &[&str]) {
    let error = &outcome["result"]["error"];
    assert_eq!(error["kind"], kind, "{outcome:#}");
    let text = |key: &str| error[key].as_str().unwrap_or_default();
    let message = format!("{:?} {} {}", text("control"), text("message"), text("hint"));
    for word in words {
        assert!(message.contains(word), "{word:?} is missing in {message:?}");
    }
}

/// Everything that runs could leave behind on this machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Leftovers {
    pub processes: Vec<String>,
    pub cgroups: Vec<PathBuf>,
    pub mounts: Vec<String>,
    pub states: Vec<PathBuf>,
}

/// The supervisors, workloads and launchers that exist now, and the cgroups, mounts and lock files of runs.
pub fn leftovers() -> Leftovers {
    let own = stage().display().to_string();
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        let supervisor = line.starts_with("invarlock-supervisor") || line.starts_with("/workload");
        if pid != std::process::id() && (supervisor || line.starts_with(&own)) {
            processes.push(format!("{pid} {line}"));
        }
    }
    let mut cgroups = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        find_groups(&hierarchy.path(), 0, &mut cgroups);
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let mounts = mounts.lines().filter(|l| l.contains("invarlock")).map(str::to_owned).collect();
    let states = ["/run/invarlock".to_owned(), format!("/tmp/invarlock-{USER}")]
        .iter()
        .flat_map(fs::read_dir)
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    Leftovers { processes, cgroups, mounts, states }
}

fn find_groups(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            if entry.file_name().to_string_lossy().starts_with("invarlock-") {
                found.push(entry.path());
            }
            if depth < 4 {
                find_groups(&entry.path(), depth + 1, found);
            }
        }
    }
}

impl Leftovers {
    fn without(self, before: &Leftovers) -> Leftovers {
        fn new<T: PartialEq>(now: Vec<T>, before: &[T]) -> Vec<T> {
            now.into_iter().filter(|x| !before.contains(x)).collect()
        }
        Leftovers {
            processes: new(self.processes, &before.processes),
            cgroups: new(self.cgroups, &before.cgroups),
            mounts: new(self.mounts, &before.mounts),
            states: new(self.states, &before.states),
        }
    }
}

/// Runs `test` while no other test of this process runs, and asserts that it leaves nothing behind.
pub fn assert_leaves_nothing(test: impl FnOnce()) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    stage();
    let before = leftovers();
    test();
    let nothing = Leftovers { processes: vec![], cgroups: vec![], mounts: vec![], states: vec![] };
    let mut last = leftovers().without(&before);
    for _ in 0..200 {
        if last == nothing {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
        last = leftovers().without(&before);
    }
    panic!("left behind: {last:#?}");
}
