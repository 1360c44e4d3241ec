//! `runtime image build` from directories and archives, as root and as an ordinary user.
#![allow(clippy::unwrap_used, reason = "tests")]

use invarlock_tests::{As, Place, Ran, both, program};
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Creates a root directory with every kind of file that an image can contain. `creation_order` is
/// the order in which its three parts are created.
fn root_with_all_file_types(place: &Place, name: &str, creation_order: [usize; 3]) -> PathBuf {
    let root = place.work(name);
    std::fs::create_dir(&root).unwrap();
    let long = format!(
        "{0}/{0}",
        "a-name-of-which-two-do-not-fit-into-a-header-of-an-archive-so-that-a-record-is-needed"
    );
    for part in creation_order {
        match part {
            0 => {
                std::fs::create_dir_all(root.join("bin")).unwrap();
                std::fs::copy(program("invarlock-evaluator"), root.join("bin/program")).unwrap();
                std::fs::hard_link(root.join("bin/program"), root.join("bin/same")).unwrap();
                symlink("../bin/program", root.join("bin/link")).unwrap();
            }
            1 => {
                std::fs::create_dir_all(root.join(&long)).unwrap();
                std::fs::write(root.join(&long).join("file ö"), "long\n").unwrap();
                symlink(&long, root.join("to-long")).unwrap();
            }
            _ => {
                std::fs::create_dir_all(root.join("empty/deeper")).unwrap();
                std::fs::write(root.join("empty-file"), "").unwrap();
                std::fs::set_permissions(root.join("empty-file"), PermissionsExt::from_mode(0o640)).unwrap();
            }
        }
    }
    give_all(place, &root);
    // A change of the owner clears the set-uid and set-gid bits, so they are set afterwards.
    std::fs::set_permissions(root.join("bin/program"), PermissionsExt::from_mode(0o6755)).unwrap();
    root
}

/// Makes the user the owner of everything below `path`.
fn give_all(place: &Place, path: &Path) {
    place.give(path);
    if path.symlink_metadata().unwrap().is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| give_all(place, &entry.unwrap().path()));
    }
}

fn build(place: &Place, args: &[&str]) -> Ran {
    place.run(&[&["runtime", "image", "build", "--json"], args].concat())
}

fn manifest_digest(ran: Ran) -> Value {
    ran.expect(0).json()["manifest_digest"].clone()
}

fn inspect(place: &Place, image: &str) -> Value {
    place.run(&["runtime", "image", "inspect", image]).expect(0).json()
}

#[test]
fn image_of_a_directory_is_reproducible_and_runs() {
    let mut digests = Vec::new();
    for user in both() {
        let place = Place::new(user);
        let flags = ["--label", "b=2", "--label", "a=1", "--env", "X=1", "--env", "X=2"];
        let flags = [&flags[..], &["--cmd", r#"["/bin/link", "--self-test"]"#, "--workdir", "/"]].concat();
        for (name, creation_order) in [("one", [0, 1, 2]), ("other-place", [2, 1, 0])] {
            let root = root_with_all_file_types(&place, name, creation_order);
            let from = ["--from", root.to_str().unwrap(), "--name", "own:1"];
            let built = build(&place, &[&from[..], &flags].concat()).expect(0).json();
            assert_eq!(built["left_out"]["set_id"], 1, "{user:?}: {built}");
            digests.push(built["manifest_digest"].clone());
        }
        let config = &inspect(&place, "own:1")["config"];
        assert_eq!(config["config"]["Labels"], serde_json::json!({"a": "1", "b": "2"}));
        assert_eq!(config["config"]["Env"], serde_json::json!(["X=2"]));
        assert!(config["created"].is_null(), "{config}");
        place.run(&["runtime", "run", "own:1"]).expect(0);
        place.run(&["runtime", "run", "own:1", "--", "/bin/same", "--self-test"]).expect(0);
        place.run(&["runtime", "image", "verify"]).expect(0);
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn gnu_tar_extracts_the_source_directory_from_an_exported_image() {
    let place = Place::new(As::User);
    let root = root_with_all_file_types(&place, "root", [0, 1, 2]);
    build(&place, &["--from", root.to_str().unwrap(), "--name", "own:1"]).expect(0);
    place.run(&["runtime", "image", "export", "own:1", "docker-archive:saved.tar"]).expect(0);
    let (archive_dir, layer_dir) = (place.path("saved"), place.path("out"));
    for dir in [&archive_dir, &layer_dir] {
        std::fs::create_dir(dir).unwrap();
    }
    let extract = |dir: &Path, archive: &Path| {
        let ran = Command::new("tar").arg("-C").arg(dir).arg("-xpf").arg(archive).output().unwrap();
        assert!(ran.status.success() && ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
    };
    extract(&archive_dir, &place.work("saved.tar"));
    let files = std::fs::read_dir(&archive_dir).unwrap().map(|entry| entry.unwrap().path());
    let layer = files
        .filter(|file| file.extension() == Some(OsStr::new("tar")))
        .max_by_key(|file| file.metadata().unwrap().len());
    extract(&layer_dir, &layer.unwrap());
    let diff =
        Command::new("diff").args(["-r", "--no-dereference"]).args([&root, &layer_dir]).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    let mode = |root: &Path, name: &str| root.join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&layer_dir, "bin/program"), mode(&layer_dir, "empty-file")), (0o755, 0o640));
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&layer_dir.join(name).metadata().unwrap());
    assert_eq!(inode("bin/program"), inode("bin/same"), "a hard link became a copy");
}

#[test]
fn source_date_epoch_sets_the_time_of_an_image() {
    let place = Place::new(As::User);
    let root = root_with_all_file_types(&place, "root", [0, 1, 2]);
    let build_at = |time: &str, args: &[&str]| {
        let mut command = place.command(&["runtime", "image", "build", "--json"]);
        Ran::from(command.args(args).env("SOURCE_DATE_EPOCH", time).output().unwrap())
    };
    let own = ["--from", root.to_str().unwrap(), "--name", "own:1"];
    let without_time = manifest_digest(build(&place, &own));
    let with_time = manifest_digest(build_at("1700000000", &own));
    assert_ne!(without_time, with_time);
    assert_eq!(inspect(&place, "own:1")["config"]["created"], "2023-11-14T22:13:20Z");
    assert_eq!(manifest_digest(build_at("1700000000", &own)), with_time);
    // The default image depends only on the evaluator.
    assert_eq!(manifest_digest(build_at("1700000000", &[])), manifest_digest(build(&place, &[])));
    for invalid in ["", " 1", "+1", "-1", "1.5", "0x10", "yesterday", "8589934592", "99999999999999999999999"]
    {
        for args in [&own[..], &[]] {
            assert_eq!(build_at(invalid, args).expect(2).json()["error"]["kind"], "input", "{invalid:?}");
        }
    }
}

#[test]
fn layers_add_and_remove_files() {
    for user in both() {
        let place = Place::new(user);
        let (root, top) = (root_with_all_file_types(&place, "root", [0, 1, 2]), place.work("top"));
        std::fs::create_dir(&top).unwrap();
        std::fs::write(top.join("added"), "new\n").unwrap();
        std::fs::write(top.join(".wh.empty-file"), "").unwrap();
        give_all(&place, &top);
        let (root, top) = (root.to_str().unwrap(), top.to_str().unwrap());
        let in_one_build =
            manifest_digest(build(&place, &["--from", root, "--layer", top, "--name", "whole:1"]));
        build(&place, &["--from", root, "--name", "base:1"]).expect(0);
        let on_base =
            manifest_digest(build(&place, &["--base", "base:1", "--layer", top, "--name", "stacked:1"]));
        assert_eq!(in_one_build, on_base, "{user:?}");
        place.run(&["runtime", "run", "stacked:1", "--", "/bin/program", "--self-test"]).expect(0);
        // Adds a layer from an archive to the default image, uncompressed and compressed.
        for (flag, name) in [("-cf", "top.tar"), ("-czf", "top.tar.gz")] {
            let archive = place.work(name);
            let status =
                Command::new("tar").arg(flag).arg(&archive).args(["-C", top, "added"]).status().unwrap();
            assert!(status.success());
            place.give(&archive);
            build(&place, &["--layer", archive.to_str().unwrap(), "--name", "more:1"]).expect(0);
            place.run(&["runtime", "run", "more:1", "--", "--self-test"]).expect(0);
            assert_eq!(
                inspect(&place, "more:1")["config"]["config"]["Labels"]["org.invarlock.speaks"],
                "measure"
            );
        }
        place.run(&["runtime", "image", "verify"]).expect(0);
    }
}

#[test]
fn image_of_100_layers_runs() {
    for user in both() {
        let place = Place::new(user);
        let root = root_with_all_file_types(&place, "root", [0, 1, 2]);
        let mut args = vec!["--from".to_owned(), root.to_str().unwrap().to_owned()];
        for i in 1..100 {
            let layer = place.work(&format!("layer-{i}"));
            std::fs::create_dir_all(layer.join("etc")).unwrap();
            std::fs::write(layer.join("etc/number"), i.to_string()).unwrap();
            give_all(&place, &layer);
            args.extend(["--layer".to_owned(), layer.to_str().unwrap().to_owned()]);
        }
        args.extend(["--name".to_owned(), "hundred:1".to_owned()]);
        build(&place, &args.iter().map(String::as_str).collect::<Vec<_>>()).expect(0);
        assert_eq!(inspect(&place, "hundred:1")["layers"].as_array().unwrap().len(), 100);
        place.run(&["runtime", "run", "hundred:1", "--", "/bin/link", "--self-test"]).expect(0);
    }
}

#[test]
fn rejects_unsupported_files_by_path_and_invalid_options() {
    let place = Place::new(As::User);
    let expect_error = |message: &str, code: i32, create_files: &dyn Fn(&Path)| {
        let root = place.work("bad");
        std::fs::create_dir(&root).unwrap();
        create_files(&root);
        give_all(&place, &root);
        let ran = build(&place, &["--from", root.to_str().unwrap(), "--name", "bad:1"]).expect(code);
        assert!(ran.out.contains(message), "{message}: {}", ran.out);
        std::fs::remove_dir_all(&root).unwrap();
    };
    let create_fifo = |root: &Path| {
        assert!(Command::new("mkfifo").arg(root.join("pipe")).status().unwrap().success());
    };
    expect_error("/pipe is a device, fifo or socket", 2, &create_fifo);
    expect_error("/s is a device, fifo or socket", 2, &|root| {
        _ = std::os::unix::net::UnixListener::bind(root.join("s")).unwrap()
    });
    expect_error("/.wh.gone", 2, &|root| std::fs::write(root.join(".wh.gone"), "").unwrap());
    expect_error("not UTF-8", 3, &|root| std::fs::write(root.join(OsStr::from_bytes(b"n\xff")), "").unwrap());
    expect_error("more than 100 nested directories", 2, &|root| {
        std::fs::create_dir_all(root.join("d/".repeat(101))).unwrap()
    });
    let root = place.work("pipes");
    std::fs::create_dir(&root).unwrap();
    create_fifo(&root);
    give_all(&place, &root);
    let root = root.to_str().unwrap();
    let built = build(&place, &["--from", root, "--name", "ok:1", "--drop-devices"]).expect(0).json();
    assert_eq!(built["left_out"]["devices"], 1);
    let own = ["--from", root, "--drop-devices"];
    for invalid in [
        &["--name", "no tag:1"][..],
        &["--name", "a:1", "--workdir", "relative"],
        &["--name", "a:1", "--label", "nothing"],
        &["--name", "a:1", "--entrypoint", "sh -c 'x'"],
        &["--name", "a:1", "--entrypoint", "[]"],
        &["--name", "a:1", "--base", "ok:1"],
        &["--name", "a:1", "--layer", "not-there"],
        &[],
    ] {
        build(&place, &[&own[..], invalid].concat()).expect(2);
    }
    let listed = place.run(&["runtime", "image", "ls", "--json"]).expect(0).json();
    assert_eq!(listed["images"].as_array().unwrap().len(), 1, "{listed}");
}

#[test]
fn rejects_file_that_changes_during_the_build() {
    let place = Place::new(As::Caller);
    let root = place.work("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("grows"), vec![7; 64 << 20]).unwrap();
    let build_ended = std::sync::atomic::AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = std::fs::OpenOptions::new().append(true).open(root.join("grows")).unwrap();
            while !build_ended.load(std::sync::atomic::Ordering::Relaxed) {
                std::io::Write::write_all(&mut file, b"x").unwrap();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let ran = build(&place, &["--from", root.to_str().unwrap(), "--name", "own:1"]);
        build_ended.store(true, std::sync::atomic::Ordering::Relaxed);
        ran
    });
    let ran = ran.expect(3);
    assert_eq!(ran.json()["error"]["kind"], "integrity");
    assert!(ran.out.contains("/grows changed while it was being read"), "{}", ran.out);
    assert_eq!(
        std::fs::read_dir(place.path("store/blobs/sha256")).unwrap().count(),
        0,
        "a part of the failed build is left in the store"
    );
}

#[test]
fn sbom_is_attached_to_its_image_not_listed_and_freed_with_it() {
    for user in both() {
        let place = Place::new(user);
        let root = place.work("root");
        for (name, text) in [
            (
                "var/lib/dpkg/status",
                "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.41-12+deb13u1\n",
            ),
            (
                "opt/lib/tokenizers-0.23.3.dist-info/METADATA",
                "Name: tokenizers\nVersion: 0.23.3\n\nVersion: 9\n",
            ),
        ] {
            std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            std::fs::write(root.join(name), text).unwrap();
        }
        give_all(&place, &root);
        let own = ["--from", root.to_str().unwrap(), "--name", "own:1"];
        let image = manifest_digest(build(&place, &own));
        let read_sbom = || place.run(&["runtime", "image", "sbom", "own:1"]).expect(0).json();
        let sbom = read_sbom();
        assert_eq!((&sbom["bomFormat"], &sbom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
        assert_eq!(sbom["metadata"]["component"]["version"], image);
        let purls: Vec<&str> = sbom["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| component["purl"].as_str().unwrap())
            .collect();
        assert_eq!(
            purls,
            ["pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64", "pkg:pypi/tokenizers@0.23.3"]
        );
        assert_eq!(manifest_digest(build(&place, &own)), image);
        assert_eq!(read_sbom(), sbom, "a second build of the image has another SBOM");
        // The layout contains the SBOM as an OCI artifact that refers to the image.
        let index = invarlock_tests::read_json(&place.path("store/index.json"));
        let artifacts = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|manifest| manifest["artifactType"].is_string());
        let digests: Vec<&str> = artifacts.map(|artifact| artifact["digest"].as_str().unwrap()).collect();
        let [artifact] = digests[..] else { panic!("{index}") };
        let blob = place.path("store/blobs/sha256").join(artifact.trim_start_matches("sha256:"));
        assert_eq!(invarlock_tests::read_json(&blob)["subject"]["digest"], image);
        let listed = place.run(&["runtime", "image", "ls", "--json"]).expect(0).json();
        assert_eq!(listed["images"].as_array().unwrap().len(), 1);
        place.run(&["runtime", "image", "verify"]).expect(0);
        place.run(&["runtime", "image", "gc"]).expect(0);
        assert_eq!(read_sbom(), sbom, "the collection removed the SBOM");
        // An image with a layer from an archive of unknown content has no SBOM.
        let archive = place.work("more.tar");
        assert!(
            Command::new("tar")
                .arg("-cf")
                .arg(&archive)
                .arg("-C")
                .arg(&root)
                .arg("opt")
                .status()
                .unwrap()
                .success()
        );
        place.give(&archive);
        build(&place, &["--base", "own:1", "--layer", archive.to_str().unwrap(), "--name", "unknown:1"])
            .expect(0);
        let ran = place.run(&["runtime", "image", "sbom", "unknown:1"]).expect(3);
        assert!(ran.err.contains("has no SBOM"), "{}", ran.err);
        for name in ["own:1", "unknown:1"] {
            place.run(&["runtime", "image", "rm", name]).expect(0);
        }
        place.run(&["runtime", "image", "gc"]).expect(0);
        assert_eq!(std::fs::read_dir(place.path("store/blobs/sha256")).unwrap().count(), 0, "{user:?}");
    }
}

#[test]
fn sbom_of_the_default_image_lists_the_crates_of_the_evaluator() {
    for user in both() {
        let place = Place::new(user);
        let image = manifest_digest(build(&place, &[]));
        let sbom = place.run(&["runtime", "image", "sbom"]).expect(0).json();
        assert_eq!(sbom["metadata"]["component"]["version"], image);
        let components = sbom["components"].as_array().unwrap();
        let names: Vec<&str> =
            components.iter().map(|component| component["name"].as_str().unwrap()).collect();
        for linked in [
            "invarlock-evaluator",
            "invarlock-evidence",
            "tokenizers",
            "safetensors",
            "gemm-f32",
            "serde_json",
        ] {
            assert!(names.contains(&linked), "{user:?}: {linked} is not in {names:?}");
        }
        // Crates of the tests, the build, the macros and the launcher.
        for other in ["proptest", "auditable-serde", "serde_derive", "libcontainer", "clap_derive"] {
            assert!(!names.contains(&other), "{user:?}: {other} is in the program");
        }
        // Every component is in the lock file, and every dependency is a component.
        let lock = std::fs::read_to_string(invarlock_tests::root().join("Cargo.lock")).unwrap();
        for component in components {
            let (name, version) =
                (component["name"].as_str().unwrap(), component["version"].as_str().unwrap());
            assert!(
                lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")),
                "{name} {version}"
            );
            assert_eq!(component["purl"], format!("pkg:cargo/{name}@{}", version.replace('+', "%2B")));
        }
        let refs: Vec<&Value> = components.iter().map(|component| &component["bom-ref"]).collect();
        let dependencies = sbom["dependencies"].as_array().unwrap().iter();
        let mut required = dependencies.flat_map(|entry| entry["dependsOn"].as_array().unwrap());
        assert!(required.all(|reference| refs.contains(&reference)));
        // If the SBOM is removed, a second build creates the same image and the same SBOM.
        let index = place.path("store/index.json");
        let mut without_sbom = invarlock_tests::read_json(&index);
        let manifests = without_sbom["manifests"].as_array_mut().unwrap();
        manifests.retain(|manifest| manifest["artifactType"].is_null());
        std::fs::write(&index, without_sbom.to_string()).unwrap();
        place.run(&["runtime", "image", "sbom"]).expect(3);
        assert_eq!(manifest_digest(build(&place, &[])), image);
        assert_eq!(place.run(&["runtime", "image", "sbom"]).expect(0).json(), sbom);
        // A program without embedded dependency data still makes an image, but without an SBOM.
        place.hold("invarlock-workload");
        place.run(&["runtime", "image", "sbom"]).expect(3);
    }
}
