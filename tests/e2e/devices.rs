//! `--device`: devices that the Container Device Interface describes. The harmless devices of every machine stand for accelerators.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::accelerator::{DEVICE, NODES, specification, write_specification};
use invarlock_tests::layout::Layout;
use invarlock_tests::{As, Place, Ran, both, is_root, program, skip};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

fn image(place: &Place) -> String {
    let fill = |rootfs: &Path| {
        fs::copy(program("invarlock-workload"), rootfs.join("workload")).unwrap();
        fs::create_dir_all(rootfs.join("usr/lib")).unwrap();
    };
    let config =
        json!({"Entrypoint": ["/workload"], "Env": ["LD_LIBRARY_PATH=/opt/lib", "ACCELERATOR=of the image"]});
    Layout::of_tree(place, "image", fill).image("test", &config)
}

fn place(user: As) -> (Place, String) {
    let place = Place::new(user);
    let image = image(&place);
    write_specification(&place);
    (place, image)
}

fn run(place: &Place, options: &[&str], image: &str, command: &[&str]) -> Ran {
    let devices = ["--cdi-spec-dir", "cdi", "--device", DEVICE];
    place.run(&[&["runtime", "run", "--json"][..], &devices, options, &[image, "--"], command].concat())
}

fn record(ran: &Ran) -> Value {
    let line = ran.err.lines().find(|line| line.starts_with('{'));
    serde_json::from_str(line.unwrap_or_else(|| panic!("{ran:?}"))).unwrap()
}

#[test]
fn a_container_has_the_devices_and_files_of_the_specification() {
    for user in both() {
        let (place, image) = place(user);
        let ran = run(&place, &[], &image, &[&["stat"][..], &NODES].concat()).expect(0);
        let record = record(&ran);
        assert_eq!(record["loosened"], json!(["device"]));
        assert_eq!(record["seccomp"]["profile"], "general-devices");
        let devices = &record["devices"];
        assert_eq!(devices["devices"][0]["name"], DEVICE);
        assert_eq!(devices["devices"][0]["sha256"].as_str().unwrap().len(), 64);
        let numbers = |path: &str, source: &str, numbers: &str| json!({"path": path, "source": source, "numbers": numbers});
        let expected = json!([numbers(NODES[0], "/dev/null", "1:3"), numbers(NODES[1], "/dev/full", "1:7")]);
        assert_eq!(devices["nodes"], expected);
        assert_eq!(
            devices["files"],
            json!(["/usr/lib/libaccelerator.so.1", "/usr/lib/libaccelerator.so.1.2"])
        );
        assert_eq!(
            (&devices["left_out"], &devices["driver"]),
            (&json!(["/run/accelerator/socket"]), &Value::Null)
        );
        // What the kernel shows from inside.
        let observed = &record["observations"]["devices"]["value"];
        assert_eq!(
            (&observed["accelerator0"], &observed["accelerators/control"]),
            (&json!("1:3"), &json!("1:7"))
        );
        let mounts = record["observations"]["mounts"]["value"].as_array().unwrap();
        for node in NODES {
            let mount = mounts.iter().find(|mount| mount["target"] == node).unwrap();
            let options: Vec<&str> = mount["options"].as_str().unwrap().split(',').collect();
            assert!(["ro", "nosuid", "noexec"].iter().all(|option| options.contains(option)), "{mount}");
        }
        // They can be used: the null device swallows what is written.
        let ran = run(&place, &[], &image, &["open-write", NODES[0]]).expect(0);
        assert_eq!(
            ran.out,
            run(&place, &[], &image, &["open-write", "/dev/null"])
                .expect(0)
                .out
                .replace("/dev/null", NODES[0])
        );
        let read = run(&place, &[], &image, &["cat", "/usr/lib/libaccelerator.so.1"]).expect(0);
        assert_eq!(read.out, "of the driver");
    }
}

#[test]
fn variables_of_devices_stand_between_those_of_the_image_and_the_options() {
    let (place, image) = place(As::User);
    let variables = |options: &[&str]| run(&place, options, &image, &["ids"]).expect(0).json()["env"].clone();
    let usual = variables(&[]);
    assert_eq!(
        (&usual["ACCELERATOR"], &usual["LD_LIBRARY_PATH"]),
        (&json!("0"), &json!("/opt/lib:/usr/lib"))
    );
    assert_eq!(variables(&["-e", "ACCELERATOR=mine"])["ACCELERATOR"], "mine");
}

/// A device opens a way to the host: the node itself cannot be changed, and no other one can be made.
#[test]
fn the_node_of_a_device_cannot_be_changed() {
    for user in both() {
        let (place, image) = place(user);
        let before = fs::metadata("/dev/full").unwrap();
        let ran = run(&place, &[], &image, &["chmod", "/dev/accelerators/control"]).expect(0).json();
        assert!(
            [json!(libc::EROFS), json!(libc::EPERM)].contains(&ran["/dev/accelerators/control"]),
            "{ran}"
        );
        let ran = run(&place, &[], &image, &["create", "/dev/other"]).expect(0).json();
        assert_eq!(ran, json!({"/dev/other": libc::EROFS}));
        let after = fs::metadata("/dev/full").unwrap();
        assert!(after.file_type().is_char_device());
        assert_eq!((before.mode(), before.uid(), before.ctime()), (after.mode(), after.uid(), after.ctime()));
    }
}

#[test]
fn what_a_container_cannot_have_is_refused() {
    let (place, image) = place(As::User);
    let refused = |member: &str, value: Value, needles: &[&str]| {
        let mut specification = specification(&place);
        specification["devices"][0]["containerEdits"][member] = value;
        place.write("cdi/accelerator.json", specification.to_string().as_bytes());
        let args = ["runtime", "run", "--cdi-spec-dir", "cdi", "--device", DEVICE, &image, "--", "noop"];
        place.run(&args).expect(125).one_error(needles);
    };
    refused("deviceNodes", json!([{"path": "/dev/null"}]), &["/dev/null", "no place for a device"]);
    refused(
        "deviceNodes",
        json!([{"path": "/etc/x", "hostPath": "/dev/null"}]),
        &["/etc/x", "no place for a device"],
    );
    refused("deviceNodes", json!([{"path": "/dev/x", "hostPath": "/dev/kmsg"}]), &["/dev/kmsg", "memory"]);
    refused("deviceNodes", json!([{"path": "/dev/x", "hostPath": "/dev/tty"}]), &["/dev/tty", "terminal"]);
    refused(
        "mounts",
        json!([{"hostPath": "/", "containerPath": "/host"}]),
        &["mount source /", "root of this machine"],
    );
    refused(
        "mounts",
        json!([{"hostPath": "/no/such", "containerPath": "/x"}]),
        &["/no/such", "nvidia-ctk cdi generate"],
    );
    refused(
        "hooks",
        json!([{"hookName": "prestart", "path": "/bin/sh", "args": ["sh", "-c", "id"]}]),
        &["/bin/sh", "no program of the host is run"],
    );
    refused("netDevices", json!([{"hostInterfaceName": "eth0", "name": "eth0"}]), &["netDevices"]);
    let valid = specification(&place);
    place.write("cdi/accelerator.json", valid.to_string().as_bytes());
    place
        .run(&["runtime", "run", "--cdi-spec-dir", "cdi", "--device", "a.b/c=d", &image, "--", "noop"])
        .expect(125)
        .one_error(&["a.b/c=d is in no specification", "invarlock.test/accelerator=0"]);
    let path = place.run(&["runtime", "run", "--device", "/dev/kvm", &image, "--", "noop"]).expect(125);
    assert!(path.err.contains("VENDOR/CLASS=NAME"), "{path:?}");
}

/// With a real GPU: its files are there, and its driver is recorded.
#[test]
fn a_gpu_of_this_machine_is_seen_inside() {
    if !Path::new("/dev/nvidiactl").exists() || !Path::new("/etc/cdi").is_dir() {
        return skip(
            "a_gpu_of_this_machine_is_seen_inside",
            "needs a GPU of NVIDIA and its specification in /etc/cdi",
        );
    }
    let user = if is_root() { As::Caller } else { As::User };
    let place = Place::new(user);
    let image = image(&place);
    let args = [
        "runtime",
        "run",
        "--json",
        "--device",
        "nvidia.com/gpu=all",
        &image,
        "--",
        "open-write",
        "/dev/nvidiactl",
    ];
    let record = record(&place.run(&args).expect(0));
    assert!(record["devices"]["driver"].is_string(), "{record}");
}
