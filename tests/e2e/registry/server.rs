//! Debian's registry on loopback, and a proxy before it.

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
        .is_ok_and(|it| it.status.success())
}

/// What is missing of what every test here needs.
pub fn missing() -> Option<&'static str> {
    ["docker-registry", "htpasswd", "openssl"].into_iter().find(|it| !has(it))
}

pub fn sh(dir: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A registry of this machine; it ends with this value.
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
    /// In `registry` of the place, with a certificate of an authority of our own (`ca.crt`), and for ann, whose password is secret.
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

    /// The name of an image there.
    pub fn image(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.host)
    }

    /// A proxy that leads to the registry, whomever it is asked for.
    pub fn proxy(&self) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (noted, port) = (Arc::clone(&asked), self.port);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let noted = Arc::clone(&noted);
                std::thread::spawn(move || tunnel(stream.unwrap(), port, &noted));
            }
        });
        Proxy { url, asked }
    }
}

/// What a proxy was asked for stands in `asked`.
pub struct Proxy {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn tunnel(mut client: TcpStream, port: u16, asked: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    asked.lock().unwrap().push(head.lines().next().unwrap().to_owned());
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

/// Who runs a command, and how he knows the registry.
pub struct User<'a> {
    pub place: &'a Place,
    /// The store's name.
    pub store: &'a str,
    /// His file of passwords.
    pub passwords: &'a str,
}

impl User<'_> {
    /// `invarlock` as he runs it, trusting the registry's authority.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
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

/// The digest that a command tells.
pub fn digest(ran: &Ran) -> String {
    json(ran)["manifest_digest"].as_str().unwrap().to_owned()
}

/// The error that a command tells holds each of the words.
#[track_caller]
pub fn fails(ran: Ran, code: i32, words: &[&str]) {
    let told = ran.expect(code).json();
    let message = invarlock_tests::message_and_hint(&told);
    words.iter().for_each(|it| assert!(message.contains(it), "{it:?} is not in: {message}"));
}
