//! What a workload can observe of its boundary.

use serde_json::{Value, json};
use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// One JSON object.
pub fn boundary() -> Value {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let keys = [
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
    ];
    let status: serde_json::Map<String, Value> = keys
        .iter()
        .filter_map(|key| {
            let line = status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
            Some(((*key).to_owned(), json!(line.split_whitespace().collect::<Vec<_>>().join(" "))))
        })
        .collect();
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let interfaces: Vec<&str> =
        interfaces.lines().skip(2).filter_map(|l| l.split(':').next()).map(str::trim).collect();
    let mut env: Vec<String> = std::env::vars().map(|(k, v)| format!("{k}={v}")).collect();
    env.sort();
    let mut fds: Vec<u32> =
        (0..1024u32).filter(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).is_ok()).collect();
    fds.sort_unstable();
    json!({
        "pid": std::process::id(),
        "status": status,
        "interfaces": interfaces,
        "environment": env,
        "descriptors": fds,
        "stdin": fs::read_link("/proc/self/fd/0").map(|p| p.display().to_string()).unwrap_or_default(),
        "dev": list("/dev"),
        "root": list("/"),
        "processes": list("/proc").into_iter().filter(|n| n.parse::<u32>().is_ok()).collect::<Vec<_>>(),
        "mounts": fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>(),
        "hostname": fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim(),
        "cwd": std::env::current_dir().map(|p| p.display().to_string()).unwrap_or_default(),
        "writes": {
            "/x": write("/x"),
            "/in/x": write("/in/x"),
            "/dev/x": write("/dev/x"),
            "/proc/sys/kernel/hostname": write("/proc/sys/kernel/hostname"),
            "/proc/sys/vm/drop_caches": write("/proc/sys/vm/drop_caches"),
            "/proc/1/mem": write("/proc/1/mem"),
            "/sys/x": write("/sys/x"),
            "/out/x": write("/out/x"),
            "/tmp/x": write("/tmp/x"),
        },
        "init": {
            "exe": outcome(fs::read_link("/proc/1/exe")),
            "fd": outcome(fs::read_dir("/proc/1/fd")),
            "environ": outcome(fs::read("/proc/1/environ")),
            "signal": kill_init(),
        },
        "connect": {
            "192.0.2.1": connect("192.0.2.1:80"),
            "2001:db8::1": connect("[2001:db8::1]:80"),
            "127.0.0.1": connect("127.0.0.1:9"),
            "udp": outcome(UdpSocket::bind("127.0.0.1:0").and_then(|s| s.send_to(b"x", "192.0.2.1:53"))),
        },
        "limits": fs::read_to_string("/proc/self/limits").unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>(),
        "nodump": outcome(fs::read("/proc/kcore")),
    })
}

fn list(dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// `ok`, or the errno.
fn outcome<T>(result: std::io::Result<T>) -> Value {
    match result {
        Ok(_) => json!("ok"),
        Err(e) => json!(e.raw_os_error()),
    }
}

fn write(path: &str) -> Value {
    let existed = fs::metadata(path).is_ok();
    let result = fs::OpenOptions::new().write(true).create(!existed).open(path);
    if result.is_ok() && !existed {
        drop(fs::remove_file(path));
    }
    outcome(result)
}

fn connect(address: &str) -> Value {
    let address: SocketAddr = address.parse().expect("an address");
    outcome(TcpStream::connect_timeout(&address, Duration::from_secs(2)))
}

fn kill_init() -> Value {
    let pid = rustix::process::Pid::from_raw(1).expect("one");
    let result = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    outcome(result.map_err(std::io::Error::from))
}

/// What a program finds out about its user: ids, environment and working directory.
pub fn user() -> Value {
    let ids = [rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()];
    let env: std::collections::BTreeMap<String, String> = std::env::vars().collect();
    json!({"ids": ids, "env": env, "cwd": std::env::current_dir().ok()})
}
