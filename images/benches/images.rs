//! Compares import and extraction with skopeo, umoci and podman, and pull with skopeo, and measures verification, on one image in one run.
//!
//! The image has five gzip layers, about 18,000 files and 500 MB. Each figure is the median of three rounds; each contender is first once, and
//! all earlier writes are on disk before it starts. InvarLock's files are on disk when its time ends; rows with `sync` show the other tools
//! with their writes on disk. No file is removed before the end, and few should be removed in the five minutes before: ext4 does not reuse
//! recently freed inodes and inspects each of them for every new file.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, and fails by a panic")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use invarlock_images::{Policy, Reference, RegistryName, RootfsOptions, Store, Verify};
use invarlock_registry::{Client, Options};
use invarlock_security::{Allowances, Flags, SecureTempDir};

const ROUNDS: usize = 3;
/// Set for the subprocess that measures its peak memory.
const MEMORY: &str = "INVARLOCK_BENCH_MEMORY";
/// Set for a subprocess that pulls: the host of the registry.
const HOST: &str = "INVARLOCK_BENCH_HOST";

fn main() {
    if let Some(dir) = std::env::var_os(MEMORY) {
        return measure_peak_memory(dir.as_ref());
    }
    let dir = SecureTempDir::new("invarlock-bench-").expect("a directory");
    let dir = dir.path();
    let files = create_image(dir);
    let size = |path: &str| {
        run("du", &["-sb", path]).split_whitespace().next().expect("size").parse::<f64>().expect("size")
    };
    let (compressed, extracted) = (size(&at(dir, "layout")), size(&at(dir, "tree")));
    println!(
        "image: 5 layers, {files} files, {:.0} MB, {:.0} MB compressed\n",
        extracted / 1e6,
        compressed / 1e6
    );
    let mut times: Vec<(&str, Vec<f64>)> = [
        "invarlock: import and extract",
        "skopeo copy and umoci unpack",
        "podman load",
        "invarlock: full",
        "invarlock: quick",
        "openssl dgst",
        "skopeo and umoci, then sync",
        "podman load, then sync",
    ]
    .map(|name| (name, Vec::new()))
    .into();
    fs::write(dir.join("noise"), vec![7; 256 << 20]).expect("noise");
    let registry = Registry::start(dir);
    let mut pulls: [Vec<f64>; 4] = Default::default();
    let contenders: [fn(&Path, &Path); 3] = [import, skopeo_and_umoci, podman];
    for round in 0..ROUNDS {
        // A short name, because podman rejects long ones.
        let place = dir.join(round.to_string());
        fs::create_dir(&place).expect("directory");
        // Each contender is first once.
        for i in (0..contenders.len()).map(|i| (i + round) % contenders.len()) {
            settle(dir);
            let start = Instant::now();
            contenders[i](dir, &place);
            times[i].1.push(start.elapsed().as_secs_f64());
            // Only InvarLock's files are on disk at this point.
            drop(run("sync", &["--file-system", &place.display().to_string()]));
            if i > 0 {
                times[5 + i].1.push(start.elapsed().as_secs_f64());
            }
        }
        for i in (0..4).map(|i| (i + round) % 4) {
            settle(dir);
            pulls[i].push(timed(|| match i {
                0 => pull(&registry.host, &place.join("pulled"), None),
                1 => drop(skopeo_from(&registry.host, &place, "from")),
                2 => pull(&registry.host, &place.join("unpacked"), Some(Policy::default())),
                _ => {
                    let copy = skopeo_from(&registry.host, &place, "from-too");
                    let image = format!("{copy}:it");
                    drop(run(
                        "umoci",
                        &["unpack", "--rootless", "--image", &image, &at(&place, "bundle-too")],
                    ));
                }
            }));
        }
        let store = Store::open(&place.join("store")).expect("store");
        let image = store.resolve(&Reference::parse("it:1").expect("reference")).expect("image");
        let verify = |verify| {
            drop(store.rootfs(&image, RootfsOptions { verify, ..RootfsOptions::default() }).expect("rootfs"))
        };
        warm(dir, &format!("noise {round}/store"));
        times[3].1.push(timed(|| verify(Verify::Full)));
        times[4].1.push(timed(|| verify(Verify::Quick)));
        times[5].1.push(timed(|| drop(run("openssl", &["dgst", "-sha256", &at(dir, "noise")]))));
    }
    let names = [
        "invarlock: pull",
        "skopeo copy from the registry",
        "invarlock: pull and extract",
        "skopeo and umoci from there",
    ];
    times.extend(names.into_iter().zip(pulls));
    let median = |i: usize| {
        let mut all = times[i].1.clone();
        all.sort_by(f64::total_cmp);
        all[ROUNDS / 2]
    };
    for (i, (name, all)) in times.iter().enumerate() {
        println!("{name:<30} {:>7.2} s   {all:.2?}", median(i));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    // Full verification reads the blobs too.
    let (rate, openssl) = ((compressed + extracted) / median(3), f64::from(256 << 20) / median(5) * cores);
    println!("\nimport and extract ÷ (skopeo + umoci)      {:.2}   budget 0.4", median(0) / median(1));
    println!("import and extract ÷ podman load           {:.2}   budget 0.5", median(0) / median(2));
    println!("pull ÷ skopeo copy                         {:.2}   budget 1.0", median(8) / median(9));
    println!("pull and extract ÷ (skopeo + umoci)        {:.2}", median(10) / median(11));
    println!(
        "full verification ÷ (openssl × {cores} cores)   {:.2}   budget 0.8 ({:.0} MB/s)",
        rate / openssl,
        rate / 1e6
    );
    println!("quick verification of a file               {:.2} µs, budget 5", median(4) * 1e6 / files as f64);
    let own = std::env::current_exe().expect("own program");
    let peak = |what: &str, host: Option<&str>| {
        let mut copy = Command::new(&own);
        copy.env(MEMORY, dir).envs(host.map(|host| (HOST, host)));
        let peak = copy.output().expect("subprocess");
        assert!(peak.status.success(), "{}", String::from_utf8_lossy(&peak.stderr));
        println!("{what} {}, budget 64 MiB", String::from_utf8_lossy(&peak.stdout).trim());
    };
    peak("peak memory of importing                  ", None);
    peak("peak memory of pulling                    ", Some(&registry.host));
}

fn measure_peak_memory(dir: &Path) {
    match std::env::var(HOST) {
        Ok(host) => pull(&host, &dir.join("pulled"), Some(Policy::default())),
        Err(_) => import(dir, dir),
    }
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("peak");
    println!("{}", line.trim_start_matches("VmHWM:").trim());
}

fn at(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

/// Makes the conditions equal for every contender: earlier writes are on disk, and the input and the programs are in the page cache. In a
/// VM the first touch of a page costs about 10 µs, so as root the page cache is dropped, which frees pages that were touched before.
fn settle(dir: &Path) {
    drop(run("sync", &[]));
    let _ = fs::write("/proc/sys/vm/drop_caches", "1");
    run("sh", &["-ec", "(skopeo --version && umoci --version && podman --version) > /dev/null"]);
    warm(dir, "image.tar layout registry");
}

/// Reads the files below these names into the page cache.
fn warm(dir: &Path, names: &str) {
    run(
        "sh",
        &["-ec", &format!("cd '{}' && find {names} -type f -exec cat {{}} + > /dev/null", dir.display())],
    );
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().expect(program);
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Creates an image of five layers, compressed by umoci, with files of many sizes that compress to about a half.
fn create_image(dir: &Path) -> usize {
    let layout = at(dir, "layout");
    run("umoci", &["init", "--layout", &layout]);
    run("umoci", &["new", "--image", &format!("{layout}:it")]);
    let (mut noise, mut files) = (88_172_645_463_325_252u64, 0);
    let mut next = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise
    };
    for layer in 0..5 {
        let root = dir.join("tree").join(format!("layer{layer}"));
        for i in 0..3674 {
            let below = root.join(format!("usr/lib/package-{}", i % 97));
            fs::create_dir_all(&below).expect("tree");
            let size = match i % 100 {
                0 => 1_000_000 + next() % 1_000_000,
                1..=20 => 20_000 + next() % 40_000,
                _ => next() % 8_000,
            };
            // Four bits of noise in every byte.
            let content: Vec<u8> = (0..size).map(|_| b'a' + (next() & 15) as u8).collect();
            fs::write(below.join(format!("file-{i}.py")), content).expect("tree");
            files += 1;
        }
        let tar = at(dir, "layer.tar");
        run("tar", &["--sort=name", "-cf", &tar, "-C", &root.display().to_string(), "."]);
        run("umoci", &["raw", "add-layer", "--image", &format!("{layout}:it"), &tar]);
    }
    run(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "--quiet",
            &format!("oci:{layout}:it"),
            &format!("oci-archive:{}:it", at(dir, "image.tar")),
        ],
    );
    files
}

fn import(dir: &Path, place: &Path) {
    let store = Store::open(&place.join("store")).expect("store");
    let from = Reference::parse(&format!("oci-archive:{}:it", at(dir, "image.tar"))).expect("reference");
    store.import(&from, Some("it:1"), Policy::default(), &|_| {}).expect("import");
}

fn skopeo_and_umoci(dir: &Path, place: &Path) {
    let copy = at(place, "copy");
    run(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "--quiet",
            &format!("oci-archive:{}:it", at(dir, "image.tar")),
            &format!("oci:{copy}:it"),
        ],
    );
    run("umoci", &["unpack", "--rootless", "--image", &format!("{copy}:it"), &at(place, "bundle")]);
}

fn podman(dir: &Path, place: &Path) {
    let (root, state) = (at(place, "podman"), at(place, "run"));
    run(
        "podman",
        &["--root", &root, "--runroot", &state, "load", "--quiet", "--input", &at(dir, "image.tar")],
    );
}

/// Debian's `docker-registry` without TLS, which contains the image.
struct Registry {
    child: std::process::Child,
    host: String,
}

impl Registry {
    fn start(dir: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("port")
            .port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            at(dir, "registry")
        );
        fs::write(dir.join("registry.yml"), config).expect("settings");
        let child = Command::new("docker-registry")
            .args(["serve", &at(dir, "registry.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry");
        let registry = Self { child, host: format!("localhost:{port}") };
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let from = format!("oci:{}:it", at(dir, "layout"));
        let to = format!("docker://{}/it:1", registry.host);
        let args = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &from, &to];
        run("skopeo", &args);
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn pull(host: &str, store: &Path, policy: Option<Policy>) {
    let flags = Flags { network: true, ..Flags::default() };
    let network = Allowances::resolve(&flags, &|_| None).network().expect("allowed");
    let name = RegistryName::parse(&format!("docker://{host}/it:1")).expect("name");
    let client = Client::new(network, &name, Options::default()).expect("client");
    let store = Store::open(store).expect("store");
    store.pull(&name, &client, None, policy, &|_, _| {}).expect("pull");
}

fn skopeo_from(host: &str, place: &Path, name: &str) -> String {
    let copy = at(place, name);
    let (from, to) = (format!("docker://{host}/it:1"), format!("oci:{copy}:it"));
    run("skopeo", &["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", &from, &to]);
    copy
}
