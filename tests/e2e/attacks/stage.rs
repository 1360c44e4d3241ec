//! The environment of an attack: a place with the programs, a canary, and the images of the attack.

use crate::canary::{Canary, digest};
use invarlock_tests::layout::Layout;
use invarlock_tests::{As, Place, Ran, demo, is_root, program};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Duration of each race attack, for each user.
pub const RACE_DURATION: Duration = Duration::from_secs(3);

pub struct Stage {
    pub place: Place,
    pub canary: Canary,
    programs: Vec<(PathBuf, String)>,
}

impl Stage {
    pub fn new(user: As) -> Self {
        let place = Place::new(user);
        let workload = place.path("bin/workload");
        fs::copy(program("invarlock-workload"), &workload).unwrap();
        let programs = [place.path("bin/invarlock"), workload].map(|path| (path.clone(), digest(&path)));
        let canary = Canary::new(&place);
        Stage { place, canary, programs: programs.to_vec() }
    }

    /// A layout with the workload and the files that `fill` adds.
    pub fn layout(&self, name: &str, fill: impl FnOnce(&Path)) -> Layout {
        let workload = self.place.path("bin/workload");
        Layout::of_tree(&self.place, name, |rootfs| {
            fs::copy(workload, rootfs.join("workload")).unwrap();
            fill(rootfs);
        })
    }

    /// An image of such a layout that runs the workload.
    pub fn image(&self, name: &str, fill: impl FnOnce(&Path)) -> String {
        self.layout(name, fill).image("test", &config(&json!({})))
    }

    /// An image without the workload, for a run that must be refused before its start.
    pub fn bare_image(&self, name: &str, fill: impl FnOnce(&Path)) -> String {
        Layout::of_tree(&self.place, name, fill).image("test", &config(&json!({})))
    }

    /// `invarlock runtime run FLAGS IMAGE -- /workload ARGS`.
    pub fn run(&self, flags: &[&str], image: &str, args: &[&str]) -> Ran {
        Ran::from(self.command(flags, image, args).output().unwrap())
    }

    pub fn command(&self, flags: &[&str], image: &str, args: &[&str]) -> Command {
        self.place.command(&[&["runtime", "run"], flags, &[image, "--", "/workload"], args].concat())
    }

    /// The same on a new terminal. Returns the bytes that the terminal received.
    pub fn on_a_terminal(&self, image: &str, args: &[&str]) -> Vec<u8> {
        let line = format!(
            "{} runtime run {image} -- /workload {}",
            self.place.path("bin/invarlock").display(),
            args.join(" ")
        );
        let mut script = self.place.command_of("script".as_ref(), &["-qec", &line, "/dev/null"]);
        let out = script.env("SHELL", "/bin/sh").output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        out.stdout
    }

    /// An evaluation of the demo whose evaluator performs `attack`.
    pub fn evaluate_by(&self, attack: &str, flags: &[&str]) -> Ran {
        let layout = self.layout("evaluator", |rootfs| {
            fs::rename(rootfs.join("workload"), rootfs.join("invarlock-evaluator")).unwrap();
            fs::write(rootfs.join("attack"), attack).unwrap();
        });
        let label = json!({"Labels": {"org.invarlock.speaks": "measure"}});
        let image = layout.image("test", &label);
        let (checkpoint, preset) = (demo("baseline"), demo("preset.yaml"));
        let paths = [&checkpoint, &preset].map(|path| path.to_str().unwrap());
        let args = ["evaluate", "--image", &image, "--baseline", paths[0], "--subject", paths[0]];
        self.place.run(&[&args[..], &["--preset", paths[1]], flags].concat())
    }

    /// Runs a plan with the test launcher, which accepts plans that no image and no command line
    /// can express. Returns the outcomes.
    pub fn launch(&self, plan: &Value) -> Vec<Value> {
        let workload = self.place.path("bin/workload");
        let mut command = self.place.command_of(&workload, &["launch", &plan.to_string()]);
        let ran = Ran::from(command.output().unwrap()).expect(0);
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A root file system for [`Stage::launch`]. The user owns it, and it has all mount points.
    pub fn rootfs(&self, name: &str) -> PathBuf {
        let rootfs = self.place.path(name);
        let directories = ["", "dev", "in", "out", "proc", "tmp", "sub"].map(|name| rootfs.join(name));
        for dir in directories {
            fs::create_dir(&dir).unwrap();
            self.place.give(&dir);
        }
        fs::copy(self.place.path("bin/workload"), rootfs.join("workload")).unwrap();
        rootfs
    }

    /// Fails the test if the canary or the programs changed.
    #[track_caller]
    pub fn assert_unchanged(&self) {
        self.canary.assert_unchanged();
        for (path, before) in &self.programs {
            assert_eq!(digest(path), *before, "{} was overwritten", path.display());
        }
    }
}

/// The image configuration that runs the workload, with the members of `more`.
pub fn config(more: &Value) -> Value {
    let mut config = json!({"Cmd": ["/workload"], "Env": ["PATH=/"]});
    let Value::Object(members) = more else { panic!("not an object: {more}") };
    members.iter().for_each(|(key, value)| config[key] = value.clone());
    config
}

/// The first JSON object in the output of a workload.
#[track_caller]
pub fn printed_json(ran: &Ran) -> Value {
    let line = ran.out.lines().find_map(|line| serde_json::from_str(line).ok());
    line.unwrap_or_else(|| panic!("{ran:?}"))
}

/// The ids in the container of a workload with the identity of a measurement.
pub fn inside_ids(user: As) -> (u32, u32) {
    match (user, is_root()) {
        (As::Caller, true) => (65_532, 65_532),
        _ => (0, 0),
    }
}

/// A thread that repeatedly exchanges two paths.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Swapper {
    fn start((one, other): (PathBuf, PathBuf)) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            // After an even number of exchanges the names are the original ones.
            while !stopped.load(Ordering::Relaxed) || count % 2 != 0 {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                count += 1;
                std::thread::yield_now();
            }
            count
        });
        Swapper { stop, thread }
    }

    /// Stops the thread and returns the number of exchanges.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Calls `round` repeatedly for [`RACE_DURATION`] while a [`Swapper`] exchanges one of the pairs,
/// in turn. `round` returns the number of runs and the number of refused runs.
pub fn race(name: &str, user: As, pairs: &[(PathBuf, PathBuf)], mut round: impl FnMut() -> (usize, usize)) {
    let start = Instant::now();
    let (mut exchanges, mut runs, mut refused) = (0, 0, 0);
    for pair in pairs.iter().cycle() {
        let swapper = Swapper::start(pair.clone());
        let (round_runs, round_refused) = round();
        exchanges += swapper.stop();
        (runs, refused) = (runs + round_runs, refused + round_refused);
        if start.elapsed() > RACE_DURATION {
            break;
        }
    }
    eprintln!("RACE {name} {user:?}: {exchanges} exchanges during {runs} runs, {refused} of them refused");
    assert!(exchanges > 10_000 && runs > 10, "{exchanges} exchanges and {runs} runs are too few for a race");
}
