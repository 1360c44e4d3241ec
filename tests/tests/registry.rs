//! Images to and from Debian's registry, with TLS and passwords, as root and as an ordinary user, and what skopeo says of them.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, both, skip};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DEFAULT: &str = "invarlock-runtime:local";

/// A registry of this machine; it ends with this value.
struct Registry {
    child: Child,
    host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn has(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|it| it.status.success())
}

fn sh(dir: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Registry {
    /// With a certificate of an authority of our own (`ca.crt`), and for ann, whose password is secret.
    fn start(dir: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        sh(dir, "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=tests
            openssl req -newkey rsa:2048 -nodes -keyout it.key -out it.csr -subj /CN=localhost
            echo subjectAltName=DNS:localhost,IP:127.0.0.1 > ext
            openssl x509 -req -in it.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out it.crt -days 2 -extfile ext
            chmod 644 ca.crt; htpasswd -Bbn ann secret > htpasswd; mkdir data");
        let at = |name: &str| dir.join(name).display().to_string();
        let config = serde_json::json!({
            "version": 0.1, "log": {"level": "error"}, "storage": {"filesystem": {"rootdirectory": at("data")}},
            "http": {"addr": format!("127.0.0.1:{port}"), "tls": {"certificate": at("it.crt"), "key": at("it.key")}},
            "auth": {"htpasswd": {"realm": "it", "path": at("htpasswd")}},
        });
        std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", &at("config.json")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Registry { child, host: format!("localhost:{port}") };
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "the registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    fn skopeo(&self, dir: &Path, args: &str) -> String {
        let args = args.replace("REGISTRY", &self.host);
        sh(dir, &format!("skopeo --insecure-policy {args}"))
    }
}

fn json(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

/// Runs `invarlock` with a store of its own, who trusts the registry, as ann where `ann`.
fn run(place: &Place, store: &str, ann: bool, args: &[&str]) -> Ran {
    let mut command = place.command(args);
    command.env("INVARLOCK_STORE", place.work(store)).env("SSL_CERT_FILE", place.path("registry/ca.crt"));
    command.env("REGISTRY_AUTH_FILE", place.work(if ann { "ann.json" } else { "nobody.json" }));
    Ran::from(command.output().unwrap())
}

fn there_and_back(user: As) {
    let place = Place::new(user);
    let dir = place.path("registry");
    std::fs::create_dir(&dir).unwrap();
    let registry = Registry::start(&dir);
    let image = format!("docker://{}/team/it:1", registry.host);
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"YW5uOnNlY3JldA=="}}}}}}"#, registry.host);
    place.write("ann.json", auths.as_bytes());
    place.write("nobody.json", b"{}");
    let with =
        |store: &str, args: &[&str]| run(&place, store, true, &[&["runtime", "image"][..], args].concat());

    let built = json(&with("one", &["build", "--json"]))["manifest_digest"].as_str().unwrap().to_owned();
    assert_eq!(with("one", &["push", DEFAULT, &image]).code, 2, "the network is not allowed");
    let pushed = json(&with("one", &["push", "--allow-network", DEFAULT, &image, "--json"]));
    assert_eq!(pushed["manifest_digest"], built.as_str());
    // Again: everything is there.
    assert_eq!(with("one", &["push", "--allow-network", DEFAULT, &image]).code, 0);

    // By tag, by digest, by both, and into another store by one file.
    let by_digest = format!("docker://{}/team/it@{built}", registry.host);
    assert_eq!(with("two", &["pull", &image]).code, 2, "the network is not allowed");
    let pulled = json(&with("two", &["pull", "--allow-network", &image, "--tag", "mine:1", "--json"]));
    assert_eq!(pulled["manifest_digest"], built.as_str());
    assert_eq!(
        json(&with("three", &["pull", "--allow-network", &by_digest, "--json"]))["manifest_digest"],
        built.as_str()
    );
    assert!(place.names("work/three/trees").len() > 1);
    assert_eq!(
        with("eight", &["pull", "--allow-network", "--no-unpack", &format!("{image}@{built}")]).code,
        0
    );
    assert_eq!(place.names("work/eight/trees"), ["empty"]);
    let lie = format!("{image}@sha256:{}", "0".repeat(64));
    assert_eq!(with("three", &["pull", "--allow-network", &lie]).code, 3);
    assert_eq!(json(&with("two", &["verify", "--json"]))["ok"], true);
    assert_eq!(with("two", &["export", &image, "oci-archive:out.tar:it"]).code, 0);
    assert_eq!(
        json(&with("four", &["import", "oci-archive:out.tar", "there:1", "--json"]))["manifest_digest"],
        built.as_str()
    );

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
        let ran = run(&place, store, false, &[&["runtime", "run", name][..], &test].concat());
        assert_eq!(ran.code, 0, "{name}: {}", ran.err);
    }
    let missing = run(&place, "five", true, &[&["runtime", "run", &image][..], &test].concat());
    assert_eq!(missing.code, 125);
    assert!(missing.err.contains("--allow-network"), "{}", missing.err);
    let ran =
        run(&place, "five", true, &[&["runtime", "run", "--allow-network", &image][..], &test].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);

    // Whoever is nobody, or speaks with a registry that nobody vouches for.
    let nobody = run(&place, "six", false, &["runtime", "image", "pull", "--allow-network", &image]);
    assert_eq!(nobody.code, 2, "{}", nobody.err);
    assert!(nobody.err.contains("podman login"), "{}", nobody.err);
    let mut unknown = place.command(&["runtime", "image", "pull", "--allow-network", &image]);
    let unknown = Ran::from(unknown.env("REGISTRY_AUTH_FILE", place.work("ann.json")).output().unwrap());
    assert_eq!(unknown.code, 3, "{}", unknown.err);
    assert!(unknown.err.contains("does not prove"), "{}", unknown.err);

    // A password that a program keeps.
    let helper = place.write(
        "docker-credential-it",
        br#"#!/bin/sh
echo '{"Username":"ann","Secret":"secret"}'"#,
    );
    sh(&place.path("work"), "chmod 755 docker-credential-it");
    place.write("helped.json", br#"{"credsStore":"it"}"#);
    let mut helped = place.command(&["runtime", "image", "pull", "--allow-network", &image, "--json"]);
    helped.env("INVARLOCK_STORE", place.work("seven")).env("SSL_CERT_FILE", place.path("registry/ca.crt"));
    helped.env("REGISTRY_AUTH_FILE", place.work("helped.json"));
    helped.env("PATH", format!("{}:/usr/bin:/bin", helper.parent().unwrap().display()));
    assert_eq!(json(&Ran::from(helped.output().unwrap()))["manifest_digest"], built.as_str());

    if !has("skopeo") {
        return skip("registry skopeo", "skopeo is not installed");
    }
    let creds = "--tls-verify=false --creds ann:secret";
    let inspected = registry.skopeo(&dir, &format!("inspect {creds} docker://REGISTRY/team/it:1"));
    assert_eq!(serde_json::from_str::<Value>(&inspected).unwrap()["Digest"], built.as_str());
    // Theirs to ours: they push, we pull. Layers that are not packed skopeo would pack.
    let copy =
        "--src-tls-verify=false --dest-tls-verify=false --src-creds ann:secret --dest-creds ann:secret";
    registry.skopeo(
        &dir,
        &format!(
            "copy -q --preserve-digests {copy} docker://REGISTRY/team/it:1 docker://REGISTRY/other/it:2"
        ),
    );
    let theirs = format!("docker://{}/other/it:2", registry.host);
    assert_eq!(
        json(&with("two", &["pull", "--allow-network", &theirs, "--json"]))["manifest_digest"],
        built.as_str()
    );
    // Ours to theirs: what we pushed is the same to them byte for byte.
    registry.skopeo(
        &dir,
        "copy -q --preserve-digests --src-tls-verify=false --src-creds ann:secret docker://REGISTRY/team/it:1 oci:theirs:it",
    );
    let index = std::fs::read_to_string(dir.join("theirs/index.json")).unwrap();
    assert!(index.contains(&built), "{index}");
}

#[test]
fn images_keep_their_digests_through_a_registry() {
    for program in ["docker-registry", "htpasswd", "openssl"] {
        if !has(program) {
            return skip("registry", &format!("{program} is not installed"));
        }
    }
    both().into_iter().for_each(there_and_back);
}
