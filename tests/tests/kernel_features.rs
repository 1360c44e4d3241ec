//! A kernel that lacks a call (a filter answers for it): the run works without it, or ends with one error that names the row, the cause and the
//! remedy; the workload never ran, and nothing is left. The table is docs/kernel-features.md.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::leaks::{self, Look, Places};
use invarlock_tests::{As, Place, Ran, both, program, set_mode};

struct Stage {
    place: Place,
    places: Places,
    before: Look,
}

impl Stage {
    fn new(user: As) -> Self {
        leaks::adopt_orphans();
        let place = Place::new(user);
        for name in ["run", "tmp"] {
            std::fs::create_dir(place.path(name)).unwrap();
            set_mode(&place.path(name), 0o700);
            place.give(&place.path(name));
        }
        for name in ["noop", "without"] {
            std::fs::copy(program(name), place.path("bin").join(name)).unwrap();
        }
        let noop = place.path("bin/noop");
        place.run(&["runtime", "image", "build", "--evaluator", noop.to_str().unwrap()]).expect(0);
        let places = Places { states: vec![place.path("run/invarlock")], temporary: vec![place.path("tmp")] };
        let before = places.look();
        Stage { place, places, before }
    }

    /// `runtime run` of the no-op where `missing` is not there. The outcome is printed only where the workload ran.
    fn without(&self, missing: &str) -> Ran {
        let invarlock = self.place.path("bin/invarlock");
        let args = [
            missing,
            "--",
            invarlock.to_str().unwrap(),
            "runtime",
            "run",
            "--json",
            "invarlock-runtime:local",
        ];
        let mut command = self.place.command_of(&self.place.path("bin/without"), &args);
        command.env("XDG_RUNTIME_DIR", self.place.path("run")).env("TMPDIR", self.place.path("tmp"));
        let ran = Ran::from(command.output().unwrap());
        self.places.left_since(&self.before).is_nothing(missing);
        ran
    }

    #[track_caller]
    fn unsupported(&self, missing: &str, needles: &[&str]) {
        let ran = self.without(missing).expect(125);
        assert!(!ran.err.contains("observations"), "without {missing} the workload ran: {}", ran.err);
        let ran_error = format!("{}{}", ran.out, ran.err);
        assert!(ran_error.contains("unsupported"), "without {missing}: {ran_error}");
        for needle in needles {
            assert!(ran_error.contains(needle), "without {missing}: {needle:?} is not in {ran_error}");
        }
    }
}

#[test]
fn a_missing_call_is_an_error_with_its_row_and_remedy() {
    for user in both() {
        let stage = Stage::new(user);
        for call in ["openat2", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "mount_setattr"] {
            stage.unsupported(call, &["root file system", "Function not implemented", "Linux 5.15"]);
        }
        stage.unsupported("pidfd_open", &["life", "Linux 5.15"]);
        for call in ["close_range", "close-range-cloexec"] {
            stage.unsupported(call, &["descriptors", "Linux 5.15"]);
        }
    }
}

#[test]
fn what_has_another_way_works_without() {
    for user in both() {
        let stage = Stage::new(user);
        for call in ["memfd-exec", "pidfd_send_signal", "statx"] {
            let ran = stage.without(call);
            assert_eq!(ran.code, 0, "without {call}: {ran:?}");
            assert!(ran.err.contains("observations"), "without {call}: {ran:?}");
        }
    }
}
