//! Group D: ways around the network namespace. The probe covers attacks from inside the namespace.

use crate::stage::{Stage, printed_json};
use invarlock_tests::{As, Ran, demo, is_root, program, skip};
use serde_json::json;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

attack!(d2_sockets_in_a_checkpoint, sockets_in_a_checkpoint);
attack!(d3_no_network_namespace, no_network_namespace);
attack!(d3_no_loopback, no_loopback);

/// A socket, a FIFO or a device that replaces a file of a checkpoint is rejected at once. A socket
/// next to the files is not mounted.
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
            assert!(start.elapsed() < Duration::from_secs(10), "{kind}: the evaluation waited");
            if let Some(listener) = listener {
                listener.set_nonblocking(true).unwrap();
                assert!(listener.accept().is_err(), "a process connected to the socket");
            }
        }
    }
    let dir = place.copy_dir(&demo("baseline"), "beside");
    let listener = UnixListener::bind(dir.join("socket")).unwrap();
    evaluate("beside").expect(0);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "a process connected to the socket");
    assert_eq!(place.names("work/reports/eval").len(), 4);
}

/// Fails the test unless the run is refused because of `control` and the workload printed nothing.
#[track_caller]
fn assert_refused(ran: Ran, control: &str) {
    let ran = ran.expect(125);
    ran.one_error(&[control]);
    assert!(!ran.out.contains("descriptors"), "the workload ran: {}", ran.out);
}

/// If no network namespace can be created, the run is refused. It does not get the host's network.
fn no_network_namespace(user: As) {
    if !is_root() {
        return skip(
            "network::d3_no_network_namespace::started_by_a_user",
            "forbidding network namespaces for one process needs root",
        );
    }
    let stage = Stage::new(user);
    let image = stage.image("image", |_| {});
    printed_json(&stage.run(&[], &image, &["where"]).expect(0));
    let ran = stage.place.without_namespaces("net", &["runtime", "run", &image, "--", "/workload", "where"]);
    assert_refused(ran, "namespaces");
}

/// If `lo` cannot be set up, the run is refused.
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
        assert_refused(Ran::from(command.output().unwrap()), "network");
    }
    assert_eq!(printed_json(&stage.run(&[], &image, &["where"]).expect(0))["descriptors"], json!([0, 1, 2]));
}
