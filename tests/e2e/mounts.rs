//! Mounts of `runtime run`: binds, directories in memory, inputs and the output. Each is tried by root and by an ordinary user.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::layout::Layout;
use invarlock_tests::{As, Place, Ran, both, is_root, program, set_mode, skip};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// An image with the workload, a link, and places for mounts.
fn image(place: &Place) -> String {
    let fill = |rootfs: &Path| {
        fs::copy(program("invarlock-workload"), rootfs.join("workload")).unwrap();
        fs::create_dir_all(rootfs.join("etc")).unwrap();
        fs::create_dir_all(rootfs.join("data")).unwrap();
        fs::write(rootfs.join("data/of-the-image"), "of the image").unwrap();
        fs::write(rootfs.join("etc/setting"), "of the image").unwrap();
        symlink("data", rootfs.join("link")).unwrap();
    };
    Layout::of_tree(place, "image", fill).image("test", &json!({"Entrypoint": ["/workload"]}))
}

/// A directory of the user with a file in it.
fn directory(place: &Place, name: &str) -> PathBuf {
    let path = place.work(name);
    fs::create_dir(&path).unwrap();
    place.give(&path);
    place.write(&format!("{name}/file"), b"of the host");
    path
}

fn run(place: &Place, image: &str, options: &[&str], command: &[&str]) -> Ran {
    place.run(&[&["runtime", "run", "--json"][..], options, &[image, "--"], command].concat())
}

/// A run that fails before it starts.
#[track_caller]
fn refused(place: &Place, image: &str, options: &[&str], command: &[&str]) -> Ran {
    place.run(&[&["runtime", "run"][..], options, &[image, "--"], command].concat()).expect(125)
}

/// Options that are no options of the command.
#[track_caller]
fn misused(place: &Place, image: &str, options: &[&str], needle: &str) {
    let ran = refused(place, image, options, &["noop"]);
    assert!(ran.out.is_empty() && ran.err.starts_with("error") && ran.err.contains(needle), "{ran:?}");
}

/// The record of a run.
fn record(ran: &Ran) -> Value {
    let line = ran.err.lines().find(|line| line.starts_with('{'));
    serde_json::from_str(line.unwrap_or_else(|| panic!("{ran:?}"))).unwrap()
}

/// The JSON that a command printed.
fn printed(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"))
}

fn options_of(record: &Value, target: &str) -> Vec<String> {
    let mounts = record["observations"]["mounts"]["value"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["target"] == target).unwrap();
    mount["options"].as_str().unwrap().split(',').map(str::to_owned).collect()
}

#[test]
fn read_only_bind_shows_the_host_and_cannot_be_written() {
    for user in both() {
        let place = Place::new(user);
        let image = image(&place);
        let source = directory(&place, "source");
        // Only its owner can read it.
        set_mode(&source, 0o700);
        set_mode(&source.join("file"), 0o600);
        let long = format!("type=bind,source={},target=/data,readonly", source.display());
        for options in [&["--mount", long.as_str()][..], &["-v", "./source:/data:ro"]] {
            let ran = run(&place, &image, options, &["cat", "/data/file"]).expect(0);
            assert_eq!(ran.out, "of the host");
            let record = record(&ran);
            let real = source.canonicalize().unwrap();
            let expected = json!([{"kind": "bind", "source": real, "target": "/data", "writable": false, "bytes": null}]);
            assert_eq!(record["mounts"], expected);
            assert_eq!(record["loosened"], json!([]));
            for option in ["ro", "nosuid", "nodev"] {
                assert!(options_of(&record, "/data").iter().any(|found| found == option), "{record}");
            }
            let ran = run(&place, &image, options, &["create", "/data/new", "/data/file"]).expect(0);
            assert_eq!(printed(&ran), json!({"/data/new": libc::EROFS, "/data/file": libc::EROFS}));
        }
        assert_eq!(fs::read_dir(&source).unwrap().count(), 1);
    }
}

#[test]
fn writable_bind_is_written_by_its_owner_and_recorded() {
    for user in both() {
        let place = Place::new(user);
        let image = image(&place);
        let source = directory(&place, "source");
        set_mode(&source, 0o700);
        let ran =
            run(&place, &image, &["-v", "./source:/new/place"], &["create", "/new/place/made"]).expect(0);
        assert_eq!(printed(&ran), json!({"/new/place/made": "made"}));
        let record = record(&ran);
        assert_eq!(record["loosened"], json!(["writable_bind"]));
        assert_eq!(record["mounts"][0]["writable"], true);
        for option in ["rw", "nosuid", "nodev", "noexec"] {
            assert!(options_of(&record, "/new/place").iter().any(|found| found == option), "{record}");
        }
        let made = fs::metadata(source.join("made")).unwrap();
        let owner = fs::metadata(&source).unwrap();
        assert_eq!((made.uid(), made.gid()), (owner.uid(), owner.gid()));
        // A file on a file of the image, a place in a writable directory, and one below another mount.
        let file = source.join("file");
        let on_file = format!("{}:/etc/setting:ro", file.display());
        let ran = run(&place, &image, &["-v", &on_file], &["cat", "/etc/setting"]).expect(0);
        assert_eq!(ran.out, "of the host");
        let ran =
            run(&place, &image, &["-v", "./source:/tmp/deep/er:ro"], &["cat", "/tmp/deep/er/file"]).expect(0);
        assert_eq!(ran.out, "of the host");
        fs::create_dir(source.join("inner")).unwrap();
        place.give(&source.join("inner"));
        let inner = directory(&place, "other");
        let nested = format!("{}:/data/inner:ro", inner.display());
        let options = ["-v", nested.as_str(), "-v", "./source:/data", "-w", "/data/inner"];
        assert_eq!(run(&place, &image, &options, &["cat", "file"]).expect(0).out, "of the host");
        refused(&place, &image, &["-v", "./source:/data", "-v", "./other:/data/missing"], &["noop"])
            .one_error(&["/data/missing", "does not exist", "help: create it"]);
    }
}

/// What a program could leave in a directory of the host.
#[test]
fn writable_bind_takes_no_set_id_file_and_no_device() {
    for user in both() {
        let place = Place::new(user);
        let image = image(&place);
        let source = directory(&place, "source");
        let ran = run(&place, &image, &["-v", "./source:/data"], &["set-id", "/data"]).expect(0);
        let results = printed(&ran)["/data"].clone();
        let expected = json!({
            "allowed mode": "set", "chmod": libc::EPERM, "chmod group": libc::EPERM, "fchmod": libc::EPERM, "open": libc::EPERM,
            "open group": libc::EPERM, "tmpfile": libc::EPERM, "openat2": libc::ENOSYS, "mknod": libc::EPERM, "device": libc::EPERM,
        });
        assert_eq!(results, expected);
        for entry in fs::read_dir(&source).unwrap() {
            let meta = entry.unwrap().metadata().unwrap();
            assert!(meta.is_file() && meta.mode() & 0o6000 == 0, "{meta:?}");
        }
        // Without a directory of the host that it can write, a program may set the bits: they have no effect inside.
        let ran = run(&place, &image, &["-v", "./source:/data:ro"], &["set-id", "/tmp"]).expect(0);
        assert_eq!(printed(&ran)["/tmp"]["chmod"], "set");
    }
}

#[test]
fn directories_in_memory_are_bounded_and_empty() {
    for user in both() {
        let place = Place::new(user);
        let image = image(&place);
        for (options, target) in [
            (&["--tmpfs", "/data:size=1M"][..], "/data"),
            (&["--mount", "type=tmpfs,target=/var/cache/x,tmpfs-size=1M"], "/var/cache/x"),
            (&["--tmpfs", "/run:size=1M"], "/run"),
        ] {
            let ran = run(&place, &image, options, &["list", target]).expect(0);
            assert_eq!(printed(&ran)[target], json!([]));
            let record = record(&ran);
            let expected = json!([{"kind": "tmpfs", "source": null, "target": target, "writable": true, "bytes": 1 << 20}]);
            assert_eq!(record["mounts"], expected);
            assert_eq!(record["loosened"], json!([]));
            let ran = run(&place, &image, options, &["fill", target]).expect(0);
            assert_eq!(ran.out, format!("{} {}\n", 1 << 20, libc::ENOSPC));
        }
        // Its size is a limit of every run.
        let ran = run(&place, &image, &["--tmpfs", "/tmp:size=3M"], &["noop"]).expect(0);
        let record = record(&ran);
        let limits = record["observations"]["limits"]["value"].as_array().unwrap();
        let tmp = limits.iter().find(|limit| limit["name"] == "tmp").unwrap();
        assert!(tmp.to_string().contains(&(3 << 20).to_string()), "{tmp}");
    }
}

#[test]
fn inputs_are_hashed_and_read_only() {
    for user in both() {
        let place = Place::new(user);
        let image = image(&place);
        let source = directory(&place, "model");
        fs::create_dir(source.join("below")).unwrap();
        place.give(&source.join("below"));
        place.write("model/below/more", b"more");
        symlink("file", source.join("link")).unwrap();
        let one = place.write("one.txt", b"one");
        let options = ["--input", "model", "--input", "one.txt:single"];
        let ran = run(&place, &image, &options, &["cat", "/in/model/below/more"]).expect(0);
        assert_eq!(ran.out, "more");
        let digest = |bytes: &[u8]| hex(&Sha256::digest(bytes));
        let record = record(&ran);
        let files = json!([
            {"name": "below/more", "sha256": digest(b"more"), "bytes": 4},
            {"name": "file", "sha256": digest(b"of the host"), "bytes": 11},
            {"name": "link", "sha256": digest(b"of the host"), "bytes": 11},
        ]);
        assert_eq!(record["inputs"][0]["files"], files);
        assert_eq!(record["inputs"][1]["files"][0]["sha256"], digest(b"one"));
        assert_eq!(run(&place, &image, &options, &["cat", "/in/single"]).expect(0).out, "one");
        assert_eq!(run(&place, &image, &options, &["cat", "/in/model/link"]).expect(0).out, "of the host");
        let ran = run(&place, &image, &options, &["create", "/in/model/file", "/in/new"]).expect(0);
        assert_eq!(printed(&ran), json!({"/in/model/file": libc::EROFS, "/in/new": libc::EROFS}));
        symlink(&one, source.join("outside")).unwrap();
        refused(&place, &image, &options, &["noop"]).one_error(&["error[input]", "model/outside", "help:"]);
        fs::remove_file(source.join("outside")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            source.join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        refused(&place, &image, &options, &["noop"]).one_error(&["error[input]", "model/pipe", "help:"]);
        for (bad, needle) in [("none", "none"), ("one.txt:", "cannot be a name"), ("..", "no name")] {
            misused(&place, &image, &["--input", bad], needle);
        }
        refused(&place, &image, &["--input", "one.txt", "--input", "one.txt"], &["noop"])
            .one_error(&["two inputs", "one.txt"]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn output_is_collected_after_the_run() {
    for user in both() {
        let place = Place::new(user);
        let image = image(&place);
        let ran =
            run(&place, &image, &["--output", "results"], &["write", "made.txt", "of the command"]).expect(0);
        assert_eq!(fs::read_to_string(place.work("results/made.txt")).unwrap(), "of the command");
        let digest = hex(&Sha256::digest(b"of the command"));
        assert_eq!(record(&ran)["output"], json!([{"name": "made.txt", "sha256": digest, "bytes": 14}]));
        assert_eq!(record(&ran)["loosened"], json!([]));
        refused(&place, &image, &["--output", "results"], &["write", "made.txt", "again"]).one_error(&[
            "--output results",
            "not empty",
            "help:",
        ]);
        assert_eq!(fs::read_to_string(place.work("results/made.txt")).unwrap(), "of the command");
        assert_eq!(record(&run(&place, &image, &[], &["noop"]).expect(0))["output"], Value::Null);
        place.write("a-file", b"");
        refused(&place, &image, &["--output", "a-file"], &["noop"]).one_error(&["--output a-file"]);
    }
}

#[test]
fn sources_that_open_the_machine_are_refused() {
    for user in both() {
        let place = Place::new(user);
        let image = image(&place);
        let source = directory(&place, "source");
        let other = Place::new(user);
        let with_socket = directory(&other, "sockets");
        let deep = with_socket.join("deep");
        fs::create_dir(&deep).unwrap();
        let _listener = UnixListener::bind(deep.join("socket")).unwrap();
        let with_fifo = directory(&other, "fifos");
        let fifo = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, with_fifo.join("fifo"), fifo, mode, 0).unwrap();
        symlink("/proc", source.join("to-proc")).unwrap();
        let path = |path: &Path| path.display().to_string();
        let (store, above) = (path(&place.path("store")), path(place.dir.path()));
        for (source, needle) in [
            ("/", "root of this machine"),
            ("/proc", "/proc"),
            ("/proc/self", "/proc"),
            ("/sys", "/sys"),
            ("/sys/kernel", "/sys"),
            ("/dev", "/dev"),
            ("/dev/null", "device"),
            ("./source/to-proc", "/proc"),
            (&path(&with_socket), "contains a socket"),
            (&path(&deep.join("socket")), "is a socket"),
            (&path(&with_fifo), "contains a fifo"),
            ("./missing", "missing"),
            (&store, "image store"),
            (&above, "image store"),
            (&format!("{store}/"), "image store"),
            (&path(&place.path("bin")), "this program"),
        ] {
            for mode in ["ro", "rw"] {
                if needle == "this program" && mode == "ro" {
                    continue;
                }
                let option = format!("{source}:/data:{mode}");
                let ran = refused(&place, &image, &["-v", &option], &["list", "/data"]);
                ran.one_error(&["error[input]", needle, "help:"]);
            }
        }
    }
}

#[test]
fn targets_that_belong_to_the_container_are_refused() {
    let place = Place::new(As::User);
    let image = image(&place);
    directory(&place, "source");
    let file = place.write("a-file", b"of the host");
    let on = |target: &str| format!("./source:{target}");
    let file_on = |target: &str| format!("{}:{target}", file.display());
    for (option, needle) in [
        (on("/"), "not a plain path"),
        (on("data"), "not a plain path"),
        (on("/data/../etc"), "not a plain path"),
        (on("/data//x"), "not a plain path"),
        (on("/da\u{1b}ta"), "not a plain path"),
        (on("/proc"), "/proc"),
        (on("/proc/sys"), "/proc"),
        (on("/dev/shm"), "/dev"),
        (on("/sys/x"), "/sys"),
        (on("/in/x"), "--input"),
        (on("/out"), "--output"),
        (on("/tmp"), "writable directory"),
        (on("/run"), "writable directory"),
        (on("/link"), "symbolic link"),
        (on("/link/x"), "symbolic link"),
        (on("/etc/setting"), "not a directory"),
        (on("/etc/setting/x"), "not a directory"),
        (file_on("/data"), "a directory, but the source is a file"),
    ] {
        refused(&place, &image, &["-v", &option], &["noop"]).one_error(&["error[input]", needle]);
    }
    refused(&place, &image, &["-v", "./source:/data", "--tmpfs", "/data"], &["noop"])
        .one_error(&["/data", "two mounts"]);
    for (option, value, needle) in [
        ("-v", "volume:/data", "named volumes"),
        ("-v", "./source:/data:z", "SELinux label"),
        ("-v", "./source:/data:U", "unsupported option"),
        ("-v", "./source", "SOURCE:TARGET"),
        ("--mount", "type=volume,source=a,target=/data", "unsupported type"),
        ("--mount", "type=bind,source=./with,comma,target=/data", "comma"),
        ("--mount", "type=bind,source=./so\nurce,target=/data", "control character"),
        ("--tmpfs", "/data:exec", "unsupported option"),
        ("--tmpfs", "/data:size=12", "minimum"),
    ] {
        misused(&place, &image, &[option, value], needle);
    }
}

#[test]
fn source_with_another_mount_below_it_is_refused() {
    if !is_root() {
        skip("source_with_another_mount_below_it_is_refused", "mounting needs root");
        return;
    }
    for user in both() {
        let place = Place::new(user);
        let image = image(&place);
        let source = directory(&place, "source");
        fs::create_dir(source.join("below")).unwrap();
        let command = place.command(&["runtime", "run", "-v", "./source:/data", &image, "--", "noop"]);
        let script = "mount -t tmpfs tmpfs source/below";
        let ran = Ran::from(place.inside(&["--mount"], script, &command).output().unwrap()).expect(125);
        ran.one_error(&["error[input]", "another mount below it", "source/below", "help:"]);
    }
}
