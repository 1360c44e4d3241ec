//! What the test of delegated evaluations puts in an image in place of InvarLock's Python package: it answers `--version` with the file
//! `/version`, and `evaluate` with the reports in `/reports`, which the package wrote once. `--edit-label` says what it does; it also leaves what
//! it could see.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a test program")]

use invarlock_tests::accelerator::NODES;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::exit;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["--version"] {
        print!("{}", fs::read_to_string("/version").unwrap());
        return;
    }
    let label = arguments.iter().skip_while(|word| *word != "--edit-label").nth(1);
    let label = label.map_or("pass", String::as_str);
    println!("evaluating: {label}");
    eprintln!("a line of standard error");
    if let Some(code) = label.strip_prefix("exit-") {
        exit(code.parse().unwrap());
    }
    fs::create_dir_all("/out/runs/source/1").unwrap();
    fs::create_dir_all("/out/report").unwrap();
    fs::copy("/reports/source.json", "/out/runs/source/1/report.json").unwrap();
    fs::write("/out/report/seen.json", seen(&arguments).to_string()).unwrap();
    fs::write("/out/report/runtime.manifest.json", "{}").unwrap();
    let report = "/out/report/evaluation.report.json";
    match label {
        "no-report" => {}
        "no-validation" => fs::write(report, "{}").unwrap(),
        "not-json" => fs::write(report, "not JSON").unwrap(),
        "elsewhere" => {
            fs::copy("/reports/pass.json", report).unwrap();
            fs::write("/out/elsewhere", "").unwrap();
        }
        name => drop(fs::copy(format!("/reports/{name}.json"), report).unwrap()),
    }
}

/// What the program sees of its container.
fn seen(arguments: &[String]) -> serde_json::Value {
    let mut files = BTreeMap::new();
    list(Path::new("/in"), &mut files);
    let writable: Vec<&String> =
        files.keys().filter(|path| fs::OpenOptions::new().write(true).open(path).is_ok()).collect();
    let created = ["/in/new", "/new"].into_iter().filter(|path| fs::write(path, "").is_ok());
    json!({
        "arguments": arguments,
        "cwd": std::env::current_dir().unwrap(),
        "environment": std::env::vars().collect::<BTreeMap<_, _>>(),
        "files": files,
        "writable": writable,
        "created": created.collect::<Vec<_>>(),
        "devices": devices(),
        "driver": driver(),
    })
}

/// The devices of the test that are there, and the error of a write to each.
fn devices() -> BTreeMap<&'static str, Option<i32>> {
    let there = NODES.into_iter().filter(|path| Path::new(path).exists());
    there.map(|path| (path, fs::write(path, "x").err().and_then(|error| error.raw_os_error()))).collect()
}

/// The file of the test's driver, and whether it can be written.
fn driver() -> serde_json::Value {
    let path = "/usr/lib/libaccelerator.so.1";
    let writable = fs::OpenOptions::new().write(true).open(path).is_ok();
    json!({"text": fs::read_to_string(path).ok(), "writable": writable})
}

/// The files below a directory, with the text of the settings.
fn list(directory: &Path, files: &mut BTreeMap<String, Option<String>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
            continue;
        }
        let settings = path.extension().is_some_and(|extension| extension == "yaml");
        let text = settings.then(|| fs::read_to_string(&path).unwrap());
        files.insert(path.to_str().unwrap().to_owned(), text);
    }
}
