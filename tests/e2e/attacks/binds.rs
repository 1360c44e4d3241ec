//! Group B: files and directories of the host that a run mounts.

use crate::stage::{Stage, race};
use invarlock_tests::{As, Ran};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

attack!(b8_bind_source_swapped, bind_source_swapped);

/// The source and the content of the file at `/data` that a run reports.
fn seen(ran: &Ran) -> (String, String) {
    let record = ran.err.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{ran:?}"));
    let record: Value = serde_json::from_str(record).unwrap();
    (record["mounts"][0]["source"].as_str().unwrap().to_owned(), ran.out.clone())
}

/// The source of a bind is exchanged with a link to another directory while runs start. A run sees
/// the directory that was opened and checked, which it reports, or fails. A directory that would be
/// refused is never seen.
fn bind_source_swapped(user: As) {
    let stage = Stage::new(user);
    let directory = |name: &str, content: &str| -> PathBuf {
        let path = stage.place.work(name);
        fs::create_dir(&path).unwrap();
        stage.place.give(&path);
        stage.place.write(&format!("{name}/file"), content.as_bytes());
        path
    };
    let link = |name: &str, to: PathBuf| -> PathBuf {
        let path = stage.place.work(name);
        symlink(to, &path).unwrap();
        path
    };
    let (source, other) = (directory("source", "of the source"), directory("other", "of the other"));
    let store = stage.place.path("store/trees");
    let to_other = link("to-other", other.clone());
    let to_store = link("to-store", store.clone());
    let image = stage.image("bind", |rootfs| fs::create_dir(rootfs.join("data")).unwrap());
    let run = |from: &PathBuf| {
        let bind = format!("{}:/data:ro", from.display());
        stage.run(&["--json", "-v", &bind], &image, &["cat", "/data/file"])
    };
    run(&source).expect(0);
    // In the store, the file would have the content that no run may see.
    fs::write(store.join("file"), "of the store").unwrap();
    run(&source).expect(0);
    let refused = run(&to_store).expect(125);
    assert!(refused.err.contains("image store"), "{refused:?}");
    let pairs = [(source.clone(), to_other.clone()), (source.clone(), to_store.clone())];
    race("bind sources", user, &pairs, || {
        let mut refused = 0;
        for _ in 0..4 {
            let ran = run(&source);
            if ran.code != 0 {
                assert_eq!((ran.code, ran.out.as_str()), (125, ""), "{ran:?}");
                refused += 1;
                continue;
            }
            let (path, content) = seen(&ran);
            // The directory has one of two names, and the other one has always the same.
            let is_other = path == other.to_str().unwrap();
            let is_source = [&source, &to_other, &to_store].iter().any(|name| path == name.to_str().unwrap());
            let expected = if is_other { "of the other" } else { "of the source" };
            assert!((is_other || is_source) && content == expected, "{path} was checked: {ran:?}");
        }
        (4, refused)
    });
    fs::remove_file(store.join("file")).unwrap();
    assert_eq!(seen(&run(&source)).1, "of the source");
    stage.assert_unchanged();
}
