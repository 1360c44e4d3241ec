//! How a machine leads to a registry, and where it ends: proxies, certificates, its disk, and the network itself.

use crate::DEFAULT;
use crate::server::{HIDDEN, Registry, User, digest, fails, missing};
use invarlock_tests::{As, Place, Ran, both, demo, is_root, skip};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// A place with the default image in store `one` and in the registry as `team/it:1`, and its digest.
fn with_image(user: As) -> (Place, Registry, String) {
    let place = Place::new(user);
    let registry = Registry::start(&place);
    let ann = User { place: &place, store: "one", passwords: "ann.json" };
    let built = digest(&ann.run(&["runtime", "image", "build", "--json"]));
    ann.run(&["runtime", "image", "push", "--allow-network", DEFAULT, &registry.image("team/it:1")])
        .expect(0);
    (place, registry, built)
}

/// Ends the test by name where there is no registry.
fn cannot(test: &str) -> bool {
    missing().map(|it| skip(test, &format!("{it} is not installed"))).is_some()
}

#[test]
fn a_proxy_is_asked_where_the_user_named_one() {
    if cannot("registry: proxy") {
        return;
    }
    let (place, registry, built) = with_image(As::User);
    let proxy = registry.proxy();
    let hidden = format!("docker://{HIDDEN}/team/it:1");
    let with = |store: &str, variables: &[(&str, &str)], args: &[&str]| {
        let ann = User { place: &place, store, passwords: "hidden.json" };
        let mut command = ann.command(&[&["runtime", "image"][..], args].concat());
        Ran::from(command.envs(variables.iter().copied()).output().unwrap())
    };
    let pull = ["pull", "--allow-network", &hidden, "--json"];
    let told = |n: usize| proxy.asked().len() == n;
    // Without a proxy the name does not resolve; nor if NO_PROXY contains the name.
    for variables in [&[][..], &[("HTTPS_PROXY", &*proxy.url), ("NO_PROXY", HIDDEN)]] {
        fails(with("two", variables, &pull), 3, &[HIDDEN]);
        assert!(told(0), "{:?}", proxy.asked());
    }
    for (store, variable) in [("three", "HTTPS_PROXY"), ("four", "https_proxy"), ("five", "ALL_PROXY")] {
        let before = proxy.asked().len();
        assert_eq!(digest(&with(store, &[(variable, &proxy.url)], &pull)), built, "{variable}");
        let asked = proxy.asked()[before..].to_vec();
        let tunnel = format!("CONNECT {HIDDEN}:443 HTTP/1.1");
        assert!(!asked.is_empty() && asked.iter().all(|it| *it == tunnel), "{variable}: {asked:?}");
    }
    let to = format!("docker://{HIDDEN}/team/other:1");
    let push = ["push", "--allow-network", DEFAULT, &to, "--json"];
    assert_eq!(digest(&with("one", &[("HTTPS_PROXY", &proxy.url)], &push)), built);
    // This machine's own registry is not reached through another.
    let before = proxy.asked().len();
    let ann = User { place: &place, store: "six", passwords: "ann.json" };
    let mut own = ann.command(&["runtime", "image", "pull", "--allow-network", &registry.image("team/it:1")]);
    Ran::from(own.env("HTTPS_PROXY", &proxy.url).output().unwrap()).expect(0);
    assert!(told(before), "{:?}", proxy.asked());
    // One that is not there.
    fails(with("seven", &[("HTTPS_PROXY", "http://127.0.0.1:1")], &pull), 3, &[HIDDEN]);
}

#[test]
fn certificates_of_one_registry_are_believed_for_it_alone() {
    if cannot("registry: certs.d") {
        return;
    }
    let (place, registry, built) = with_image(As::User);
    let pull = || {
        let args = ["runtime", "image", "pull", "--allow-network", &registry.image("team/it:1"), "--json"];
        let mut command = User { place: &place, store: "two", passwords: "ann.json" }.command(&args);
        Ran::from(command.env_remove("SSL_CERT_FILE").output().unwrap())
    };
    let authority = std::fs::read(place.path("registry/ca.crt")).unwrap();
    let put = |host: &str, name: &str, bytes: &[u8]| {
        let dir = place.path("home/.config/containers/certs.d").join(host);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(name), bytes).unwrap();
    };
    put("localhost", "ca.crt", &authority);
    put(&registry.host, "ca.cert", &authority);
    fails(pull(), 3, &["is not trusted", "certs.d"]);
    put(&registry.host, "ca.crt", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    fails(pull(), 2, &["certificates", "ca.crt"]);
    put(&registry.host, "ca.crt", &authority);
    assert_eq!(digest(&pull()), built);
}

/// Runs on a small disk with `$FREE` free bytes, and again with more.
const ON_A_FULL_DISK: &str = r#"
head -c $((67108864 - FREE)) /dev/zero > disk/fill
"$@" > full.out; echo "$?" > full.code
"$0" runtime image ls --json > ls
"$0" runtime image verify --json > verify
"$0" runtime image gc > gc
find disk/store -type f -printf '%P\n' | sort > left
rm disk/fill
exec "$@"
"#;

/// A disk that is full while a blob comes, or while it is unpacked: the store has nothing of it, and goes on where there is room.
#[test]
fn a_full_disk_during_a_pull() {
    let name = "registry: full disk";
    if cannot(name) {
        return;
    }
    if !is_root() {
        return skip(name, "mounting a small tmpfs needs root");
    }
    for user in both() {
        let (place, registry, built) = with_image(user);
        std::fs::create_dir(place.work("disk")).unwrap();
        let blobs = std::fs::read_dir(place.work("one/blobs/sha256")).unwrap();
        let bytes: u64 = blobs.map(|it| it.unwrap().metadata().unwrap().len()).sum();
        let program = place.path("bin/invarlock").display().to_string();
        let image = registry.image("team/it:1");
        let pull = [&*program, "runtime", "image", "pull", "--allow-network", &image, "--json"];
        for (what, free) in [("a blob", bytes / 2), ("its tree", bytes / 2 * 3)] {
            let mut all = place.command_of(
                Path::new("/bin/sh"),
                &[&["-c", ON_A_FULL_DISK][..], &[&program], &pull].concat(),
            );
            all.env("INVARLOCK_STORE", place.work("disk/store"))
                .env("SSL_CERT_FILE", place.path("registry/ca.crt"));
            all.env("REGISTRY_AUTH_FILE", place.work("ann.json")).env("FREE", free.to_string());
            let mount = "mount -t tmpfs -o size=64m,mode=1777 none disk";
            let ran = Ran::from(place.inside(&["--mount"], mount, &all).output().unwrap());
            assert_eq!(digest(&ran), built, "{what}: with more space");
            let text = |name: &str| std::fs::read_to_string(place.work(name)).unwrap();
            assert_eq!(text("full.code"), "3\n", "{what}: {}", text("full.out"));
            assert!(text("full.out").contains("No space left"), "{what}: {}", text("full.out"));
            let json = |name: &str| serde_json::from_str::<Value>(&text(name)).unwrap();
            assert_eq!(json("ls")["images"], json!([]), "{what}");
            assert_eq!(json("verify")["ok"], true, "{what}");
            assert_eq!(text("left"), "index.json\noci-layout\n", "{what}: {}", text("gc"));
        }
    }
}

/// The network is there for the image alone: while a side is measured this program has none, as if it had never been allowed.
#[test]
fn an_evaluation_has_the_network_no_longer_than_for_its_image() {
    if cannot("registry: evaluation") {
        return;
    }
    for user in both() {
        let (place, registry, built) = with_image(user);
        let ann = User { place: &place, store: "two", passwords: "ann.json" };
        let paths = ["baseline", "healthy", "preset.yaml"].map(|it| demo(it).to_str().unwrap().to_owned());
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
            let of = |name: &str| text.lines().find_map(|it| it.strip_prefix(name)).unwrap();
            if of("State:").contains('Z') {
                break;
            }
            let count = of("Seccomp_filters:");
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
