//! Plays the programs of InvarLock's Python package, `python -m MODULE …`: writes their files where they write them, and prints what they look
//! for in a container.

use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

/// The files of a side.
const FILES: [&str; 6] = [
    "model-artifact.identity.json",
    "report.json",
    "run.yaml",
    "runtime-provider.receipt.json",
    "runtime-scoring.observation.json",
    "runtime.manifest.json",
];

/// Plays the script that removes what a worker left.
pub fn remove(directory: &str) {
    fs::remove_dir_all(Path::new(directory).join("side")).expect("the directory of a worker");
}

/// Plays a module.
pub fn run(module: &str, args: &[&str]) {
    let files: &[&str] = &["evaluation.report.json", "runtime.manifest.json"];
    match (module, args) {
        ("invarlock.evaluation_side_worker", [job]) => {
            let job = fs::read_to_string(job).expect("the job");
            let job: Value = serde_json::from_str(&job).expect("JSON");
            if job["sleep"] == true {
                std::thread::sleep(std::time::Duration::from_secs(600));
            }
            write(Path::new(job["output"].as_str().expect("the output")), &FILES);
        }
        ("invarlock", ["evaluate", options @ ..]) => {
            let option =
                |name: &str| options.iter().skip_while(|option| **option != name).nth(1).expect("an option");
            fs::read_to_string(option("--preset")).expect("the preset");
            fs::read_to_string(Path::new(option("--subject")).join("config.json")).expect("the subject");
            write(Path::new(option("--report-out")), files);
        }
        other => panic!("no such program: {other:?}"),
    }
    println!("{}", surroundings());
}

/// New files, written as the package does: under another name first, and on disk before they get theirs.
fn write(directory: &Path, names: &[&str]) {
    fs::create_dir(directory).expect("a new directory");
    for name in names {
        let staged = directory.join(format!(".{name}.tmp"));
        let mut file = File::create_new(&staged).expect("a file");
        file.write_all(name.as_bytes()).expect("writing");
        file.sync_all().expect("on disk");
        fs::rename(&staged, directory.join(name)).expect("a name");
    }
}

fn surroundings() -> Value {
    let is_file = |path: &str| fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()).map(str::to_owned)
    };
    json!({
        "uid": ids("Uid:"),
        "gid": ids("Gid:"),
        "containerenv": is_file("/run/.containerenv"),
        "home": std::env::var("HOME").ok(),
        "marked": std::env::var("INVARLOCK_CONTAINER_EXECUTION").ok(),
        "cwd": std::env::current_dir().ok(),
        "tmp": fs::write("/tmp/x", "x").is_ok(),
    })
}
