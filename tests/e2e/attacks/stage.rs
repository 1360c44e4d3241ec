//! Where the attacks happen: a place with the programs, a canary beside it, and images that the attacks make.

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

/// How long the attacks that are races go on, in each mode.
pub const RACE: Duration = Duration::from_secs(3);

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

    /// A layout with the workload and what `fill` adds.
    pub fn layout(&self, name: &str, fill: impl FnOnce(&Path)) -> Layout {
        let workload = self.place.path("bin/workload");
        Layout::of_tree(&self.place, name, |tree| {
            fs::copy(workload, tree.join("workload")).unwrap();
            fill(tree);
        })
    }

    /// An image of it that runs the workload.
    pub fn image(&self, name: &str, fill: impl FnOnce(&Path)) -> String {
        self.layout(name, fill).image("test", &config(&json!({})))
    }

    /// One without the workload, for a run that must not come so far.
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

    /// The same on a terminal of its own; gives what the terminal showed.
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

    /// An evaluation of the demo by an evaluator that does this instead.
    pub fn evaluate_by(&self, attack: &str, flags: &[&str]) -> Ran {
        let layout = self.layout("evaluator", |tree| {
            fs::rename(tree.join("workload"), tree.join("invarlock-evaluator")).unwrap();
            fs::write(tree.join("attack"), attack).unwrap();
        });
        let label = json!({"Labels": {"org.invarlock.speaks": "measure"}});
        let image = layout.image("test", &label);
        let (checkpoint, preset) = (demo("baseline"), demo("preset.yaml"));
        let paths = [&checkpoint, &preset].map(|path| path.to_str().unwrap());
        let args = ["evaluate", "--image", &image, "--baseline", paths[0], "--subject", paths[0]];
        self.place.run(&[&args[..], &["--preset", paths[1]], flags].concat())
    }

    /// A small launcher that takes any plan of a run, for what no image and no command line can say.
    pub fn launch(&self, plan: &Value) -> Vec<Value> {
        let out = self.place.command_of(&self.place.path("bin/workload"), &["launch", &plan.to_string()]);
        let mut out = out;
        let ran = Ran::from(out.output().unwrap()).expect(0);
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A root file system for [`Stage::launch`] that the user owns, with all mount points.
    pub fn tree(&self, name: &str) -> PathBuf {
        let tree = self.place.path(name);
        let directories = ["", "dev", "in", "out", "proc", "tmp", "sub"].map(|name| tree.join(name));
        for dir in directories {
            fs::create_dir(&dir).unwrap();
            self.place.give(&dir);
        }
        fs::copy(self.place.path("bin/workload"), tree.join("workload")).unwrap();
        tree
    }

    /// Fails the test where anything outside was changed: the canary, or the programs.
    #[track_caller]
    pub fn is_unharmed(&self) {
        self.canary.is_untouched();
        for (path, before) in &self.programs {
            assert_eq!(digest(path), *before, "{} was overwritten", path.display());
        }
    }
}

/// The configuration of a run of the workload, with `more` in it.
pub fn config(more: &Value) -> Value {
    let mut config = json!({"Entrypoint": ["/workload"], "Env": ["PATH=/"]});
    let Value::Object(members) = more else { panic!("not an object: {more}") };
    members.iter().for_each(|(key, value)| config[key] = value.clone());
    config
}

/// The one JSON object that a workload printed.
#[track_caller]
pub fn told(ran: &Ran) -> Value {
    let line = ran.out.lines().find_map(|line| serde_json::from_str(line).ok());
    line.unwrap_or_else(|| panic!("{ran:?}"))
}

/// The id that a run has inside, and on the host.
pub fn ids(user: As) -> (u32, u32) {
    match (user, is_root()) {
        (As::Caller, true) => (65_532, 2_080_374_784 + 1),
        (As::User, true) => (0, invarlock_tests::USER),
        (_, false) => (0, rustix::process::geteuid().as_raw()),
    }
}

/// Exchanges two paths again and again, in a thread of its own.
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
            // An even number, so that the names are in the end what they were.
            while !stopped.load(Ordering::Relaxed) || count % 2 != 0 {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                count += 1;
                std::thread::yield_now();
            }
            count
        });
        Swapper { stop, thread }
    }

    /// Ends it; gives the number of exchanges.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Does `round` again and again for [`RACE`], while one of the pairs is exchanged, each in its turn. `round` says how many runs it was, and
/// how many of them were refused.
pub fn race(name: &str, user: As, pairs: &[(PathBuf, PathBuf)], mut round: impl FnMut() -> (usize, usize)) {
    let start = Instant::now();
    let (mut exchanges, mut runs, mut refused) = (0, 0, 0);
    for pair in pairs.iter().cycle() {
        let swapper = Swapper::start(pair.clone());
        let (more, of_them) = round();
        exchanges += swapper.end();
        (runs, refused) = (runs + more, refused + of_them);
        if start.elapsed() > RACE {
            break;
        }
    }
    eprintln!("RACE {name} {user:?}: {exchanges} exchanges during {runs} runs, {refused} of them refused");
    assert!(exchanges > 10_000 && runs > 10, "{exchanges} exchanges and {runs} runs are no race");
}
