//! A [`Place`] for runs that must leave nothing on the machine.

use crate::leaks::{self, Places, Snapshot};
use crate::{As, Place, Ran, demo, is_root, set_mode};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A string in the output of the program of [`Stage::run`]; it shows that the program ran.
pub const RAN: &str = "self_test";

/// A [`Place`] with the default image, and a snapshot of the machine.
pub struct Stage {
    /// The user of the runs.
    pub user: As,
    /// The directory.
    pub place: Place,
    places: Places,
    before: Snapshot,
}

impl Stage {
    /// Creates the stage and builds the default image.
    pub fn new(user: As) -> Self {
        leaks::adopt_orphans();
        let place = Place::new(user);
        for name in ["run", "tmp"] {
            std::fs::create_dir(place.path(name)).unwrap();
            set_mode(&place.path(name), 0o700);
            place.give(&place.path(name));
        }
        place.run(&["runtime", "image", "build"]).expect(0);
        let places = Places { states: vec![place.path("run/invarlock")], temporary: vec![place.path("tmp")] };
        let before = places.snapshot();
        Stage { user, place, places, before }
    }

    /// Whether root starts the runs.
    pub fn is_roots(&self) -> bool {
        is_root() && self.user == As::Caller
    }

    /// The parent of the user's state directory.
    pub fn runtime_dir(&self) -> PathBuf {
        if self.is_roots() { PathBuf::from("/run") } else { self.place.path("run") }
    }

    /// `invarlock` with private runtime and temporary directories.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        command.env("XDG_RUNTIME_DIR", self.place.path("run")).env("TMPDIR", self.place.path("tmp"));
        command
    }

    /// `runtime run` of the default image, whose program prints [`RAN`].
    pub fn run(&self, flags: &[&str]) -> Command {
        let image = ["invarlock-runtime:local", "--", "--self-test"];
        self.command(&[&["runtime", "run"], flags, &image].concat())
    }

    /// `evaluate` of a checkpoint against itself.
    pub fn evaluation(&self, flags: &[&str]) -> Command {
        let (checkpoint, preset) = (demo("baseline"), demo("preset.yaml"));
        let [checkpoint, preset] = [&checkpoint, &preset].map(|path| path.to_str().unwrap());
        let inputs = ["--baseline", checkpoint, "--subject", checkpoint, "--preset", preset];
        self.command(&[&["evaluate"], flags, &inputs].concat())
    }

    /// Runs the command to its end and checks that it leaves nothing behind.
    #[track_caller]
    pub fn end_of(&self, mut command: Command, what: &str) -> Ran {
        let ran = Ran::from(command.output().unwrap());
        // Of a killed launcher, or of a shell around it.
        if matches!(ran.code, -1 | 137) {
            self.no_command_runs();
        }
        self.nothing_left(what);
        ran
    }

    /// Fails the test if `runtime ps` lists a command for longer than a supervisor needs to end it. It removes the files of launchers that
    /// were killed.
    #[track_caller]
    pub fn no_command_runs(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let listed = Ran::from(self.command(&["runtime", "ps"]).output().unwrap()).expect(0);
            if listed.out.lines().count() == 1 {
                return;
            }
            assert!(Instant::now() < deadline, "{listed:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Fails the test if a run left anything behind.
    #[track_caller]
    pub fn nothing_left(&self, after: &str) {
        self.places.left_since(&self.before).is_nothing(after);
    }

    /// Fails the test if an evaluation wrote evidence.
    #[track_caller]
    pub fn no_evidence(&self, after: &str) {
        assert_eq!(self.place.names("work/reports/eval"), Vec::<String>::new(), "evidence after {after}");
    }
}

/// The outcome that `runtime run --json` writes to standard error.
#[track_caller]
pub fn outcome(ran: &Ran) -> Value {
    ran.err.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("{ran:?}"))
}
