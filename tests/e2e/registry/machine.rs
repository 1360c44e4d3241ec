//! Conditions of the machine during a pull or push: proxies, certificates, a full disk, and the
//! network.

use crate::DEFAULT;
use crate::server::{HIDDEN, Registry, User, assert_fails, digest, missing};
use invarlock_tests::{As, Place, Ran, both, demo, is_root, skip};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// A place with the default image in store `one` and in the registry as `team/it:1`, and the
/// image's digest.
fn with_image(user: As) -> (Place, Registry, String) {
    let place = Place::new(user);
    let registry = Registry::start(&place);
    let ann = User { place: &place, store: "one", passwords: "ann.json" };
    let built = digest(&ann.run(&["runtime", "image", "build", "--json"]));
    ann.run(&["runtime", "image", "push", "--allow-network", DEFAULT, &registry.image("team/it:1")])
        .expect(0);
    (place, registry, built)
}

/// Whether a program for the registry is missing. Reports the test as skipped if so.
fn skip_without_registry(test: &str) -> bool {
    missing().map(|program| skip(test, &format!("{program} is not installed"))).is_some()
}

#[test]
fn configured_proxy_is_used() {
    if skip_without_registry("registry: proxy") {
        return;
    }
    let (place, registry, built) = with_image(As::User);
    let proxy = registry.proxy();
    let hidden = format!("docker://{HIDDEN}/team/it:1");
    let image_command = |store: &str, variables: &[(&str, &str)], args: &[&str]| {
        let ann = User { place: &place, store, passwords: "hidden.json" };
        let mut command = ann.command(&[&["runtime", "image"][..], args].concat());
        Ran::from(command.envs(variables.iter().copied()).output().unwrap())
    };
    let pull = ["pull", "--allow-network", &hidden, "--json"];
    let request_count_is = |count: usize| proxy.requests().len() == count;
    // Without a proxy, or with the name in NO_PROXY, the name does not resolve.
    for variables in [&[][..], &[("HTTPS_PROXY", &*proxy.url), ("NO_PROXY", HIDDEN)]] {
        assert_fails(image_command("two", variables, &pull), 3, &[HIDDEN]);
        assert!(request_count_is(0), "{:?}", proxy.requests());
    }
    for (store, variable) in [("three", "HTTPS_PROXY"), ("four", "https_proxy"), ("five", "ALL_PROXY")] {
        let before = proxy.requests().len();
        assert_eq!(digest(&image_command(store, &[(variable, &proxy.url)], &pull)), built, "{variable}");
        let requests = proxy.requests()[before..].to_vec();
        let tunnel = format!("CONNECT {HIDDEN}:443 HTTP/1.1");
        assert!(
            !requests.is_empty() && requests.iter().all(|line| *line == tunnel),
            "{variable}: {requests:?}"
        );
    }
    let to = format!("docker://{HIDDEN}/team/other:1");
    let push = ["push", "--allow-network", DEFAULT, &to, "--json"];
    assert_eq!(digest(&image_command("one", &[("HTTPS_PROXY", &proxy.url)], &push)), built);
    // The proxy is not used for a registry on loopback.
    let before = proxy.requests().len();
    let ann = User { place: &place, store: "six", passwords: "ann.json" };
    let mut loopback_pull =
        ann.command(&["runtime", "image", "pull", "--allow-network", &registry.image("team/it:1")]);
    Ran::from(loopback_pull.env("HTTPS_PROXY", &proxy.url).output().unwrap()).expect(0);
    assert!(request_count_is(before), "{:?}", proxy.requests());
    // The proxy does not run.
    assert_fails(image_command("seven", &[("HTTPS_PROXY", "http://127.0.0.1:1")], &pull), 3, &[HIDDEN]);
}

#[test]
fn registry_certificate_is_trusted_for_that_registry_only() {
    if skip_without_registry("registry: certs.d") {
        return;
    }
    let (place, registry, built) = with_image(As::User);
    let pull = || {
        let args = ["runtime", "image", "pull", "--allow-network", &registry.image("team/it:1"), "--json"];
        let mut command = User { place: &place, store: "two", passwords: "ann.json" }.command(&args);
        Ran::from(command.env_remove("SSL_CERT_FILE").output().unwrap())
    };
    let authority = std::fs::read(place.path("registry/ca.crt")).unwrap();
    let write_certificate = |host: &str, name: &str, bytes: &[u8]| {
        let dir = place.path("home/.config/containers/certs.d").join(host);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(name), bytes).unwrap();
    };
    write_certificate("localhost", "ca.crt", &authority);
    write_certificate(&registry.host, "ca.cert", &authority);
    assert_fails(pull(), 3, &["is not trusted", "certs.d"]);
    write_certificate(
        &registry.host,
        "ca.crt",
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    );
    assert_fails(pull(), 2, &["certificates", "ca.crt"]);
    write_certificate(&registry.host, "ca.crt", &authority);
    assert_eq!(digest(&pull()), built);
}

/// Runs the command on a small disk with `$FREE` free bytes, lists the store, and runs the command
/// again with more space.
const ON_A_FULL_DISK: &str = r#"
head -c $((201326592 - FREE)) /dev/zero > disk/fill
"$@" > full.out; echo "$?" > full.code
"$0" runtime image ls --json > ls
"$0" runtime image verify --json > verify
"$0" runtime image gc > gc
find disk/store -type f -printf '%P\n' | sort > left
rm disk/fill
exec "$@"
"#;

/// The disk becomes full while a blob is downloaded or while a layer is extracted. The store keeps
/// nothing of the image. With more space the pull succeeds.
#[test]
fn full_disk_during_pull_leaves_no_partial_image() {
    let name = "registry: full disk";
    if skip_without_registry(name) {
        return;
    }
    if !is_root() {
        return skip(name, "mounting a small tmpfs needs root");
    }
    for user in both() {
        let (place, registry, built) = with_image(user);
        std::fs::create_dir(place.work("disk")).unwrap();
        let blobs = std::fs::read_dir(place.work("one/blobs/sha256")).unwrap();
        let bytes: u64 = blobs.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        let program = place.path("bin/invarlock").display().to_string();
        let image = registry.image("team/it:1");
        let pull = [&*program, "runtime", "image", "pull", "--allow-network", &image, "--json"];
        for (step, free) in [("download", bytes / 2), ("extraction", bytes / 2 * 3)] {
            let mut command = place.command_of(
                Path::new("/bin/sh"),
                &[&["-c", ON_A_FULL_DISK][..], &[&program], &pull].concat(),
            );
            command
                .env("INVARLOCK_STORE", place.work("disk/store"))
                .env("SSL_CERT_FILE", place.path("registry/ca.crt"));
            command.env("REGISTRY_AUTH_FILE", place.work("ann.json")).env("FREE", free.to_string());
            let mount = "mount -t tmpfs -o size=192m,mode=1777 none disk";
            let ran = Ran::from(place.inside(&["--mount"], mount, &command).output().unwrap());
            assert_eq!(digest(&ran), built, "{step}: with more space");
            let text = |name: &str| std::fs::read_to_string(place.work(name)).unwrap();
            assert_eq!(text("full.code"), "3\n", "{step}: {}", text("full.out"));
            assert!(text("full.out").contains("No space left"), "{step}: {}", text("full.out"));
            let json = |name: &str| serde_json::from_str::<Value>(&text(name)).unwrap();
            assert_eq!(json("ls")["images"], json!([]), "{step}");
            assert_eq!(json("verify")["ok"], true, "{step}");
            assert_eq!(text("left"), "index.json\noci-layout\n", "{step}: {}", text("gc"));
        }
    }
}

/// `--allow-network` applies to the pull of the image only. Before a side is measured, the launcher
/// installs the filter that denies the network.
#[test]
fn evaluation_denies_the_network_after_the_pull() {
    if skip_without_registry("registry: evaluation") {
        return;
    }
    for user in both() {
        let (place, registry, built) = with_image(user);
        let ann = User { place: &place, store: "two", passwords: "ann.json" };
        let paths =
            ["baseline", "healthy", "preset.yaml"].map(|name| demo(name).to_str().unwrap().to_owned());
        let image = registry.image("team/it:1");
        let args = ["evaluate", "--baseline", &paths[0], "--subject", &paths[1], "--preset", &paths[2]];
        let more = ["--allow-network", "--image", &image, "--json"];
        let child = ann
            .command(&[&args[..], &more].concat())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (status, start) = (format!("/proc/{}/status", child.id()), Instant::now());
        let mut filters = vec![];
        while start.elapsed() < Duration::from_secs(60) {
            let Ok(text) = std::fs::read_to_string(&status) else { break };
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            if field("State:").contains('Z') {
                break;
            }
            let count = field("Seccomp_filters:");
            filters.push(count.trim().parse::<u32>().unwrap());
            std::thread::sleep(Duration::from_millis(1));
        }
        let ran = Ran::from(child.wait_with_output().unwrap());
        filters.dedup();
        assert!(filters.len() == 2 && filters[1] == filters[0] + 1, "{user:?}: {filters:?}: {ran:?}");
        assert_eq!(ran.expect(0).json()["verdict"], "PASS");
        let manifest = invarlock_tests::read_json(&place.work("reports/eval/runtime.manifest.json"));
        assert_eq!(manifest["runtime"]["allow_network"], true);
        assert!(manifest.to_string().contains(&built), "{manifest}");
    }
}
