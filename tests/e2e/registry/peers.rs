//! Other tools and `invarlock` agree on the digests of each other's pushed images.

use crate::DEFAULT;
use crate::server::{Registry, User, digest, has, missing, sh};
use invarlock_tests::{As, Place, is_root, skip};
use serde_json::Value;

/// Whether a tool is missing. Reports the test as skipped if so.
fn skip_without(test: &str, tool: &str) -> bool {
    let absent = missing().or_else(|| (!has(tool)).then_some(tool));
    absent.map(|name| skip(test, &format!("{name} is not installed"))).is_some()
}

#[test]
fn skopeo_and_invarlock_agree_on_digests() {
    if skip_without("registry: skopeo", "skopeo") {
        return;
    }
    let place = Place::new(As::User);
    let registry = Registry::start(&place);
    let dir = place.path("registry");
    let skopeo = |args: &str| {
        sh(&dir, &format!("skopeo --insecure-policy {}", args.replace("REGISTRY", &registry.host)))
    };
    let ann = User { place: &place, store: "one", passwords: "ann.json" };
    let image = |args: &[&str]| ann.run(&[&["runtime", "image"][..], args].concat());
    let built = digest(&image(&["build", "--json"]));
    image(&["push", "--allow-network", DEFAULT, &registry.image("team/it:1")]).expect(0);

    let inspected = skopeo("inspect --tls-verify=false --creds ann:secret docker://REGISTRY/team/it:1");
    assert_eq!(serde_json::from_str::<Value>(&inspected).unwrap()["Digest"], built.as_str());
    // skopeo pushes, `invarlock` pulls. Without `--preserve-digests`, skopeo would compress
    // uncompressed layers.
    let copy = "copy -q --preserve-digests --src-tls-verify=false --src-creds ann:secret docker://REGISTRY/team/it:1";
    skopeo(&format!("{copy} --dest-tls-verify=false --dest-creds ann:secret docker://REGISTRY/other/it:2"));
    let other_image = registry.image("other/it:2");
    assert_eq!(digest(&image(&["pull", "--allow-network", &other_image, "--json"])), built);
    // skopeo copies the image that `invarlock` pushed. The manifest is the same byte for byte.
    skopeo(&format!("{copy} oci:theirs:it"));
    let index = std::fs::read_to_string(dir.join("theirs/index.json")).unwrap();
    assert!(index.contains(&built), "{index}");
}

#[test]
fn podman_and_invarlock_agree_on_digests() {
    if skip_without("registry: podman", "podman") {
        return;
    }
    if !is_root() {
        return skip("registry: podman", "a store of its own needs root here");
    }
    let place = Place::new(As::Caller);
    let registry = Registry::start(&place);
    let dir = place.path("registry");
    let podman = |args: &str| {
        let script = format!("podman --root pod --runroot run --storage-driver vfs {args}");
        sh(&dir, &script.replace("REGISTRY", &registry.host)).trim().to_owned()
    };
    let ann = User { place: &place, store: "one", passwords: "ann.json" };
    let image = |args: &[&str]| ann.run(&[&["runtime", "image"][..], args].concat());
    let built = digest(&image(&["build", "--json"]));
    image(&["push", "--allow-network", DEFAULT, &registry.image("team/it:1")]).expect(0);

    let creds = "--quiet --tls-verify=false --creds ann:secret";
    podman(&format!("pull {creds} REGISTRY/team/it:1"));
    assert_eq!(podman("image inspect --format {{.Digest}} REGISTRY/team/it:1"), built);
    // podman compresses layers on push, so the digest changes. `invarlock` pulls the digest that
    // podman pushed.
    podman(&format!("push {creds} --digestfile digest REGISTRY/team/it:1 REGISTRY/other/it:2"));
    let pushed = std::fs::read_to_string(dir.join("digest")).unwrap();
    let other_image = registry.image("other/it:2");
    assert_eq!(digest(&image(&["pull", "--allow-network", &other_image, "--json"])), pushed.trim());
    ann.run(&["runtime", "run", &other_image, "--", "--self-test"]).expect(0);
}
