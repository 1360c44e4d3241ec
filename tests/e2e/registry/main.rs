//! Images to and from Debian's registry, with TLS and passwords, as root and as an ordinary user, what other tools say of them, and how
//! a machine leads there.
#![allow(clippy::unwrap_used, reason = "tests")]

mod machine;
mod peers;
mod server;

use invarlock_tests::{As, Place, Ran, both, skip};
use server::{Registry, User, digest, json, missing, sh};

/// Tag of the default image.
pub(crate) const DEFAULT: &str = "invarlock-runtime:local";

fn there_and_back(user: As) {
    let place = Place::new(user);
    let registry = Registry::start(&place);
    let image = registry.image("team/it:1");
    let run =
        |store: &str, passwords: &str, args: &[&str]| User { place: &place, store, passwords }.run(args);
    let with =
        |store: &str, args: &[&str]| run(store, "ann.json", &[&["runtime", "image"][..], args].concat());

    let built = digest(&with("one", &["build", "--json"]));
    assert_eq!(with("one", &["push", DEFAULT, &image]).code, 2, "the network is not allowed");
    let pushed = with("one", &["push", "--allow-network", DEFAULT, &image, "--json"]);
    assert_eq!(digest(&pushed), built);
    // Again: everything is there.
    assert_eq!(with("one", &["push", "--allow-network", DEFAULT, &image]).code, 0);

    // By tag, by digest, by both, and into another store by one file.
    let by_digest = registry.image(&format!("team/it@{built}"));
    assert_eq!(with("two", &["pull", &image]).code, 2, "the network is not allowed");
    let pulled = with("two", &["pull", "--allow-network", &image, "--tag", "mine:1", "--json"]);
    assert_eq!(digest(&pulled), built);
    assert_eq!(digest(&with("three", &["pull", "--allow-network", &by_digest, "--json"])), built);
    assert!(place.names("work/three/trees").len() > 1);
    let both = format!("{image}@{built}");
    assert_eq!(with("eight", &["pull", "--allow-network", "--no-unpack", &both]).code, 0);
    assert_eq!(place.names("work/eight/trees"), ["empty"]);
    let lie = format!("{image}@sha256:{}", "0".repeat(64));
    assert_eq!(with("three", &["pull", "--allow-network", &lie]).code, 3);
    assert_eq!(json(&with("two", &["verify", "--json"]))["ok"], true);
    assert_eq!(with("two", &["export", &image, "oci-archive:out.tar:it"]).code, 0);
    assert_eq!(digest(&with("four", &["import", "oci-archive:out.tar", "there:1", "--json"])), built);

    // What was pulled runs without the network, by every name; what was not is pulled where that is allowed.
    // One of them is unpacked now.
    let test = ["--", "/invarlock-evaluator", "--self-test"];
    for (store, name) in [
        ("two", image.as_str()),
        ("two", "mine:1"),
        ("two", by_digest.as_str()),
        ("three", by_digest.as_str()),
        ("eight", image.as_str()),
    ] {
        let ran = run(store, "no_credentials.json", &[&["runtime", "run", name][..], &test].concat());
        assert_eq!(ran.code, 0, "{name}: {}", ran.err);
    }
    let missing = run("five", "ann.json", &[&["runtime", "run", &image][..], &test].concat());
    assert_eq!(missing.code, 125);
    assert!(missing.err.contains("--allow-network"), "{}", missing.err);
    let ran = run("five", "ann.json", &[&["runtime", "run", "--allow-network", &image][..], &test].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);

    // Without credentials, and with a registry whose certificate is not trusted.
    let anonymous =
        run("six", "no_credentials.json", &["runtime", "image", "pull", "--allow-network", &image]);
    assert_eq!(anonymous.code, 2, "{}", anonymous.err);
    assert!(anonymous.err.contains("podman login"), "{}", anonymous.err);
    let mut unknown = place.command(&["runtime", "image", "pull", "--allow-network", &image]);
    let unknown = Ran::from(unknown.env("REGISTRY_AUTH_FILE", place.work("ann.json")).output().unwrap());
    assert_eq!(unknown.code, 3, "{}", unknown.err);
    assert!(unknown.err.contains("is not trusted"), "{}", unknown.err);

    // A password that a program keeps.
    let helper = place.write(
        "docker-credential-it",
        br#"#!/bin/sh
echo '{"Username":"ann","Secret":"secret"}'"#,
    );
    sh(&place.path("work"), "chmod 755 docker-credential-it");
    place.write("helped.json", br#"{"credsStore":"it"}"#);
    let helped = User { place: &place, store: "seven", passwords: "helped.json" };
    let mut helped = helped.command(&["runtime", "image", "pull", "--allow-network", &image, "--json"]);
    helped.env("PATH", format!("{}:/usr/bin:/bin", helper.parent().unwrap().display()));
    assert_eq!(digest(&Ran::from(helped.output().unwrap())), built);
}

#[test]
fn images_keep_their_digests_through_a_registry() {
    match missing() {
        Some(program) => skip("registry", &format!("{program} is not installed")),
        None => both().into_iter().for_each(there_and_back),
    }
}
