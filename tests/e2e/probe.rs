//! The attacker that ships with the product finds every row of the boundary held, as root and as an ordinary user.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{Place, both};

#[test]
fn every_attack_of_the_probe_is_held() {
    for user in both() {
        let place = Place::new(user);
        let value = place.run(&["runtime", "probe", "--json"]).expect(0).json();
        let attacks = value["attacks"].as_array().unwrap();
        assert!(attacks.len() > 100, "{} attacks", attacks.len());
        for row in attacks {
            assert_eq!(row["verdict"], "held", "{user:?}: {row:#}");
        }
        let left = place.names("home").into_iter().chain(place.names("work")).collect::<Vec<_>>();
        assert_eq!(left, Vec::<String>::new());
    }
}

/// With any one control left out, the supervisor refuses the run where it can see that; and where it is made not to look, exactly the
/// attacks that the control is there for succeed.
#[cfg(feature = "fault-injection")]
mod without {
    use super::Place;
    use invarlock_runtime::hooks::{CONTROLS, Control};
    use invarlock_tests::{As, Ran, is_root, wrapped_by};

    fn probe(place: &Place, control: &Control, unseen: bool, root: bool) -> Ran {
        let mut command = place.command(&["runtime", "probe", "--json"]);
        if root && control.name == "supplementary groups" {
            command = wrapped_by("setpriv", &["--groups", "4,27", "--"], &command);
        }
        if control.name == "private mounts" {
            // As systemd makes them.
            command = wrapped_by("unshare", &["--mount", "--propagation", "shared", "--"], &command);
        }
        command.env("INVARLOCK_TEST_WITHOUT", control.name);
        if unseen {
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
            // Another control holds the same row there, or the kernel itself insists.
            let never = control.root.is_empty() && control.user.is_empty();
            if expected.is_empty() && !never {
                continue;
            }
            if name == "private mounts" && !is_root() {
                invarlock_tests::skip("any_control_as_a_user: private mounts", "only root can share mounts");
                continue;
            }
            if !control.observed.is_empty() {
                let ran = probe(&place, control, false, root).expect(125);
                let message = ran.json()["error"]["message"].as_str().unwrap().to_owned();
                assert!(
                    control.observed.iter().any(|row| message.contains(&format!("{row:?}"))),
                    "{name:?}: {message}"
                );
            }
            if never {
                continue;
            }
            let value = probe(&place, control, true, root).expect(1).json();
            let rows = value["attacks"].as_array().unwrap();
            let open: Vec<_> = rows.iter().filter(|row| row["verdict"] == "not_held").collect();
            for id in expected {
                assert!(
                    open.iter().any(|row| row["id"] == *id),
                    "{user:?} without {name:?}: {id} is still held"
                );
            }
            for row in open {
                let known = expected.iter().any(|id| row["id"] == *id);
                // What else an ordinary user may call depends on the kernel's settings.
                let may = known || (name == "filter" && row["row"] == "system calls");
                assert!(may, "{user:?} without {name:?}: {row:#}");
            }
        }
    }

    #[test]
    fn any_control_as_root() {
        match is_root() {
            true => check(As::Caller),
            false => invarlock_tests::skip("any_control_as_root", "needs root"),
        }
    }

    #[test]
    fn any_control_as_a_user() {
        check(As::User);
    }
}
