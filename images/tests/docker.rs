//! Archives as `docker save` writes them that name much and say little: opening one costs no more than reading it.

mod common;

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::*;
use invarlock_images::{Digest, Policy, Reference, Store};
use serde_json::{Value, json};

/// Writes an archive as a stream: members and their bytes, and what `manifest.json` says.
fn archive(path: &Path, members: impl Iterator<Item = (String, Vec<u8>)>, images: &Value) {
    let mut archive = tar::Builder::new(BufWriter::new(fs::File::create(path).expect("archive")));
    let last = ("manifest.json".to_owned(), images.to_string().into_bytes());
    for (name, bytes) in members.chain(std::iter::once(last)) {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, &bytes[..]).expect("member");
    }
    archive.into_inner().expect("archive").flush().expect("archive");
}

/// A configuration of `layers` that are all the same, with a long text in it.
fn config(diff_id: Digest, layers: usize, text: &str) -> Vec<u8> {
    let rootfs = json!({ "type": "layers", "diff_ids": vec![diff_id; layers] });
    json!({ "architecture": arch(), "os": "linux", "config": {}, "author": text, "rootfs": rootfs })
        .to_string()
        .into_bytes()
}

#[test]
fn a_layer_that_is_named_very_often_is_read_once() {
    let dir = scratch();
    let path = dir.path().join("docker.tar");
    let layer = Tar::default().file("a", "x").end();
    // Hashed anew for every mention, they were 128 GiB.
    let mut packed = gzip(&layer);
    packed.resize(1 << 20, 0);
    let members = [("c".to_owned(), config(Digest::of(&layer), 128, "")), ("l".to_owned(), packed)];
    let image = json!({ "Config": "c", "RepoTags": null, "Layers": vec!["l"; 128] });
    archive(&path, members.into_iter(), &json!(vec![image; 1000]));
    let store = Store::open(&dir.path().join("store")).expect("store");
    let start = Instant::now();
    let reference = Reference::parse(&format!("docker-archive:{}", path.display())).expect("reference");
    assert_eq!(store.resolve(&reference).expect("resolved").layers.len(), 128);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn memory_does_not_grow_with_the_number_of_images() {
    // In a process of its own, which has had nothing else in its memory.
    let inside = "INVARLOCK_TEST_MEMORY";
    let name = "memory_does_not_grow_with_the_number_of_images";
    let Some(dir) = std::env::var_os(inside).map(PathBuf::from) else {
        let dir = scratch();
        let layer = Tar::default().file("a", "x").end();
        let id = Digest::of(&layer);
        let images: Vec<Value> = (0..80)
            .map(|i| json!({ "Config": format!("c{i}"), "RepoTags": [format!("it:{i}")], "Layers": ["l"] }))
            .collect();
        // Each of almost 4 MiB, and another one.
        let text = |i: usize| format!("{i}{}", " ".repeat(4_190_000));
        let configs = (0..80).map(|i| (format!("c{i}"), config(id, 1, &text(i))));
        archive(
            &dir.path().join("docker.tar"),
            std::iter::once(("l".to_owned(), layer)).chain(configs),
            &json!(images),
        );
        let output = Command::new(std::env::current_exe().expect("own program"))
            .args(["--exact", name, "--nocapture"])
            .env(inside, dir.path())
            .output()
            .expect("copy");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        return;
    };
    let store = Store::open(&dir.join("store")).expect("store");
    let before = peak();
    let from = Reference::parse(&format!("docker-archive:{}:it:7", dir.join("docker.tar").display()));
    store.import(&from.expect("reference"), Some("it:1"), Policy::default(), &|_| {}).expect("import");
    assert!(store.verify(None, false).expect("verify").iter().all(|it| it.problem.is_none()));
    assert!(peak() < 32 << 10, "{} KiB, {before} before", peak());
}
