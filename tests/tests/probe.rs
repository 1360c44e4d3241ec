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
