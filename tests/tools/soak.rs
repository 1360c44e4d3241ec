//! `make soak`: many runs in a row, at once, and killed. It prints what each kind left behind; every number must be zero.
//!
//! This program is also the long-lived caller: it runs containers through the library and counts its own descriptors and memory.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a soak test stops at the first failure")]

use invarlock_runtime::{ContainerSpec, Limits, Rootfs, Sink, Status};
use invarlock_tests::leaks::{self, Places, Snapshot};
use invarlock_tests::{As, Place, both, program};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Number of runs of each kind; the second argument divides it.
const SEQUENTIAL: usize = 1000;
const PARALLEL: usize = 50;
const KILLS: usize = 20;
const IN_PROCESS: usize = 300;
/// Runs after which the memory of a caller is stable, and how much it may grow from then on.
const WARM: usize = 50;
const GROWTH_KIB: u64 = 1024;

fn main() -> ExitCode {
    invarlock_runtime::reexec::run_if_child();
    let mut args = std::env::args_os().skip(1);
    let usage = "usage: invarlock-soak PATH-OF-INVARLOCK [DIVISOR]";
    let invarlock = PathBuf::from(args.next().expect(usage));
    let divisor = args.next().map_or(1, |n| n.to_str().and_then(|n| n.parse().ok()).expect(usage));
    if let Some(caller) = args.next() {
        return in_process(Path::new(&caller), IN_PROCESS / divisor);
    }
    leaks::adopt_orphans();
    println!("{:<22}{:<28}{:>6} {:>8}  left behind", "", "", "runs", "seconds");
    let clean: Vec<bool> = both().into_iter().map(|user| soak(&invarlock, user, divisor)).collect();
    let clean = clean.into_iter().all(|clean| clean);
    println!("\n{}", if clean { "nothing is left behind" } else { "SOMETHING IS LEFT BEHIND" });
    ExitCode::from(u8::from(!clean))
}

/// The runs of one user.
struct Soak {
    user: As,
    place: Place,
    places: Places,
    clean: bool,
}

fn soak(invarlock: &Path, user: As, divisor: usize) -> bool {
    let place = Place::with(user, invarlock);
    let noop = place.path("bin/noop");
    std::fs::copy(program("noop"), &noop).unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), place.path("bin/soak")).unwrap();
    for dir in ["layer", "run"] {
        std::fs::create_dir(place.path(dir)).unwrap();
    }
    std::fs::copy(&noop, place.path("layer/noop")).unwrap();
    invarlock_tests::set_mode(&place.path("layer"), 0o755);
    invarlock_tests::set_mode(&place.path("run"), 0o700);
    place.give(&place.path("run"));
    place.run(&["runtime", "image", "build", "--evaluator", noop.to_str().unwrap()]).expect(0);
    let places = Places { states: vec![place.path("run/invarlock")], temporary: vec![] };
    let mut soak = Soak { user, place, places, clean: true };
    soak.round("one after the other", SEQUENTIAL / divisor, |soak, runs| {
        (0..runs).for_each(|_| succeeded(soak.start().wait_with_output().unwrap()));
    });
    soak.round("at once", PARALLEL.min(SEQUENTIAL / divisor), |soak, runs| {
        let started: Vec<Child> = (0..runs).map(|_| soak.start()).collect();
        started.into_iter().for_each(|child| succeeded(child.wait_with_output().unwrap()));
    });
    soak.round("launcher killed", KILLS, |soak, runs| {
        let hit = (0..runs).filter(|i| soak.killed_after(*i, |launcher| Some(launcher.id()))).count();
        assert!(hit > runs / 2, "only {hit} of {runs} runs were killed before their end");
        succeeded(soak.start().wait_with_output().unwrap());
    });
    soak.round("supervisor killed", KILLS, |soak, runs| {
        let supervisor = |launcher: &Child| leaks::children(launcher.id()).first().copied();
        let hit = (0..runs).filter(|i| soak.killed_after(*i, supervisor)).count();
        assert!(hit > runs / 4, "only {hit} of {runs} runs were killed before their end");
        succeeded(soak.start().wait_with_output().unwrap());
    });
    soak.round("in one process", IN_PROCESS / divisor, |soak, _| {
        let mut caller = soak.command(&soak.place.path("bin/soak"));
        caller.args(["-", &divisor.to_string()]).arg(soak.place.path("layer"));
        let out = caller.stdout(Stdio::piped()).output().unwrap();
        print!("{}", String::from_utf8_lossy(&out.stdout));
        soak.clean &= out.status.success();
    });
    soak.clean
}

fn succeeded(output: std::process::Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

impl Soak {
    /// Runs one kind and prints what it left behind.
    fn round(&mut self, name: &str, runs: usize, what: impl FnOnce(&mut Self, usize)) {
        let before = self.places.snapshot();
        let start = Instant::now();
        what(self, runs);
        let seconds = start.elapsed().as_secs_f64();
        let left: Snapshot = self.places.left_since(&before);
        let counts: Vec<String> =
            left.kinds().iter().map(|(what, names)| format!("{} {what}", names.len())).collect();
        let who = match self.user {
            As::Caller => "root",
            As::User => "user",
        };
        println!("{who:<22}{name:<28}{runs:>6} {seconds:>8.1}  {}", counts.join(", "));
        for name in left.kinds().iter().flat_map(|(_, names)| names.iter()) {
            println!("    LEFT {name}");
            self.clean = false;
        }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = self.place.command_of(program, &[]);
        command.env("XDG_RUNTIME_DIR", self.place.path("run"));
        command
    }

    fn start(&self) -> Child {
        let mut command = self.command(&self.place.path("bin/invarlock"));
        command.args(["runtime", "run", "invarlock-runtime:local"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Kills one process of a run, a little later each time. False if the run had already ended.
    fn killed_after(&self, i: usize, whom: impl Fn(&Child) -> Option<u32>) -> bool {
        let mut launcher = self.start();
        let pid = loop {
            match whom(&launcher).and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
                None if launcher.try_wait().unwrap().is_none() => continue,
                found => break found,
            }
        };
        std::thread::sleep(Duration::from_micros(500 * i as u64));
        if let Some(pid) = pid {
            _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        !launcher.wait_with_output().unwrap().status.success()
    }
}

/// Discards the output of a run.
struct Discard;

impl Sink for Discard {
    fn stdout(&mut self, _: &[u8]) {}
    fn stderr(&mut self, _: &[u8]) {}
}

/// The long-lived caller: runs the no-op of `layer` repeatedly and measures itself.
fn in_process(layer: &Path, runs: usize) -> ExitCode {
    let (cancel, _hold) = UnixStream::pair().unwrap();
    let filter = invarlock_seccomp::Profile::evaluator().compile().unwrap();
    let mut warm = None;
    for i in 0..=runs {
        if i == WARM.min(runs / 2) {
            warm = Some((descriptors(), resident_kib()));
        }
        let spec = ContainerSpec {
            rootfs: Rootfs::Layers(vec![layer.to_path_buf()]),
            argv: vec!["/noop".into()],
            env: vec![],
            cwd: "/".into(),
            inputs: vec![],
            filter: filter.clone(),
            limits: Limits::for_machine(),
            collect_output: true,
            stdio: invarlock_runtime::Stdio::Output,
            runtime_files: None,
            stop_timeout: ContainerSpec::STOP_TIMEOUT,
            mounts: Vec::new(),
        };
        let outcome = invarlock_runtime::run(spec, cancel.as_fd(), &mut Discard).unwrap();
        assert_eq!(outcome.status, Status::Exited(0));
    }
    let (fds, kib) = warm.unwrap();
    let (more, grown) = (descriptors().saturating_sub(fds), resident_kib().saturating_sub(kib));
    println!("{:<50}{runs:>6} {:>8}  {more} descriptors, {grown} KiB grown", "  (the calling process)", "");
    ExitCode::from(u8::from(more > 0 || grown > GROWTH_KIB))
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
