//! Group D: ways around the network namespace. What is tried from inside it is the probe's.

use crate::stage::{Stage, told};
use invarlock_tests::{As, Ran, demo, is_root, program, skip};
use serde_json::json;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

attack!(d2_sockets_in_a_checkpoint, sockets_in_a_checkpoint);
attack!(d3_no_network_namespace, no_network_namespace);
attack!(d3_no_loopback, no_loopback);

/// A socket, a fifo or a device in the place of a checkpoint's file is refused at once; beside the files it is not there inside.
fn sockets_in_a_checkpoint(user: As) {
    let stage = Stage::new(user);
    let place = &stage.place;
    let evaluate = |checkpoint: &str| {
        let args =
            ["evaluate", "--profile", "dev", "--quiet", "--baseline", checkpoint, "--subject", checkpoint];
        place.run(&[&args[..], &["--preset", demo("preset.yaml").to_str().unwrap()]].concat())
    };
    for (i, name) in ["config.json", "tokenizer.json", "model.safetensors"].into_iter().enumerate() {
        for kind in ["socket", "fifo", "device"] {
            let dir = format!("{kind}{i}");
            let path = place.copy_dir(&demo("baseline"), &dir).join(name);
            std::fs::remove_file(&path).unwrap();
            let listener = match kind {
                "socket" => Some(UnixListener::bind(&path).unwrap()),
                "fifo" => {
                    let mode = rustix::fs::Mode::from_raw_mode(0o666);
                    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
                    None
                }
                _ => {
                    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
                    None
                }
            };
            let start = Instant::now();
            let ran = evaluate(&dir);
            assert!([2, 3].contains(&ran.code), "{kind}: {ran:?}");
            ran.one_error(&[name]);
            assert!(start.elapsed() < Duration::from_secs(10), "{kind}: it waited");
            if let Some(listener) = listener {
                listener.set_nonblocking(true).unwrap();
                assert!(listener.accept().is_err(), "a connection arrived");
            }
        }
    }
    let dir = place.copy_dir(&demo("baseline"), "beside");
    let listener = UnixListener::bind(dir.join("socket")).unwrap();
    evaluate("beside").expect(0);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "a connection arrived");
    assert_eq!(place.names("work/reports/eval").len(), 2);
}

/// The run is refused, and what the program would have printed is not there.
#[track_caller]
fn never_ran(ran: Ran, row: &str) {
    let ran = ran.expect(125);
    ran.one_error(&[row]);
    assert!(!ran.out.contains("descriptors"), "the workload ran: {}", ran.out);
}

/// Where no network namespace may be made, there is no run, not one with the host's network.
fn no_network_namespace(user: As) {
    if !is_root() {
        return skip(
            "network::d3_no_network_namespace::started_by_a_user",
            "forbidding them for one process needs root",
        );
    }
    let stage = Stage::new(user);
    let image = stage.image("image", |_| {});
    told(&stage.run(&[], &image, &["where"]).expect(0));
    let ran = stage.place.without_namespaces("net", &["runtime", "run", &image, "--", "/workload", "where"]);
    never_ran(ran, "namespaces");
}

/// Where `lo` cannot be raised, there is no run.
fn no_loopback(user: As) {
    let stage = Stage::new(user);
    let image = stage.image("image", |_| {});
    let without = stage.place.path("bin/without");
    std::fs::copy(program("without"), &without).unwrap();
    let invarlock = stage.place.path("bin/invarlock");
    for missing in ["socket:1", "socket:97"] {
        let args = [
            missing,
            "--",
            invarlock.to_str().unwrap(),
            "runtime",
            "run",
            &image,
            "--",
            "/workload",
            "where",
        ];
        let mut command = stage.place.command_of(&without, &args);
        never_ran(Ran::from(command.output().unwrap()), "network");
    }
    assert_eq!(told(&stage.run(&[], &image, &["where"]).expect(0))["descriptors"], json!([0, 1, 2]));
}
