//! Debian's registry on loopback, and a proxy in front of it.

use invarlock_tests::{Place, Ran};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A registry name that does not resolve.
pub const HIDDEN: &str = "registry.test";

pub fn has(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The first program that every test here needs and that is not installed.
pub fn missing() -> Option<&'static str> {
    ["docker-registry", "htpasswd", "openssl"].into_iter().find(|program| !has(program))
}

pub fn sh(dir: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A running registry. Drop stops it.
pub struct Registry {
    child: Child,
    port: u16,
    pub host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Registry {
    /// Starts it in the directory `registry` of the place. A new certificate authority (`ca.crt`)
    /// issues its certificate. Its only user is `ann` with the password `secret`.
    pub fn start(place: &Place) -> Self {
        let dir = place.path("registry");
        std::fs::create_dir(&dir).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let names = format!("DNS:localhost,DNS:{HIDDEN},IP:127.0.0.1");
        sh(&dir, &format!("openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=tests
            openssl req -newkey rsa:2048 -nodes -keyout it.key -out it.csr -subj /CN=localhost
            echo subjectAltName={names} > ext
            openssl x509 -req -in it.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out it.crt -days 2 -extfile ext
            chmod 644 ca.crt; htpasswd -Bbn ann secret > htpasswd; mkdir data"));
        let path = |name: &str| dir.join(name).display().to_string();
        let config = serde_json::json!({
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": path("data")}},
            "http": {
                "addr": format!("127.0.0.1:{port}"),
                "tls": {"certificate": path("it.crt"), "key": path("it.key")},
            },
            "auth": {"htpasswd": {"realm": "it", "path": path("htpasswd")}},
        });
        std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", &path("config.json")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Registry { child, port, host: format!("localhost:{port}") };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "the registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        for (name, host) in [("ann.json", &*registry.host), ("hidden.json", HIDDEN)] {
            let auths = format!(r#"{{"auths":{{"{host}":{{"auth":"YW5uOnNlY3JldA=="}}}}}}"#);
            place.write(name, auths.as_bytes());
        }
        place.write("no_credentials.json", b"{}");
        registry
    }

    /// The reference of an image in the registry.
    pub fn image(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.host)
    }

    /// Starts a proxy that connects every request to the registry, whichever host is requested.
    pub fn proxy(&self) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, port) = (Arc::clone(&requests), self.port);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let log = Arc::clone(&log);
                std::thread::spawn(move || tunnel(stream.unwrap(), port, &log));
            }
        });
        Proxy { url, requests }
    }
}

/// A proxy that records its request lines.
pub struct Proxy {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn tunnel(mut client: TcpStream, port: u16, requests: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    requests.lock().unwrap().push(head.lines().next().unwrap().to_owned());
    let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(std::net::Shutdown::Write));
    });
    drop(std::io::copy(&mut server, &mut client));
    drop(client.shutdown(std::net::Shutdown::Both));
}

/// A user of the registry: a store and a file of credentials.
pub struct User<'a> {
    pub place: &'a Place,
    /// Name of the store's directory.
    pub store: &'a str,
    /// Name of the file of credentials.
    pub passwords: &'a str,
}

impl User<'_> {
    /// `invarlock` with this store and these credentials. It trusts the registry's certificate
    /// authority.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(&self.place.path("bin/invarlock"), args)
    }

    /// Another program with this store and these credentials.
    pub fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = self.place.command_of(program, args);
        command.env("INVARLOCK_STORE", self.place.work(self.store));
        command.env("SSL_CERT_FILE", self.place.path("registry/ca.crt"));
        command.env("REGISTRY_AUTH_FILE", self.place.work(self.passwords));
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }
}

pub fn json(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

/// The manifest digest in the JSON output of a command.
pub fn digest(ran: &Ran) -> String {
    json(ran)["manifest_digest"].as_str().unwrap().to_owned()
}

/// Fails the test unless the command ends with `code` and its error contains every needle.
#[track_caller]
pub fn assert_fails(ran: Ran, code: i32, needles: &[&str]) {
    let output = ran.expect(code).json();
    let message = invarlock_tests::message_and_hint(&output);
    for needle in needles {
        assert!(message.contains(needle), "{needle:?} is not in: {message}");
    }
}
