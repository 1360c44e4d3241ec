//! Push to and pull from Debian's registry with TLS and passwords, as root and as an ordinary user:
//! round trips, agreement with other tools, proxies, certificates, a full disk and the network.
#![allow(clippy::unwrap_used, reason = "tests")]

mod engine;
mod machine;
mod peers;
mod server;

use invarlock_tests::{As, Place, Ran, both, skip};
use server::{Registry, User, digest, json, missing, sh};

/// Name of the default image.
pub(crate) const DEFAULT: &str = "invarlock-runtime:local";

fn push_and_pull(user: As) {
    let place = Place::new(user);
    let registry = Registry::start(&place);
    let image = registry.image("team/it:1");
    let run =
        |store: &str, passwords: &str, args: &[&str]| User { place: &place, store, passwords }.run(args);
    let image_command =
        |store: &str, args: &[&str]| run(store, "ann.json", &[&["runtime", "image"][..], args].concat());

    let built = digest(&image_command("one", &["build", "--json"]));
    assert_eq!(image_command("one", &["push", DEFAULT, &image]).code, 2, "the network is not allowed");
    let pushed = image_command("one", &["push", "--allow-network", DEFAULT, &image, "--json"]);
    assert_eq!(digest(&pushed), built);
    // A second push finds every blob in the registry.
    assert_eq!(image_command("one", &["push", "--allow-network", DEFAULT, &image]).code, 0);

    // Pull by tag, by digest and by both, and copy to another store with an archive.
    let by_digest = registry.image(&format!("team/it@{built}"));
    assert_eq!(image_command("two", &["pull", &image]).code, 2, "the network is not allowed");
    let pulled = image_command("two", &["pull", "--allow-network", &image, "--tag", "mine:1", "--json"]);
    assert_eq!(digest(&pulled), built);
    assert_eq!(digest(&image_command("three", &["pull", "--allow-network", &by_digest, "--json"])), built);
    assert!(place.names("work/three/trees").len() > 1);
    let both = format!("{image}@{built}");
    assert_eq!(image_command("eight", &["pull", "--allow-network", "--no-unpack", &both]).code, 0);
    assert_eq!(place.names("work/eight/trees"), ["empty"]);
    let wrong_digest = format!("{image}@sha256:{}", "0".repeat(64));
    assert_eq!(image_command("three", &["pull", "--allow-network", &wrong_digest]).code, 3);
    assert_eq!(json(&image_command("two", &["verify", "--json"]))["ok"], true);
    assert_eq!(image_command("two", &["export", &image, "oci-archive:out.tar:it"]).code, 0);
    assert_eq!(
        digest(&image_command("four", &["import", "oci-archive:out.tar", "there:1", "--json"])),
        built
    );

    // A pulled image runs without the network, by every name. Store `eight` extracts its layers
    // now.
    let test = ["--", "--self-test"];
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
    // `--allow-network` pulls a missing image.
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
    let mut untrusted = place.command(&["runtime", "image", "pull", "--allow-network", &image]);
    let untrusted = Ran::from(untrusted.env("REGISTRY_AUTH_FILE", place.work("ann.json")).output().unwrap());
    assert_eq!(untrusted.code, 3, "{}", untrusted.err);
    assert!(untrusted.err.contains("is not trusted"), "{}", untrusted.err);

    // A credential helper supplies the password.
    let helper = place.write(
        "docker-credential-it",
        br#"#!/bin/sh
echo '{"Username":"ann","Secret":"secret"}'"#,
    );
    sh(&place.path("work"), "chmod 755 docker-credential-it");
    place.write("helped.json", br#"{"credsStore":"it"}"#);
    let ann = User { place: &place, store: "seven", passwords: "helped.json" };
    let mut with_helper = ann.command(&["runtime", "image", "pull", "--allow-network", &image, "--json"]);
    with_helper.env("PATH", format!("{}:/usr/bin:/bin", helper.parent().unwrap().display()));
    assert_eq!(digest(&Ran::from(with_helper.output().unwrap())), built);
}

#[test]
fn images_keep_their_digests_through_a_registry() {
    match missing() {
        Some(program) => skip("registry", &format!("{program} is not installed")),
        None => both().into_iter().for_each(push_and_pull),
    }
}
