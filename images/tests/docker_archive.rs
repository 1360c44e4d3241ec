//! Docker archives with many references to few members: opening one costs no more time and memory than reading it.

mod common;

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::*;
use invarlock_images::{Digest, Policy, Reference, Store};
use serde_json::{Value, json};

/// Writes an archive as a stream: the members, then `manifest.json`.
fn write_archive(path: &Path, members: impl Iterator<Item = (String, Vec<u8>)>, images: &Value) {
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

/// A configuration with `layers` equal layers and the text `text`.
fn config(diff_id: Digest, layers: usize, text: &str) -> Vec<u8> {
    let rootfs = json!({ "type": "layers", "diff_ids": vec![diff_id; layers] });
    json!({ "architecture": arch(), "os": "linux", "config": {}, "author": text, "rootfs": rootfs })
        .to_string()
        .into_bytes()
}

#[test]
fn layer_referenced_many_times_is_read_once() {
    let dir = scratch();
    let path = dir.path().join("docker.tar");
    let layer = Tar::default().file("a", "x").end();
    // Hashing the layer for every reference would read 128 GiB.
    let mut compressed = gzip(&layer);
    compressed.resize(1 << 20, 0);
    let members = [("c".to_owned(), config(Digest::of(&layer), 128, "")), ("l".to_owned(), compressed)];
    let image = json!({ "Config": "c", "RepoTags": null, "Layers": vec!["l"; 128] });
    write_archive(&path, members.into_iter(), &json!(vec![image; 1000]));
    let store = Store::open(&dir.path().join("store")).expect("store");
    let start = Instant::now();
    let reference = Reference::parse(&format!("docker-archive:{}", path.display())).expect("reference");
    assert_eq!(store.resolve(&reference).expect("resolved").layers.len(), 128);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn memory_is_independent_of_the_number_of_images() {
    // In a subprocess, whose peak memory contains nothing else.
    let inside = "INVARLOCK_TEST_MEMORY";
    let name = "memory_is_independent_of_the_number_of_images";
    let Some(dir) = std::env::var_os(inside).map(PathBuf::from) else {
        let dir = scratch();
        let layer = Tar::default().file("a", "x").end();
        let id = Digest::of(&layer);
        let images: Vec<Value> = (0..80)
            .map(|i| json!({ "Config": format!("c{i}"), "RepoTags": [format!("it:{i}")], "Layers": ["l"] }))
            .collect();
        // Every configuration is almost 4 MiB long and different.
        let text = |i: usize| format!("{i}{}", " ".repeat(4_190_000));
        let configs = (0..80).map(|i| (format!("c{i}"), config(id, 1, &text(i))));
        write_archive(
            &dir.path().join("docker.tar"),
            std::iter::once(("l".to_owned(), layer)).chain(configs),
            &json!(images),
        );
        let output = Command::new(std::env::current_exe().expect("own program"))
            .args(["--exact", name, "--nocapture"])
            .env(inside, dir.path())
            .output()
            .expect("subprocess");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        return;
    };
    let store = Store::open(&dir.join("store")).expect("store");
    let before = peak_memory();
    let from = Reference::parse(&format!("docker-archive:{}:it:7", dir.join("docker.tar").display()));
    store.import(&from.expect("reference"), Some("it:1"), Policy::default(), &|_| {}).expect("import");
    assert!(store.verify(None, false).expect("verify").iter().all(|checked| checked.problem.is_none()));
    assert!(peak_memory() < 32 << 10, "{} KiB, {before} before", peak_memory());
}
