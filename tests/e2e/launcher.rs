//! The launcher as shells, scripts and service managers start it. Inherited descriptors, variables,
//! and signal settings do not change a run. A set-uid launcher refuses to run.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::leaks::{self, Places};
use invarlock_tests::{As, Place, Ran, both, demo, is_root, layout, program, set_mode, skip};
use rustix::fs::SealFlags;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A [`Place`] with an image of `invarlock-workload`, which runs under the general seccomp filter.
struct Stage {
    place: Place,
    image: String,
    _one: MutexGuard<'static, ()>,
}

impl Stage {
    fn new(user: As) -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        leaks::adopt_orphans();
        let place = Place::new(user);
        std::fs::create_dir(place.path("run")).unwrap();
        set_mode(&place.path("run"), 0o700);
        place.give(&place.path("run"));
        let image = layout::of_program(&place, "image", &program("invarlock-workload"));
        Stage { place, image, _one: one }
    }

    /// `sh -c SCRIPT sh invarlock runtime run IMAGE MORE…`. The script starts `"$@"`.
    fn script(&self, script: &str, more: &[&str]) -> Command {
        let mut command = self.place.command_of("sh".as_ref(), &["-c", script, "sh"]);
        command.arg(self.place.path("bin/invarlock")).args(["runtime", "run"]);
        let flags = more.iter().take_while(|a| a.starts_with("--") && **a != "--").count();
        command.args(&more[..flags]).arg(&self.image).args(&more[flags..]);
        command.env("XDG_RUNTIME_DIR", self.place.path("run"));
        command
    }

    fn run(&self, script: &str, more: &[&str]) -> Ran {
        Ran::from(self.script(script, more).output().unwrap())
    }

    fn places(&self) -> Places {
        Places { states: vec![self.place.path("run/invarlock")], temporary: vec![] }
    }
}

/// What the workload `see` printed about its process.
fn self_description(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}\n{}", ran.out, ran.err))
}

#[test]
fn closed_standard_descriptors_do_not_change_the_run() {
    for user in both() {
        let stage = Stage::new(user);
        for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
            stage.run(&format!("exec \"$@\" {closed}"), &["--", "/workload", "exit", "7"]).expect(7);
            stage.run(&format!("exec \"$@\" {closed}"), &["--", "/nothing"]).expect(125);
        }
        let ran = stage.run("exec \"$@\" <&- 2>&-", &["--", "/workload", "see"]).expect(0);
        assert_eq!(self_description(&ran)["descriptors"], serde_json::json!([0, 1, 2]));
        assert_eq!(self_description(&ran)["stdin"], "/dev/null");
    }
}

#[test]
fn inherited_descriptors_and_variables_do_not_reach_the_container() {
    for user in both() {
        let stage = Stage::new(user);
        let script = "exec 7</etc/passwd 9>>kept; export LISTEN_FDS=3 LISTEN_PID=$$ NOTIFY_SOCKET=/run/x SECRET=1; exec \"$@\"";
        let mut command = stage.script(script, &["--", "/workload", "sleep"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let supervisor = wait_for_workload(&child).0;
        for process in descendants(supervisor) {
            let open = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
            let names: Vec<_> = open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
            assert!(
                names.iter().all(|n| !n.ends_with("passwd") && !n.ends_with("kept")),
                "{process}: {names:?}"
            );
            let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            let environment = String::from_utf8_lossy(&environment);
            assert!(!environment.contains("LISTEN") && !environment.contains("SECRET"), "{environment}");
            assert!(!environment.contains("NOTIFY"), "{environment}");
        }
        signal_and_wait(child, Signal::TERM);
        let ran = stage.run(script, &["--", "/workload", "see"]).expect(0);
        assert_eq!(self_description(&ran)["descriptors"], serde_json::json!([0, 1, 2]));
        assert!(!ran.out.contains("LISTEN") && !ran.out.contains("SECRET"), "{}", ran.out);
    }
}

/// The file of a process of a run is behind a read-only mount, so that even root cannot change its mode through `/proc/<pid>/exe`; or it is
/// a sealed copy, if the program was removed (CVE-2019-5736).
#[test]
fn executable_of_a_run_cannot_be_changed() {
    if !is_root() {
        return skip("executable_of_a_run_cannot_be_changed", "only root sees the processes of a run");
    }
    const REMOVED: &str = "cp \"$1\" removed; exec 3<removed; rm removed; shift; exec /proc/self/fd/3 \"$@\"";
    for (user, script) in both().into_iter().flat_map(|user| [(user, "exec \"$@\""), (user, REMOVED)]) {
        let stage = Stage::new(user);
        let before = std::fs::metadata(stage.place.path("bin/invarlock")).unwrap().permissions();
        let mut command = stage.script(script, &["--", "/workload", "sleep"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (supervisor, _) = wait_for_workload(&child);
        for process in [supervisor, descendants(supervisor)[0]] {
            let exe = format!("/proc/{process}/exe");
            let what = format!("{user:?}, {script}, {}", std::fs::read_link(&exe).unwrap().display());
            if what.contains("/memfd:") && script == REMOVED {
                let seals = rustix::fs::fcntl_get_seals(std::fs::File::open(&exe).unwrap()).unwrap();
                assert!(seals.contains(SealFlags::WRITE | SealFlags::SEAL), "{what}: {seals:?}");
                continue;
            }
            let changed = std::fs::set_permissions(&exe, before.clone());
            assert_eq!(changed.unwrap_err().raw_os_error(), Some(libc::EROFS), "{what}");
        }
        signal_and_wait(child, Signal::TERM);
    }
}

#[test]
fn ignored_and_blocked_signals_do_not_change_the_run() {
    for user in both() {
        let stage = Stage::new(user);
        for state in ["--ignore-signal=CHLD", "--ignore-signal=PIPE", "--block-signal=CHLD,TERM,INT,USR1"] {
            let start = Instant::now();
            let script = format!("exec env {state} \"$@\"");
            stage.run(&script, &["--timeout=20", "--", "/workload", "exit", "7"]).expect(7);
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{state}: the launcher did not notice the end of the run"
            );
        }
    }
}

#[test]
fn closed_output_pipe_ends_the_workload() {
    for user in both() {
        let stage = Stage::new(user);
        let before = stage.places().snapshot();
        let start = Instant::now();
        let flood = ["--", "/workload", "flood", "100000000000"];
        let ran = stage.run("{ \"$@\"; echo \"code $?\" >&2; } | head -c 5", &flood);
        assert_eq!(ran.out, "xxxxx");
        // Death by SIGPIPE, or a panic of a Rust program that ignores SIGPIPE.
        assert!(["code 141", "code 101", "code 134"].iter().any(|c| ran.err.contains(c)), "{}", ran.err);
        assert!(start.elapsed() < Duration::from_secs(20), "the run kept writing after the pipe was closed");
        stage.places().left_since(&before).is_nothing("a closed pipe");
        let full = stage.run("\"$@\" >/dev/full", &["--", "/workload", "exit", "0"]);
        assert_eq!(full.code, 0, "a run without output failed: {}", full.err);
        stage.run("\"$@\" >/dev/full", &["--", "/workload", "see"]).expect(125).one_error(&["No space left"]);
    }
}

/// What every run is, people may ask for; what no run can be is refused with what to do instead.
#[test]
fn options_of_podman_are_accepted_or_refused_with_a_remedy() {
    let place = Place::new(As::User);
    place.run(&["runtime", "image", "build"]).expect(0);
    let run = |options: &[&str]| {
        place.run(&[&["runtime", "run"], options, &["invarlock-runtime:local", "--", "--self-test"]].concat())
    };
    run(&["--rm", "--init", "--read-only", "--network", "none"]).expect(0);
    for (options, remedy) in [
        (&["--gpus", "all"][..], "--device nvidia.com/gpu=all"),
        (&["--pids-limit", "5"], "use --pids"),
        (&["-d"], "background"),
        (&["-p", "80:80"], "no network"),
        (&["--privileged"], "cannot be widened"),
        (&["--cap-add", "ALL"], "cannot be widened"),
        (&["--cap-drop", "ALL"], "no capability"),
        (&["--hostname", "x"], "cannot be chosen"),
    ] {
        run(options).expect(125).one_error(&[options[0], remedy]);
    }
    let ran = run(&["--network", "host"]).expect(125);
    assert!(ran.err.contains("[possible values: none]"), "{}", ran.err);
}

#[test]
fn set_uid_launcher_is_a_safety_violation() {
    if !is_root() {
        return skip("set_uid_launcher_is_a_safety_violation", "only root can make a program set-uid root");
    }
    let stage = Stage::new(As::User);
    let program = stage.place.path("bin/invarlock");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).unwrap();
    for (args, code) in [(&["version"][..], 3), (&["doctor"], 3), (&["runtime", "run", &stage.image], 125)] {
        let ran = stage.place.run(args);
        ran.expect(code).one_error(&["safety_violation", "set-uid", "remove"]);
    }
    set_mode(&program, 0o755);
    stage.place.run(&["version"]).expect(0);
}

#[test]
fn sighup_ends_the_run_unless_it_is_ignored() {
    for user in both() {
        let stage = Stage::new(user);
        let before = stage.places().snapshot();
        for (script, ignored) in [("trap '' HUP; exec \"$@\"", true), ("exec \"$@\"", false)] {
            let mut command = stage.script(script, &["--timeout=3", "--", "/workload", "sleep"]);
            let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            wait_for_workload(&child);
            let (code, err) = signal_and_wait(child, Signal::HUP);
            let expected = if ignored { (125, "wall-time limit") } else { (129, "SIGHUP") };
            assert_eq!(code, expected.0, "{err}");
            assert!(err.contains(expected.1), "{err}");
        }
        stage.places().left_since(&before).is_nothing("SIGHUP");
    }
}

/// The pipe of standard output is full, so the launcher waits for its reader.
#[test]
fn sigterm_ends_a_run_whose_output_nothing_reads() {
    for user in both() {
        let stage = Stage::new(user);
        let before = stage.places().snapshot();
        let mut command =
            stage.script("exec \"$@\"", &["--timeout=60", "--", "/workload", "flood", "100000000000"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let unread = child.stdout.take();
        wait_for_workload(&child);
        std::thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        let (code, err) = signal_and_wait(child, Signal::TERM);
        assert_eq!(code, 143, "{err}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        drop(unread);
        stage.places().left_since(&before).is_nothing("SIGTERM");
    }
}

#[test]
fn sigquit_ends_the_run_and_user_signals_do_not() {
    for user in both() {
        let stage = Stage::new(user);
        let before = stage.places().snapshot();
        let mut command = stage.script("exec \"$@\"", &["--timeout=60", "--", "/workload", "sleep"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (supervisor, _) = wait_for_workload(&child);
        for signal in [Signal::USR1, Signal::USR2] {
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        std::thread::sleep(Duration::from_millis(300));
        assert!(!has_ended(supervisor), "a signal without effect ended the run");
        let (code, err) = signal_and_wait(child, Signal::QUIT);
        assert_eq!(code, 131, "{err}");
        assert!(err.contains("SIGQUIT"), "{err}");
        stage.places().left_since(&before).is_nothing("SIGQUIT");
    }
}

#[test]
fn exit_code_of_a_workload_that_handles_sigterm_is_returned() {
    for user in both() {
        let stage = Stage::new(user);
        let mut command = stage.script("exec \"$@\"", &["--timeout=60", "--", "/workload", "exit-on-term"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It prints a line when its handler is installed.
        let mut line = [0; 8];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let (code, err) = signal_and_wait(child, Signal::TERM);
        assert_eq!(code, 7, "{err}");
    }
}

#[test]
fn time_limit_ends_the_run_of_a_stopped_launcher() {
    for user in both() {
        let stage = Stage::new(user);
        let mut command = stage.script("exec \"$@\"", &["--timeout=2", "--", "/workload", "ignore-term"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (supervisor, _) = wait_for_workload(&child);
        kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
        let start = Instant::now();
        while !descendants(supervisor).is_empty() && !has_ended(supervisor) {
            assert!(start.elapsed() < Duration::from_secs(15), "the run exceeded its time limit");
            std::thread::sleep(Duration::from_millis(20));
        }
        let (code, err) = signal_and_wait(child, Signal::CONT);
        assert_eq!(code, 125, "{err}");
        assert!(err.contains("the wall-time limit (2 s) was reached\nhelp: raise --timeout"), "{err}");
    }
}

#[test]
fn limit_options_are_enforced_and_reported() {
    for user in both() {
        let stage = Stage::new(user);
        let ran = stage.run("\"$@\"", &["--tmp-size=1M", "--", "/workload", "fill", "/tmp"]).expect(0);
        assert_eq!(ran.out.trim(), format!("{} 28", 1 << 20));
        assert_eq!(ran.err, "invarlock: the /tmp limit (1.00 MiB) was reached; raise --tmp-size\n");
        let ran = stage.run("\"$@\"", &["--output-size=1M", "--", "/workload", "fill", "/out"]).expect(0);
        assert!(
            ran.err.contains("the output limit (1.00 MiB) was reached; raise --output-size"),
            "{}",
            ran.err
        );
        let ran = stage.run("\"$@\"", &["--pids=20", "--", "/workload", "fork-bomb"]).expect(0);
        assert!(ran.out.trim().ends_with(" 11"), "{}", ran.out);
        let ran = stage.run("\"$@\"", &["--json", "--pids=20", "--", "/workload", "exit", "0"]).expect(0);
        let outcome: Value = serde_json::from_str(&ran.err).unwrap();
        let limits = outcome["observations"]["limits"]["value"].as_array().unwrap();
        let pids = limits.iter().find(|limit| limit["name"] == "pids").unwrap();
        assert_eq!((&pids["asked"], &pids["effective"]), (&Value::from(20), &Value::from(20)));
        assert!(ran.err.trim_end().bytes().all(|b| (0x20..0x7f).contains(&b)), "{}", ran.err);
        let ran = stage.run("\"$@\"", &["--cpus=0.5", "--memory=64M", "--", "/workload", "exit", "0"]);
        match user {
            As::Caller => drop(ran.expect(0)),
            // Without a delegated cgroup these limits cannot be enforced.
            As::User => assert!(ran.code == 0 || ran.err.contains("cannot be enforced"), "{}", ran.err),
        }
        for (invalid, why) in [
            ("--cpus=0", "out of range"),
            ("--pids=1", "use a whole number from 4 to 4194304"),
            ("--timeout=x", "use a whole number of seconds, 1 or more"),
            ("--memory=1M", "the minimum is 4M"),
            ("--tmp-size=1X", "unknown unit"),
            ("--tmp-size=1", "the minimum is "),
            ("--output-size=1", "the minimum is "),
        ] {
            let ran = stage.run("\"$@\"", &[invalid]).expect(125);
            assert!(ran.err.contains(why), "{invalid}: {}", ran.err);
        }
    }
}

#[test]
fn evaluate_accepts_the_limit_options() {
    let place = Place::new(As::Caller);
    let evaluate = |flag| {
        let (baseline, preset) = (demo("baseline"), demo("preset.yaml"));
        let paths = [baseline.to_str().unwrap(), preset.to_str().unwrap()].map(str::to_owned);
        let mut command = place.command(&["evaluate", "--baseline", &paths[0], "--subject", &paths[0]]);
        command.args(["--preset", &paths[1], flag]);
        Ran::from(command.output().unwrap())
    };
    evaluate("--output-size=8K").expect(3).one_error(&["baseline", "No space left", "raise --output-size"]);
    let mut command = place.command(&["evaluate", "--dry-run", "--tmp-size=1M", "--pids=50"]);
    command.arg("--baseline").arg(demo("baseline")).arg("--subject").arg(demo("healthy"));
    let plan = Ran::from(command.arg("--preset").arg(demo("preset.yaml")).output().unwrap()).expect(0).json();
    let limits = &plan["sides"]["subject"]["limits"];
    assert_eq!(
        (&limits["tmp_bytes"], &limits["pids"]),
        (&Value::from(1 << 20), &Value::from(50)),
        "{limits}"
    );
}

/// The process ids of all living descendants.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = leaks::children(pid);
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(leaks::children(pid));
        next += 1;
    }
    found
}

/// Whether no process has this id, or a zombie has it.
fn has_ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// Waits until the workload runs its program. Returns the ids of the supervisor and the workload.
fn wait_for_workload(launcher: &Child) -> (u32, u32) {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < Duration::from_secs(20), "the workload did not start");
        let supervisor = leaks::children(launcher.id()).first().copied();
        for pid in supervisor.map(descendants).unwrap_or_default() {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if let (true, Some(supervisor)) = (line.starts_with(b"/workload"), supervisor) {
                return (supervisor, pid);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal to the launcher and waits for its end. Returns its exit code and standard error.
fn signal_and_wait(mut child: Child, signal: Signal) -> (i32, String) {
    kill_process(Pid::from_child(&child), signal).unwrap();
    let mut err = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_string(&mut err).unwrap();
    }
    (child.wait().unwrap().code().unwrap_or(-1), err)
}
