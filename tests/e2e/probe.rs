//! `invarlock runtime probe` finds every control enforced, as root and as an ordinary user.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{Place, both};

#[test]
fn every_probe_attack_is_blocked() {
    for user in both() {
        let place = Place::new(user);
        let value = place.run(&["runtime", "probe", "--json"]).expect(0).json();
        let attacks = value["attacks"].as_array().unwrap();
        assert!(attacks.len() > 100, "{} attacks", attacks.len());
        for attack in attacks {
            assert_eq!(attack["verdict"], "held", "{user:?}: {attack:#}");
        }
        let left = place.names("home").into_iter().chain(place.names("work")).collect::<Vec<_>>();
        assert_eq!(left, Vec::<String>::new());
    }
}

/// One control is disabled by fault injection. The supervisor refuses the run if it observes the
/// missing control. With the supervisor's check disabled too, exactly the attacks that the control
/// blocks succeed.
#[cfg(feature = "fault-injection")]
mod disabled_controls {
    use super::Place;
    use invarlock_runtime::hooks::{CONTROLS, Control};
    use invarlock_tests::{As, Ran, is_root, wrapped_by};

    fn probe(place: &Place, control: &Control, unchecked: bool, root: bool) -> Ran {
        let mut command = place.command(&["runtime", "probe", "--json"]);
        if root && control.name == "supplementary groups" {
            command = wrapped_by("setpriv", &["--groups", "4,27", "--"], &command);
        }
        if control.name == "private mounts" {
            // systemd shares mounts in the same way.
            command = wrapped_by("unshare", &["--mount", "--propagation", "shared", "--"], &command);
        }
        command.env("INVARLOCK_TEST_WITHOUT", control.name);
        if unchecked {
            command.env("INVARLOCK_TEST_UNSEEN", "1");
        }
        Ran::from(command.output().unwrap())
    }

    fn check(user: As) {
        let place = Place::new(user);
        let root = user == As::Caller && is_root();
        for control in CONTROLS {
            let name = control.name;
            let expected = if root { control.root } else { control.user };
            // No attack succeeds: another control or the kernel blocks the same attacks.
            let redundant = control.root.is_empty() && control.user.is_empty();
            if expected.is_empty() && !redundant {
                continue;
            }
            if name == "private mounts" && !is_root() {
                invarlock_tests::skip(
                    "each_disabled_control_is_detected_as_a_user: private mounts",
                    "only root can share mounts",
                );
                continue;
            }
            if !control.observed.is_empty() {
                let ran = probe(&place, control, false, root).expect(125);
                let message = ran.json()["error"]["message"].as_str().unwrap().to_owned();
                assert!(
                    control.observed.iter().any(|observed| message.contains(&format!("{observed:?}"))),
                    "{name:?}: {message}"
                );
            }
            if redundant {
                continue;
            }
            let value = probe(&place, control, true, root).expect(1).json();
            let attacks = value["attacks"].as_array().unwrap();
            let succeeded: Vec<_> = attacks.iter().filter(|attack| attack["verdict"] == "not_held").collect();
            for id in expected {
                assert!(
                    succeeded.iter().any(|attack| attack["id"] == *id),
                    "{user:?} without {name:?}: {id} is still blocked"
                );
            }
            for attack in succeeded {
                let is_expected = expected.iter().any(|id| attack["id"] == *id);
                // The kernel's settings decide which other calls an ordinary user can make.
                let by_filter = ["system calls", "shared resources"].iter().any(|row| attack["row"] == *row);
                let is_allowed = is_expected || (name == "filter" && by_filter);
                assert!(is_allowed, "{user:?} without {name:?}: {attack:#}");
            }
        }
    }

    #[test]
    fn each_disabled_control_is_detected_as_root() {
        match is_root() {
            true => check(As::Caller),
            false => invarlock_tests::skip("each_disabled_control_is_detected_as_root", "needs root"),
        }
    }

    #[test]
    fn each_disabled_control_is_detected_as_a_user() {
        check(As::User);
    }
}
