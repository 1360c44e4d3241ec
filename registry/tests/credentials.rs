//! Registries that ask who we are, and those who would like to know it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results for who started the copy, a table, and what is skipped"
)]

mod common;

use common::*;
use invarlock_error::Kind;
use invarlock_images::Digest;
use serde_json::json;

/// The name of a credential file for the copy of this program, and whom it is for.
const HOST: &str = "INVARLOCK_TEST_HOST";
/// Told to a copy that does without TLS.
const PLAIN: &str = "INVARLOCK_TEST_PLAIN";

#[test]
#[ignore = "what others run in a process of its own, with credentials"]
fn copy() {
    if let Ok(host) = std::env::var(HOST) {
        let name =
            invarlock_images::RegistryName::parse(&format!("docker://{host}/team/it:1")).expect("name");
        let place = Place::new();
        let mut options = options();
        options.plain_http = std::env::var_os(PLAIN).is_some();
        match place.pull_with(&name, options) {
            Ok(pulled) => println!("RESULT pulled {}", pulled.manifest_digest),
            Err(error) => println!("RESULT {}: {error}", kind(&error)),
        }
        place.is_sound();
    }
}

/// What a pull with credentials for `server` comes to.
fn with_credentials(server: &Server, entry: serde_json::Value) -> String {
    with(server, entry, None)
}

fn with(server: &Server, entry: serde_json::Value, plain: Option<&str>) -> String {
    let place = Place::new();
    let file = place.path().join("auth.json");
    std::fs::write(&file, json!({"auths": {&*server.host: entry}}).to_string()).expect("file");
    let output = std::process::Command::new(std::env::current_exe().expect("own program"))
        .args(["--exact", "copy", "--ignored", "--nocapture"])
        .env("REGISTRY_AUTH_FILE", file)
        .env(HOST, &server.host)
        .envs(plain.map(|it| (it, "1")))
        .output()
        .expect("copy");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let line = text.lines().find_map(|it| it.split_once("RESULT ")).expect("result").1.to_owned();
    println!("{line}");
    line
}

/// ann:secret
const BASIC: &str = "Basic YW5uOnNlY3JldA==";

fn ann() -> serde_json::Value {
    json!({"auth": "YW5uOnNlY3JldA=="})
}

#[test]
fn passwords_go_to_whom_they_are_for() {
    let image = honest();
    let served = image.clone();
    let elsewhere = Server::new(move |r, s| match r.header("authorization") {
        // It asks, too.
        None if r.path.contains("asks") => {
            answer(s, "401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"mine\"")], b"")
        }
        _ => served.serve(r, s),
    });
    let (host, first) = (elsewhere.host.clone(), image.clone());
    let server = Server::new(move |r, s| match r.header("authorization") {
        Some(BASIC) if r.path.contains("/blobs/") => {
            answer(s, "307 Temporary Redirect", &[("Location", &format!("http://{host}{}", r.path))], b"");
        }
        Some(BASIC) => first.serve(r, s),
        _ => answer(s, "401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"it\"")], b""),
    });
    assert_eq!(with_credentials(&server, ann()), format!("pulled {}", Digest::of(&image.manifest)));
    assert!(elsewhere.seen().len() >= 2);
    assert!(elsewhere.seen().iter().all(|it| it.header("authorization").is_none()));
    // Sent elsewhere and asked there: nothing is told.
    let host = elsewhere.host.clone();
    let server = Server::new(move |_, s| {
        answer(s, "307 Temporary Redirect", &[("Location", &format!("http://{host}/asks"))], b"")
    });
    let before = elsewhere.seen().len();
    let result = with_credentials(&server, ann());
    assert!(result.starts_with("input"), "{result}");
    assert!(elsewhere.seen()[before..].iter().all(|it| it.header("authorization").is_none()));
    // Nobody's password, and one that is never enough.
    let server =
        Server::new(|_, s| answer(s, "401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"it\"")], b""));
    let error = Place::new().pull(&server.name()).expect_err("no credentials");
    assert!(error.kind() == Kind::Input, "{error}");
    let before = server.seen().len();
    let result = with_credentials(&server, ann());
    assert!(result.starts_with("input") && result.contains("401") && !result.contains("secret"), "{result}");
    assert!(server.seen().len() - before < 6, "{}", server.seen().len());
}

#[test]
fn tokens() {
    let image = honest();
    let served = image.clone();
    let server = Server::new(move |r, s| {
        let host = r.header("host").expect("host");
        let ask = format!(
            "Bearer realm=\"http://{host}/token?x=y\",service=\"it&them\",scope=\"repository:all:*\""
        );
        match (r.path.starts_with("/token?"), r.header("authorization")) {
            (true, Some(BASIC)) => answer(s, "200 OK", &[], br#"{"token":"t0k"}"#),
            (true, _) if r.method == "POST" => answer(s, "200 OK", &[], br#"{"access_token":"t0k"}"#),
            (false, Some("Bearer t0k")) => served.serve(r, s),
            _ => answer(s, "401 Unauthorized", &[("WWW-Authenticate", &ask)], b""),
        }
    });
    let pulled = format!("pulled {}", Digest::of(&image.manifest));
    assert_eq!(with_credentials(&server, ann()), pulled);
    let token = server.seen().into_iter().find(|it| it.path.starts_with("/token")).expect("token");
    assert_eq!(token.path, "/token?x=y&scope=repository%3Ateam%2Fit%3Apull&service=it%26them");
    assert_eq!(with_credentials(&server, json!({"identitytoken": "refresh me"})), pulled);
    let token = server.seen().into_iter().find(|it| it.method == "POST").expect("token");
    let form = String::from_utf8(token.body).expect("form");
    assert!(
        form.contains("grant_type=refresh_token") && form.contains("refresh_token=refresh%20me"),
        "{form}"
    );
    let error = Place::new().pull(&server.name()).expect_err("nobody");
    assert!(error.kind() == Kind::Input, "{error}");
}

#[test]
fn token_servers_that_are_not_the_registrys() {
    let thief = Server::new(|_, s| answer(s, "200 OK", &[], br#"{"token":"t"}"#));
    let at = |realm: String| {
        Server::new(move |_, s| {
            answer(s, "401 Unauthorized", &[("WWW-Authenticate", &format!("Bearer realm=\"{realm}\""))], b"");
        })
    };
    // Another port is somebody else: it is asked for anybody's token.
    let result = with_credentials(&at(format!("http://{}/token", thief.host)), ann());
    assert!(result.starts_with("input"), "{result}");
    assert!(!thief.seen().is_empty());
    for seen in thief.seen() {
        assert!(
            seen.header("authorization").is_none() && !format!("{seen:?}").contains("secret"),
            "{seen:?}"
        );
    }
    for (realm, word) in [
        ("http://192.0.2.1/token", "without TLS"),
        ("https://169.254.169.254/token", "no registry elsewhere"),
        ("ftp://127.0.0.1/", "without TLS"),
        ("/token", "no address"),
    ] {
        let result = with_credentials(&at(realm.to_owned()), ann());
        assert!(result.starts_with("safety") && result.contains(word), "{realm}: {result}");
    }
    for answered in
        ["", "{}", "{\"token\":\"\"}", "{\"token\":\"a b\"}", "{\"token\":\"a\\r\\nX: y\"}", "[1]"]
    {
        let server = Server::new(move |r, s| match r.path.starts_with("/token") {
            true => answer(s, "200 OK", &[], answered.as_bytes()),
            false => {
                let ask = format!("Bearer realm=\"http://{}/token\"", r.header("host").expect("host"));
                answer(s, "401 Unauthorized", &[("WWW-Authenticate", &ask)], b"");
            }
        });
        let error = Place::new().pull(&server.name()).expect_err("no token");
        assert!(error.kind() == Kind::Integrity, "{answered}: {error}");
    }
    for asked in ["", "Negotiate", "Bearer", "Bearer realm=\"x", "Digest realm=x"] {
        let error = {
            let server =
                Server::new(move |_, s| answer(s, "401 Unauthorized", &[("WWW-Authenticate", asked)], b""));
            Place::new().pull(&server.name()).expect_err("unknown")
        };
        assert!(error.kind() == Kind::Unsupported, "{asked}: {error}");
    }
    let endless = "Basic ".repeat(9000);
    let server =
        Server::new(move |_, s| answer(s, "401 Unauthorized", &[("WWW-Authenticate", &endless)], b""));
    let error = Place::new().pull(&server.name()).expect_err("endless");
    assert!(matches!(error.kind(), Kind::Unsupported | Kind::Safety), "{error}");
}

/// Told to the copy of this program for which `far.example` is this machine by `/etc/hosts`.
const INSIDE: &str = "INVARLOCK_TEST_HOSTS";

/// A forged answer of a name server looks the same.
#[test]
fn a_name_that_leads_here_gets_no_password_without_tls() {
    let name = "a_name_that_leads_here_gets_no_password_without_tls";
    if std::env::var_os(INSIDE).is_none() {
        let hosts = Place::new();
        let file = hosts.path().join("hosts");
        std::fs::write(&file, "127.0.0.1 far.example\n").expect("hosts");
        let program = std::env::current_exe().expect("own program");
        let inside = |script: String| {
            let unshare = ["--mount", "--propagation", "private", "sh", "-ec"];
            let mount = format!("mount --bind '{}' /etc/hosts; {script}", file.display());
            let mut command = std::process::Command::new("unshare");
            command.args(unshare).arg(mount).env(INSIDE, "1").output().expect("unshare")
        };
        let tried = inside(String::new());
        if !tried.status.success() {
            let why = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
            return eprintln!("SKIPPED {name}: /etc/hosts cannot be replaced: {why}");
        }
        let output = inside(format!("exec '{}' --exact {name} --nocapture", program.display()));
        let text =
            [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
        print!("{text}");
        return assert!(output.status.success(), "{text}");
    }
    let mut server =
        Server::new(|_, s| answer(s, "401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"it\"")], b""));
    server.host = server.host.replace("127.0.0.1", "far.example");
    let result = with_credentials(&server, ann());
    assert!(result.starts_with("input") && result.contains("does not speak TLS"), "{result}");
    assert!(server.seen().is_empty(), "{:?}", server.seen());
    // Not where the user does without TLS, either.
    let result = with(&server, ann(), Some(PLAIN));
    assert!(result.starts_with("safety") && result.contains("without TLS; it is not sent"), "{result}");
    assert!(!server.seen().is_empty());
    assert!(server.seen().iter().all(|it| it.header("authorization").is_none()));
}
