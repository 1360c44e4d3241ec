//! Attacks of the program of a hostile image; each prints one JSON object. They run only where `lo` is the only interface.

use serde_json::{Map, Value, json};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;

/// Makes the attack `what`; false if no such attack exists.
pub fn attack(what: &str, args: &[&str]) -> bool {
    let report = match what {
        "where" => location(),
        "stat" => each(args, |path| answer(fs::metadata(path).map(|m| kind(&m)))),
        "list" => each(args, |path| answer(fs::read_dir(path).map(names))),
        "list-later" => {
            println!("ready");
            std::thread::sleep(std::time::Duration::from_millis(700));
            each(args, |path| answer(fs::read_dir(path).map(names)))
        }
        "create" => each(args, |path| answer(fs::write(path, "of the workload").map(|()| json!("made")))),
        "open-write" => each(args, |path| hammered(path, 1)),
        "hammer" => each(args, |path| hammered(path, 5_000)),
        "chmod" => each(args, |path| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
            answer(fs::set_permissions(path, mode).map(|()| json!("changed")))
        }),
        "connect-path" => each(args, |path| answer(UnixStream::connect(path).map(|_| json!("connected")))),
        "set-id" => each(args, set_id),
        "type" => each(args, |fd| json!(crate::sys::type_into(fd.parse().expect("a number")))),
        "escape" => return escape(),
        _ => return false,
    };
    println!("{report}");
    true
}

fn each(args: &[&str], look: impl Fn(&str) -> Value) -> Value {
    Value::Object(args.iter().map(|arg| ((*arg).to_owned(), look(arg))).collect::<Map<_, _>>())
}

/// The value, or the errno.
fn answer(result: std::io::Result<Value>) -> Value {
    result.unwrap_or_else(|e| json!(e.raw_os_error()))
}

/// Tries to make files of a directory run as their owner, and devices.
fn set_id(directory: &str) -> Value {
    use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
    let path = |name: &str| format!("{directory}/{name}");
    let set = |result: rustix::io::Result<()>| answer(result.map(|()| json!("set")).map_err(Into::into));
    let (user, group) = (Mode::from_raw_mode(0o4755), Mode::from_raw_mode(0o2755));
    let create = OFlags::WRONLY | OFlags::CREATE;
    let file = fs::File::create(path("plain")).expect("a file");
    let node = |name: &str, kind: FileType| {
        rustix::fs::mknodat(CWD, path(name), kind, user, rustix::fs::makedev(1, 3))
    };
    json!({
        "allowed mode": set(rustix::fs::chmod(path("plain"), Mode::from_raw_mode(0o750))),
        "chmod": set(rustix::fs::chmod(path("plain"), user)),
        "chmod group": set(rustix::fs::chmod(path("plain"), group)),
        "fchmod": set(rustix::fs::fchmod(&file, user)),
        "open": set(rustix::fs::open(path("opened"), create, user).map(drop)),
        "open group": set(rustix::fs::open(path("opened"), create, group).map(drop)),
        "tmpfile": set(rustix::fs::open(directory, OFlags::WRONLY | OFlags::TMPFILE, user).map(drop)),
        "openat2": set(rustix::fs::openat2(CWD, path("opened"), create, user, ResolveFlags::empty()).map(drop)),
        "mknod": set(node("node", FileType::RegularFile)),
        "device": set(node("device", FileType::CharacterDevice)),
    })
}

fn names(entries: fs::ReadDir) -> Value {
    let mut names: Vec<String> =
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    json!(names)
}

fn kind(meta: &fs::Metadata) -> Value {
    let device = || format!("{}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let kind = meta.file_type();
    match (kind.is_dir(), kind.is_char_device()) {
        (true, _) => json!("directory"),
        (_, true) => json!(format!("character device {}", device())),
        _ => json!(format!("{kind:?}")),
    }
}

/// The working directory by each of its paths, and the descriptors.
fn location() -> Value {
    json!({
        "cwd": std::env::current_dir().map(|p| p.display().to_string()).map_err(|e| e.to_string()),
        "link": fs::read_link("/proc/self/cwd").map(|p| p.display().to_string()).map_err(|e| e.to_string()),
        "init": answer(fs::read_link("/proc/1/cwd").map(|p| json!(p.display().to_string()))),
        "here": answer(fs::read_dir(".").map(names)),
        "above": answer(fs::read_dir("../../../../../../../../..").map(names)),
        "root": answer(fs::read_dir("/").map(names)),
        "descriptors": (0..1024).filter(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).is_ok()).collect::<Vec<u32>>(),
    })
}

/// `opened` where any of so many attempts to open it for writing succeeded, else the last errno.
fn hammered(path: &str, times: usize) -> Value {
    let mut last = json!(null);
    for _ in 0..times {
        match fs::OpenOptions::new().write(true).open(path) {
            Ok(_) => return json!("opened"),
            Err(e) => last = json!(e.raw_os_error()),
        }
    }
    last
}

/// A new title, a cleared screen, a colour in one byte, text from right to left.
fn escape() -> bool {
    let hostile = b"\x1b]0;owned\x07\x1b[2J\x9b31m\xc2\x9b31m\xe2\x80\xaegnp\x08\x08ok\n";
    std::io::stdout().write_all(hostile).expect("standard output");
    std::io::stderr().write_all(hostile).expect("standard error");
    true
}

/// A hostile evaluator. It answers the check that precedes a measurement as an honest one does.
pub fn as_evaluator(attack: &str) {
    let job: Value =
        fs::read("/in/job.json").ok().and_then(|job| serde_json::from_slice(&job).ok()).unwrap_or_default();
    if job["task"] == "check" {
        let arm = json!({"window_ids": [], "input_ids": [], "attention_masks": []});
        let windows = json!({"tokenizer_hash": null, "preview": arm, "final": arm});
        let report = json!({"contract": "invarlock-check-v1", "role": job["role"], "checkpoint": {}, "windows": windows});
        return fs::write("/out/check.json", report.to_string()).expect("/out");
    }
    let forged = r#"{"meta":{},"forged":true}"#;
    let report = "/out/report.json";
    match attack {
        "forge" => {
            fs::write(report, forged).expect("/out");
            fs::write("/out/runtime.manifest.json", forged).expect("/out");
            for path in
                ["/runtime.manifest.json", "/in/runtime.manifest.json", "/out/../runtime.manifest.json"]
            {
                assert!(fs::write(path, forged).is_err(), "{path} could be written");
            }
        }
        "link" => std::os::unix::fs::symlink("/in/job.json", report).expect("/out"),
        "fifo" => {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, report, rustix::fs::FileType::Fifo, mode, 0).expect("/out");
        }
        "late" => {
            crate::sys::ignore_term();
            loop {
                fs::write(report, forged).expect("/out");
            }
        }
        "orphan" => {
            let own = std::process::id();
            crate::sys::become_a_grandchild();
            while std::process::id() != own {
                drop(fs::write(report, forged));
            }
        }
        "escape" => {
            escape();
            panic!("\x1b]0;owned\x07");
        }
        other => panic!("no evaluator does {other}"),
    }
}
