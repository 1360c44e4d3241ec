//! A place for runs after which nothing may be left on this machine.

use crate::leaks::{self, Look, Places};
use crate::{As, Place, Ran, demo, is_root, set_mode};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// The program of [`Stage::run`] says that, so that it shows whether it ran.
pub const SAID: &str = "self_test";

/// A place with the default image, and what was on this machine before.
pub struct Stage {
    /// Who runs in it.
    pub user: As,
    /// Where.
    pub place: Place,
    places: Places,
    before: Look,
}

impl Stage {
    /// Makes it.
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
        let before = places.look();
        Stage { user, place, places, before }
    }

    /// Whether root runs in it.
    pub fn is_roots(&self) -> bool {
        is_root() && self.user == As::Caller
    }

    /// Where the user's state directory is made.
    pub fn runtime_dir(&self) -> PathBuf {
        if self.is_roots() { PathBuf::from("/run") } else { self.place.path("run") }
    }

    /// `invarlock` with directories of its own.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        command.env("XDG_RUNTIME_DIR", self.place.path("run")).env("TMPDIR", self.place.path("tmp"));
        command
    }

    /// `runtime run` of the default image, whose program says [`SAID`].
    pub fn run(&self, flags: &[&str]) -> Command {
        let image = ["invarlock-runtime:local", "--", "/invarlock-evaluator", "--self-test"];
        self.command(&[&["runtime", "run"], flags, &image].concat())
    }

    /// `evaluate` of a checkpoint and itself.
    pub fn evaluation(&self, flags: &[&str]) -> Command {
        let (checkpoint, preset) = (demo("baseline"), demo("preset.yaml"));
        let [checkpoint, preset] = [&checkpoint, &preset].map(|path| path.to_str().unwrap());
        let inputs = ["--baseline", checkpoint, "--subject", checkpoint, "--preset", preset];
        self.command(&[&["evaluate"], flags, &inputs].concat())
    }

    /// Runs it to its end, after which nothing is left.
    #[track_caller]
    pub fn end_of(&self, mut command: Command, what: &str) -> Ran {
        let ran = Ran::from(command.output().unwrap());
        self.nothing_left(what);
        ran
    }

    /// Fails the test where anything is left.
    #[track_caller]
    pub fn nothing_left(&self, after: &str) {
        self.places.left_since(&self.before).is_nothing(after);
    }

    /// Fails the test where anything that looks like evidence is there.
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
