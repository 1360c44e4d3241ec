//! `pull` of `runtime engine`: what InvarLock's Python package pulls by `podman`, it finds by the digest, and its containers run it.

use crate::server::{Registry, User, digest, missing};
use invarlock_tests::layout::Layout;
use invarlock_tests::{As, Place, Ran, both, program, skip};
use serde_json::json;

const TEST: &str = "the_engine_pulls_images";

fn pull_and_run(user: As) {
    let place = Place::new(user);
    let registry = Registry::start(&place);
    let layout = Layout::of_tree(&place, "image", |rootfs| {
        std::fs::create_dir(rootfs.join("bin")).unwrap();
        std::fs::copy(program("invarlock-workload"), rootfs.join("bin/python")).unwrap();
    });
    let reference = layout.image("test", &json!({"Env": ["PATH=/bin"]}));
    let publisher = User { place: &place, store: "one", passwords: "ann.json" };
    let imported = publisher.run(&["runtime", "image", "import", &reference, "worker:1", "--json"]);
    let manifest = digest(&imported);
    let target = registry.image("team/worker:1");
    publisher.run(&["runtime", "image", "push", "--allow-network", "worker:1", &target]).expect(0);
    place.run(&["runtime", "engine", "install", "engine"]).expect(0);

    let call = |name: &str, passwords: &str, args: &[&str]| {
        let caller = User { place: &place, store: "two", passwords };
        Ran::from(caller.command_of(&place.work("engine").join(name), args).output().unwrap())
    };
    let podman = |args: &[&str]| call("podman", "ann.json", args);
    let repository = format!("{}/team/worker", registry.host);
    let (tagged, pinned) = (format!("{repository}:1"), format!("{repository}@{manifest}"));

    // Nothing but `pull` fetches an image.
    podman(&["image", "exists", &tagged]).expect(1);
    podman(&["run", "--rm", "--entrypoint", "python", &tagged, "noop"])
        .expect(125)
        .one_error(&["podman pull"]);
    let anonymous = call("podman", "no_credentials.json", &["pull", &tagged]).expect(125);
    assert!(anonymous.err.contains("podman login"), "{anonymous:?}");
    let other = format!("{repository}@sha256:{}", "5".repeat(64));
    podman(&["pull", &other]).expect(125);
    podman(&["image", "exists", &tagged]).expect(1);

    let pulled = podman(&["pull", &tagged]).expect(0).out;
    assert_eq!(call("docker", "ann.json", &["pull", &pinned]).expect(0).out, format!("{pinned}\n"));
    for name in [&tagged, &pinned] {
        let image = podman(&["image", "inspect", name]).expect(0).json()[0].clone();
        assert_eq!(image["Id"], pulled.trim(), "{name}");
        assert_eq!(image["RepoDigests"], json!([pinned]), "{name}");
        let run = ["run", "--rm", "--pull=never", "--network", "none", "--entrypoint", "python", name, "see"];
        let seen = podman(&run).expect(0).json();
        assert_eq!(seen["interfaces"], json!(["lo"]), "{name}");
    }
    // The network is not needed any more.
    drop(registry);
    podman(&["run", "--rm", "--entrypoint", "python", &pinned, "exit", "7"]).expect(7);
    podman(&["pull", &tagged]).expect(125);
}

#[test]
fn the_engine_pulls_images() {
    match missing() {
        Some(program) => skip(TEST, &format!("{program} is not installed")),
        None => both().into_iter().for_each(pull_and_run),
    }
}
