//! Registry authentication: credentials are sent to the registry and its token server, and to no other host.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result of the subprocess, a table, and skipped tests"
)]

mod common;

use common::*;
use invarlock_error::Kind;
use invarlock_images::Digest;
use serde_json::json;

/// Tells the subprocess the host of the registry.
const HOST: &str = "INVARLOCK_TEST_HOST";
/// Tells the subprocess to use HTTP without TLS.
const PLAIN: &str = "INVARLOCK_TEST_PLAIN";

/// A pull in a process of its own, because the credential file is chosen by an environment variable.
#[test]
#[ignore = "a subprocess of other tests"]
fn pull_in_subprocess() {
    if let Ok(host) = std::env::var(HOST) {
        let name =
            invarlock_images::RegistryName::parse(&format!("docker://{host}/team/it:1")).expect("name");
        let test_store = TestStore::new();
        let mut options = options();
        options.plain_http = std::env::var_os(PLAIN).is_some();
        match test_store.pull_with(&name, options) {
            Ok(pulled) => println!("RESULT pulled {}", pulled.manifest_digest),
            Err(error) => println!("RESULT {}: {error}", kind_name(&error)),
        }
        test_store.assert_consistent();
    }
}

/// Pulls with a stored credential for `server` and returns `pulled DIGEST` or `KIND: MESSAGE`.
fn pull_with_credential(server: &TestRegistry, entry: serde_json::Value) -> String {
    pull_in_mode(server, entry, None)
}

fn pull_in_mode(server: &TestRegistry, entry: serde_json::Value, mode: Option<&str>) -> String {
    let dir = TestStore::new();
    let file = dir.path().join("auth.json");
    std::fs::write(&file, json!({"auths": {&*server.host: entry}}).to_string()).expect("file");
    let output = std::process::Command::new(std::env::current_exe().expect("own program"))
        .args(["--exact", "pull_in_subprocess", "--ignored", "--nocapture"])
        .env("REGISTRY_AUTH_FILE", file)
        .env(HOST, &server.host)
        .envs(mode.map(|variable| (variable, "1")))
        .output()
        .expect("subprocess");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let result = text.lines().find_map(|line| line.split_once("RESULT ")).expect("result").1.to_owned();
    println!("{result}");
    result
}

/// A registry that responds to every request with the challenge `challenge`.
fn registry_with_challenge(challenge: impl Into<String>) -> TestRegistry {
    let challenge = challenge.into();
    TestRegistry::new(move |_, stream| respond_challenge(stream, &challenge))
}

fn respond_challenge(stream: &mut std::net::TcpStream, challenge: &str) {
    respond(stream, "401 Unauthorized", &[("WWW-Authenticate", challenge)], b"");
}

/// The header for the user `ann` with the password `secret`.
const BASIC: &str = "Basic YW5uOnNlY3JldA==";

fn ann() -> serde_json::Value {
    json!({"auth": "YW5uOnNlY3JldA=="})
}

#[test]
fn password_is_not_sent_to_redirect_target() {
    let image = valid_image();
    let served = image.clone();
    let elsewhere = TestRegistry::new(move |request, stream| match request.header("authorization") {
        // The target of the redirect requests a password too.
        None if request.path.contains("asks") => respond_challenge(stream, "Basic realm=\"mine\""),
        _ => served.serve(request, stream),
    });
    let (host, first) = (elsewhere.host.clone(), image.clone());
    let server = TestRegistry::new(move |request, stream| match request.header("authorization") {
        Some(BASIC) if request.path.contains("/blobs/") => {
            let location = format!("http://{host}{}", request.path);
            respond(stream, "307 Temporary Redirect", &[("Location", &location)], b"");
        }
        Some(BASIC) => first.serve(request, stream),
        _ => respond_challenge(stream, "Basic realm=\"it\""),
    });
    let expected = format!("pulled {}", Digest::of(&image.manifest));
    assert_eq!(pull_with_credential(&server, ann()), expected);
    assert!(elsewhere.requests().len() >= 2);
    assert!(elsewhere.received_no_credentials());
    // The first request is redirected, and the target requests a password.
    let host = elsewhere.host.clone();
    let server = TestRegistry::new(move |_, stream| {
        let location = format!("http://{host}/asks");
        respond(stream, "307 Temporary Redirect", &[("Location", &location)], b"")
    });
    let result = pull_with_credential(&server, ann());
    assert!(result.starts_with("input"), "{result}");
    assert!(elsewhere.received_no_credentials());
}

#[test]
fn missing_or_rejected_password_is_an_input_error() {
    let server = registry_with_challenge("Basic realm=\"it\"");
    let error = TestStore::new().pull(&server.name()).expect_err("no credentials");
    assert!(error.kind() == Kind::Input, "{error}");
    let before = server.requests().len();
    let result = pull_with_credential(&server, ann());
    assert!(result.starts_with("input") && result.contains("401") && !result.contains("secret"), "{result}");
    let attempts = server.requests().len() - before;
    assert!(attempts < 6, "{attempts}");
}

#[test]
fn token_is_requested_with_password_or_identity_token() {
    let image = valid_image();
    let served = image.clone();
    let server = TestRegistry::new(move |request, stream| {
        let host = request.header("host").expect("host");
        let challenge = format!(
            "Bearer realm=\"http://{host}/token?x=y\",service=\"it&them\",scope=\"repository:all:*\""
        );
        match (request.path.starts_with("/token?"), request.header("authorization")) {
            (true, Some(BASIC)) => respond(stream, "200 OK", &[], br#"{"token":"t0k"}"#),
            (true, _) if request.method == "POST" => {
                respond(stream, "200 OK", &[], br#"{"access_token":"t0k"}"#);
            }
            (false, Some("Bearer t0k")) => served.serve(request, stream),
            _ => respond_challenge(stream, &challenge),
        }
    });
    let pulled = format!("pulled {}", Digest::of(&image.manifest));
    assert_eq!(pull_with_credential(&server, ann()), pulled);
    let mut requests = server.requests().into_iter();
    let request = requests.find(|request| request.path.starts_with("/token")).expect("a token request");
    // The scope is the client's, not the one in the challenge.
    assert_eq!(request.path, "/token?x=y&scope=repository%3Ateam%2Fit%3Apull&service=it%26them");
    assert_eq!(pull_with_credential(&server, json!({"identitytoken": "refresh me"})), pulled);
    let mut requests = server.requests().into_iter();
    let request = requests.find(|request| request.method == "POST").expect("a token request");
    let form = String::from_utf8(request.body).expect("form");
    assert!(
        form.contains("grant_type=refresh_token") && form.contains("refresh_token=refresh%20me"),
        "{form}"
    );
    let error = TestStore::new().pull(&server.name()).expect_err("no credentials");
    assert!(error.kind() == Kind::Input, "{error}");
}

#[test]
fn token_server_on_another_port_gets_no_credential() {
    let other = TestRegistry::new(|_, stream| respond(stream, "200 OK", &[], br#"{"token":"t"}"#));
    let server = registry_with_challenge(format!("Bearer realm=\"http://{}/token\"", other.host));
    let result = pull_with_credential(&server, ann());
    assert!(result.starts_with("input"), "{result}");
    assert!(!other.requests().is_empty(), "an anonymous token is requested");
    assert!(other.received_no_credentials());
    assert!(!format!("{:?}", other.requests()).contains("secret"));
}

#[test]
fn rejects_realms_without_tls_or_in_private_networks() {
    for (realm, expected) in [
        ("http://192.0.2.1/token", "without TLS"),
        ("https://169.254.169.254/token", "a registry elsewhere"),
        ("ftp://127.0.0.1/", "without TLS"),
        ("/token", "not a valid URL"),
    ] {
        let server = registry_with_challenge(format!("Bearer realm=\"{realm}\""));
        let result = pull_with_credential(&server, ann());
        assert!(result.starts_with("safety") && result.contains(expected), "{realm}: {result}");
    }
}

#[test]
fn rejects_invalid_token_responses() {
    for body in ["", "{}", "{\"token\":\"\"}", "{\"token\":\"a b\"}", "{\"token\":\"a\\r\\nX: y\"}", "[1]"] {
        let server = TestRegistry::new(move |request, stream| {
            if request.path.starts_with("/token") {
                return respond(stream, "200 OK", &[], body.as_bytes());
            }
            let host = request.header("host").expect("host");
            respond_challenge(stream, &format!("Bearer realm=\"http://{host}/token\""));
        });
        let error = TestStore::new().pull(&server.name()).expect_err("no token");
        assert!(error.kind() == Kind::Integrity, "{body}: {error}");
    }
}

#[test]
fn rejects_unsupported_malformed_and_oversized_challenges() {
    for challenge in ["", "Negotiate", "Bearer", "Bearer realm=\"x", "Digest realm=x"] {
        let server = registry_with_challenge(challenge);
        let error = TestStore::new().pull(&server.name()).expect_err("unsupported");
        assert!(error.kind() == Kind::Unsupported, "{challenge}: {error}");
    }
    let server = registry_with_challenge("Basic ".repeat(9000));
    let error = TestStore::new().pull(&server.name()).expect_err("oversized");
    assert!(matches!(error.kind(), Kind::Unsupported | Kind::Safety), "{error}");
}

/// Set for the subprocess in whose mount namespace `/etc/hosts` maps `far.example` to this machine.
const IN_NAMESPACE: &str = "INVARLOCK_TEST_HOSTS";

/// A forged DNS response has the same effect as this entry of `/etc/hosts`.
#[test]
fn name_that_resolves_to_loopback_gets_no_password_without_tls() {
    let test = "name_that_resolves_to_loopback_gets_no_password_without_tls";
    if std::env::var_os(IN_NAMESPACE).is_none() {
        let dir = TestStore::new();
        let file = dir.path().join("hosts");
        std::fs::write(&file, "127.0.0.1 far.example\n").expect("hosts");
        let program = std::env::current_exe().expect("own program");
        let run_in_namespace = |script: String| {
            let args = ["--mount", "--propagation", "private", "sh", "-ec"];
            let script = format!("mount --bind '{}' /etc/hosts; {script}", file.display());
            let mut command = std::process::Command::new("unshare");
            command.args(args).arg(script).env(IN_NAMESPACE, "1").output().expect("unshare")
        };
        let probe = run_in_namespace(String::new());
        if !probe.status.success() {
            let why = String::from_utf8_lossy(&probe.stderr).trim().to_owned();
            return eprintln!("SKIPPED {test}: /etc/hosts cannot be replaced: {why}");
        }
        let output = run_in_namespace(format!("exec '{}' --exact {test} --nocapture", program.display()));
        let text =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        print!("{text}");
        return assert!(output.status.success(), "{text}");
    }
    let mut server = registry_with_challenge("Basic realm=\"it\"");
    server.host = server.host.replace("127.0.0.1", "far.example");
    let result = pull_with_credential(&server, ann());
    assert!(result.starts_with("input") && result.contains("does not speak TLS"), "{result}");
    assert!(server.requests().is_empty(), "{:?}", server.requests());
    // The password is not sent even if the user allows plain HTTP.
    let result = pull_in_mode(&server, ann(), Some(PLAIN));
    assert!(result.starts_with("safety") && result.contains("the password is not sent"), "{result}");
    assert!(!server.requests().is_empty());
    assert!(server.received_no_credentials());
}
