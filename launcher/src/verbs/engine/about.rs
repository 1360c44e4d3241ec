//! `version` and `info`.

use super::Engine;
use crate::error::{Context as _, Result};
use crate::image;
use serde_json::{Value, json};

/// The version of this program, in the members that the engine has for its own.
pub fn version(engine: Engine) -> Result<Value> {
    let own = json!({
        "Name": format!("InvarLock, as {}", engine.name()),
        "Version": env!("CARGO_PKG_VERSION"),
        "Os": std::env::consts::OS,
        "Arch": architecture(),
        "OsArch": format!("{}/{}", std::env::consts::OS, architecture()),
    });
    Ok(json!({"Client": own, "Server": own}))
}

/// Facts about engine and machine.
pub fn info(engine: Engine) -> Result<Value> {
    let store = image::store()?;
    let (root, count) = (store.root().display().to_string(), store.list()?.len());
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = total_memory()?;
    let version = env!("CARGO_PKG_VERSION");
    let rootless = !rustix::process::geteuid().is_root();
    Ok(match engine {
        Engine::Podman => json!({
            "host": {
                "os": std::env::consts::OS, "arch": architecture(), "kernel": kernel, "cpus": cpus, "memTotal": memory,
                "security": {"rootless": rootless, "seccompEnabled": true, "capabilities": ""},
            },
            "store": {"graphRoot": root, "imageStore": {"number": count}},
            "version": {"Version": version},
        }),
        Engine::Docker => json!({
            "ServerVersion": version, "OSType": std::env::consts::OS, "Architecture": std::env::consts::ARCH,
            "KernelVersion": kernel, "NCPU": cpus, "MemTotal": memory, "DockerRootDir": root, "Images": count,
            "OperatingSystem": "InvarLock", "SecurityOptions": ["name=seccomp", "name=userns"],
        }),
    })
}

/// The name of this machine's architecture in images.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn total_memory() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    Ok(kilobytes.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0) * 1024)
}
