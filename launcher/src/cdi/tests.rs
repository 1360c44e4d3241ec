use super::hooks::{Effect, effects};
use super::resolve;
use super::spec::{Hook, Spec};
use crate::device_name::DeviceName;
use std::path::{Path, PathBuf};

fn hook(path: &str, args: &[&str]) -> Hook {
    Hook { path: path.to_owned(), args: args.iter().map(|arg| (*arg).to_owned()).collect() }
}

#[test]
fn hooks_of_the_toolkit_are_understood_and_not_run() {
    let link = |text: &str, at: &str| Effect::Link { text: text.into(), at: at.into() };
    let links =
        ["nvidia-cdi-hook", "create-symlinks", "--link", "libcuda.so.1::/usr/lib/libcuda.so", "--link=a::/b"];
    let expected = vec![link("libcuda.so.1", "/usr/lib/libcuda.so"), link("a", "/b")];
    assert_eq!(effects(&hook("/usr/bin/nvidia-cdi-hook", &links)).expect("links"), expected);
    let cache = [
        "nvidia-ctk",
        "hook",
        "update-ldcache",
        "--ldconfig-path",
        "/sbin/ldconfig",
        "--folder",
        "/usr/lib64",
    ];
    assert_eq!(
        effects(&hook("/usr/bin/nvidia-ctk", &cache)).expect("folder"),
        [Effect::Libraries("/usr/lib64".into())]
    );
    let chmod = ["nvidia-cdi-hook", "chmod", "--mode", "755", "--path", "/dev/dri"];
    assert_eq!(effects(&hook("/usr/bin/nvidia-cdi-hook", &chmod)).expect("none"), []);
    for (path, args) in [
        ("/usr/bin/nvidia-cdi-hook", &["nvidia-cdi-hook", "create-symlinks", "--link", "x"][..]),
        ("/usr/bin/nvidia-cdi-hook", &["nvidia-cdi-hook", "create-symlinks", "--bogus", "x"]),
        ("/usr/bin/nvidia-cdi-hook", &["nvidia-cdi-hook", "other"]),
        ("/usr/bin/nvidia-cdi-hook", &[]),
        ("/bin/sh", &["sh", "update-ldcache", "--folder", "/"]),
    ] {
        assert!(effects(&hook(path, args)).is_err(), "{path} {args:?}");
    }
}

#[test]
fn a_specification_is_json_or_yaml() {
    let yaml = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\ncontainerEdits:\n  env: [A=b]\n";
    let json = r#"{"cdiVersion": "1.1.0", "kind": "nvidia.com/gpu", "annotations": {}, "devices": [
        {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0", "major": 195, "permissions": "rw"}]}}]}"#;
    for text in [yaml, json] {
        let spec = Spec::parse(Path::new("x"), text.as_bytes()).expect("a specification");
        assert_eq!((spec.kind.as_str(), spec.devices.len()), ("nvidia.com/gpu", 1));
    }
    for (bad, what) in [
        ("{}", "cdiVersion"),
        ("cdiVersion: 2.0.0\nkind: a/b\ndevices: []\n", "not supported"),
        ("cdiVersion: 1.1.0\nkind: a/b\ndevices: []\ncontainerEdits: {netDevices: []}\n", "netDevices"),
        (
            "cdiVersion: 1.1.0\nkind: a/b\ndevices: []\ncontainerEdits: {additionalGids: [1]}\n",
            "additionalGids",
        ),
    ] {
        let error = Spec::parse(Path::new("x"), bad.as_bytes()).expect_err(bad).to_string();
        assert!(error.contains(what), "{error}");
    }
}

/// A directory with these files.
fn specifications(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).expect("a file");
    }
    directory
}

fn found(name: &str, directories: &[&tempfile::TempDir]) -> Result<(Vec<String>, Vec<String>), String> {
    let names = [DeviceName::parse(name).expect("a name")];
    let directories: Vec<PathBuf> = directories.iter().map(|directory| directory.path().to_owned()).collect();
    let devices = resolve(&names, &directories).map_err(|error| error.to_string())?;
    let output = serde_json::to_value(devices.record.as_ref()).expect("JSON");
    let texts = |member: &str| {
        let list = output[member].as_array().expect("a list").iter();
        list.map(|text| text.as_str().expect("text").to_owned()).collect()
    };
    Ok((texts("files"), texts("left_out")))
}

#[test]
fn links_and_names_of_libraries_are_further_mounts() {
    // This test program is an ELF file without a name in it; any file will do for links.
    let library = specifications(&[("libx.so.1.2", "no ELF file")]);
    let host = library.path().join("libx.so.1.2").display().to_string();
    let spec = format!(
        r#"{{"cdiVersion": "0.6.0", "kind": "a.b/c", "devices": [{{"name": "all", "containerEdits": {{
            "mounts": [{{"hostPath": "{host}", "containerPath": "/usr/lib/libx.so.1.2", "options": ["ro"]}}],
            "hooks": [{{"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook",
                "create-symlinks", "--link", "libx.so.1::/usr/lib/libx.so", "--link", "libx.so.1.2::/usr/lib/libx.so.1",
                "--link", "../libx.so.1.2::/usr/lib/gbm/x.so", "--link", "gone::/usr/lib/y"]}}]}}}}]}}"#
    );
    let directory = specifications(&[("x.json", &spec), ("notes.txt", "not a specification")]);
    let (files, left_out) = found("a.b/c=all", &[&directory]).expect("devices");
    let usr = ["/usr/lib/gbm/x.so", "/usr/lib/libx.so", "/usr/lib/libx.so.1", "/usr/lib/libx.so.1.2"];
    assert_eq!((files, left_out), (usr.map(str::to_owned).to_vec(), vec!["/usr/lib/y".to_owned()]));
}

#[test]
fn the_last_directory_precedes_and_two_files_of_one_contradict() {
    let spec = |file: &str| {
        format!(
            "cdiVersion: 0.6.0\nkind: a.b/c\ndevices:\n- name: x\n  containerEdits: {{mounts: [{{hostPath: {file}, containerPath: /x}}]}}\n"
        )
    };
    let (first, last) = (spec("/etc/hostname"), spec("/nonexistent"));
    let (one, other) = (specifications(&[("a.yaml", &first)]), specifications(&[("b.yaml", &last)]));
    assert_eq!(found("a.b/c=x", &[&other, &one]).map(|(files, _)| files), Ok(vec!["/x".to_owned()]));
    assert!(found("a.b/c=x", &[&one, &other]).is_err_and(|why| why.contains("/nonexistent")));
    let both = specifications(&[("a.yaml", &first), ("b.yaml", &first)]);
    assert!(found("a.b/c=x", &[&both]).is_err_and(|why| why.contains("again in")));
    assert!(found("a.b/c=y", &[&both]).is_err_and(|why| why.contains("a.b/c=y is in no specification")));
}

#[test]
fn memory_terminals_and_block_devices_are_refused() {
    for (node, why) in [
        ("{path: /dev/accel0, hostPath: /dev/kmsg}", "memory"),
        ("{path: /dev/accel0, hostPath: /dev/tty}", "terminal"),
        ("{path: /dev/accel0, hostPath: /etc/hostname}", "not a character device"),
        ("{path: /dev/accel0, type: b}", "not a character device"),
        ("{path: /dev/accel0, hostPath: /dev/nonexistent}", "nonexistent"),
    ] {
        let spec = format!(
            "cdiVersion: 0.6.0\nkind: a.b/c\ndevices:\n- name: x\n  containerEdits: {{deviceNodes: [{node}]}}\n"
        );
        let directory = specifications(&[("a.yaml", &spec)]);
        let error = found("a.b/c=x", &[&directory]).expect_err(node);
        assert!(error.contains(why), "{error}");
    }
}
