//! An archive is accepted only with the meaning that GNU tar and Python's `tarfile` give it: archives that these two write, in all their
//! formats, and many damaged ones. An archive that they interpret differently, or reject, must be rejected.
#![allow(clippy::print_stdout, reason = "tables")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::*;
use invarlock_images::Digest;
use serde::Deserialize;

/// An entry of an archive.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Entry {
    name: String,
    kind: String,
    size: u64,
    mode: u32,
    link: String,
    sha256: Option<String>,
}

/// A running Python process that reads archives.
struct PythonReader {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl PythonReader {
    fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/list_tar.py");
        let mut child = Command::new("python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let ask = child.stdin.take().expect("stdin");
        let answers = BufReader::new(child.stdout.take().expect("stdout"));
        Self { child, ask, answers }
    }

    fn read(&mut self, archive: &Path) -> Option<Vec<Entry>> {
        writeln!(self.ask, "{}", archive.display()).expect("ask");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("answer");
        serde_json::from_str(&line).expect("json")
    }
}

impl Drop for PythonReader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The entries that GNU tar lists: kind, size and name with its link. `None` if it fails.
fn gnu_tar(archive: &Path) -> Option<Vec<(char, u64, String)>> {
    let output = Command::new("tar")
        .args(["--list", "--verbose", "--numeric-owner", "--full-time", "--quoting-style=literal", "--file"])
        .arg(archive)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("tar");
    // Warnings about unknown records and a missing end are not failures.
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8(output.stdout).ok()?;
    let line = |line: &str| {
        // Mode, owners, size, day, time, name, separated by any number of spaces.
        let mut rest = line;
        let mut column = || {
            let (first, behind) = rest.trim_start().split_once(' ')?;
            rest = behind;
            Some(first.to_owned())
        };
        let (mode, _, size, _, _) = (column()?, column()?, column()?, column()?, column()?);
        Some((mode.chars().next()?, size.parse().ok()?, rest.to_owned()))
    };
    text.lines().map(line).collect()
}

/// An entry as GNU tar lists it.
fn as_gnu_tar_lists(entry: &Entry) -> (char, u64, String) {
    match entry.kind.as_str() {
        "directory" => ('d', 0, entry.name.clone()),
        "symlink" => ('l', 0, format!("{} -> {}", entry.name, entry.link)),
        // It lists the target as it uses it, without leading slashes.
        "hardlink" => ('h', 0, format!("{} link to {}", entry.name, entry.link.trim_start_matches('/'))),
        _ => ('-', entry.size, entry.name.clone()),
    }
}

/// Collects the files below a directory, by path.
fn collect_files(root: &Path, below: &str, all: &mut BTreeMap<String, Entry>) {
    for entry in fs::read_dir(root.join(below)).expect("list") {
        let entry = entry.expect("entry");
        let name = entry.file_name().into_string().expect("name");
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let metadata = entry.metadata().expect("metadata");
        let (kind, link, sha256) = if metadata.is_dir() {
            collect_files(root, &path, all);
            ("directory", String::new(), None)
        } else if metadata.is_symlink() {
            ("symlink", fs::read_link(entry.path()).expect("link").to_str().expect("link").to_owned(), None)
        } else {
            assert!(metadata.is_file(), "{path}");
            ("file", String::new(), Some(Digest::of(&fs::read(entry.path()).expect("read")).hex()))
        };
        let size = if kind == "file" { metadata.len() } else { 0 };
        let mode = metadata.permissions().mode() & 0o7777;
        all.insert(path.clone(), Entry { name: path, kind: kind.to_owned(), size, mode, link, sha256 });
    }
}

/// The extracted files; `None` if the archive is rejected.
fn extracted(archive: &[u8]) -> Option<BTreeMap<String, Entry>> {
    let dir = scratch();
    let rootfs = extract(dir.path(), archive).ok()?;
    let mut all = BTreeMap::new();
    // A single layer with whiteouts is stacked on an empty one.
    collect_files(rootfs.layers.last().expect("layer"), "", &mut all);
    Some(all)
}

/// A name without the parts that have no effect.
fn trimmed(name: &str) -> String {
    let parts = name.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/")
}

/// The first difference between the extracted files and the entries.
fn difference(tree: &BTreeMap<String, Entry>, entries: &[Entry]) -> Option<String> {
    let mut seen: BTreeMap<String, &Entry> = BTreeMap::new();
    for entry in entries {
        let name = trimmed(&entry.name);
        if name.is_empty() {
            continue;
        }
        let Some(found) = tree.get(&name) else { return Some(format!("{name} was not extracted")) };
        let expected = match entry.kind.as_str() {
            "hardlink" => {
                let Some(target) = seen.get(&trimmed(&entry.link)) else {
                    return Some(format!("{name} links to nothing"));
                };
                Entry { name: name.clone(), ..(*target).clone() }
            }
            _ => Entry { name: name.clone(), ..entry.clone() },
        };
        let same = match expected.kind.as_str() {
            "file" => {
                found.kind == "file"
                    && (found.size, &found.sha256) == (expected.size, &expected.sha256)
                    && found.mode == expected.mode & 0o755 | 0o400
            }
            "directory" => found.kind == "directory",
            "symlink" => found.kind == "symlink" && found.link == expected.link,
            _ => false,
        };
        if !same {
            return Some(format!("{expected:?} became {found:?}"));
        }
        let seen_as = if entry.kind == "hardlink" { seen[&trimmed(&entry.link)] } else { entry };
        seen.insert(name, seen_as);
    }
    let extra = tree.values().find(|file| file.kind != "directory" && !seen.contains_key(file.name.as_str()));
    extra.map(|file| format!("{file:?} is in no listing"))
}

/// Creates a directory with every kind of file that an archive can contain.
fn fixture(dir: &Path) -> PathBuf {
    let root = dir.join("fixture");
    let long = format!("{}/{}", "long-directory-name-".repeat(6), "n".repeat(200));
    fs::create_dir_all(root.join("directory/empty")).expect("fixture");
    fs::create_dir_all(root.join(&long)).expect("fixture");
    fs::write(root.join("directory/file"), "content").expect("fixture");
    fs::write(root.join("empty"), "").expect("fixture");
    fs::write(root.join("block"), "x".repeat(512)).expect("fixture");
    fs::write(root.join("blocks"), "x".repeat(100_001)).expect("fixture");
    fs::write(root.join("na\u{ef}ve \u{4e2d}\u{6587} name"), "unicode").expect("fixture");
    fs::write(root.join(&long).join("f".repeat(250)), "deep").expect("fixture");
    fs::write(root.join("program"), "#!").expect("fixture");
    fs::set_permissions(root.join("program"), fs::Permissions::from_mode(0o751)).expect("fixture");
    let link =
        |target: &str, name: &str| std::os::unix::fs::symlink(target, root.join(name)).expect("fixture");
    link("directory/file", "link");
    link("/nowhere/at/all", "dangling");
    link(&"t".repeat(300), "long-link");
    fs::hard_link(root.join("blocks"), root.join("other-name")).expect("fixture");
    fs::hard_link(root.join(&long).join("f".repeat(250)), root.join("short-name")).expect("fixture");
    // Holes before, between and after data; more than fit into an old GNU header.
    let holes = fs::File::create(root.join("holes")).expect("fixture");
    use std::os::unix::fs::FileExt as _;
    for at in 0..30u64 {
        holes.write_all_at(&[b'h'; 4096], at * 65_536 + 32_768).expect("fixture");
    }
    holes.set_len(30 * 65_536).expect("fixture");
    fs::File::create(root.join("hole")).expect("fixture").set_len(1 << 20).expect("fixture");
    root
}

/// Archives of the fixture in every format that GNU tar and Python write.
fn valid_archives(dir: &Path) -> Vec<(String, PathBuf)> {
    let root = fixture(dir);
    let mut all = Vec::new();
    for (format, more) in [
        ("gnu", &[][..]),
        ("oldgnu", &[]),
        ("posix", &[]),
        ("gnu", &["--sparse"]),
        ("posix", &["--sparse", "--sparse-version=0.0"]),
        ("posix", &["--sparse", "--sparse-version=0.1"]),
        ("posix", &["--sparse", "--sparse-version=1.0"]),
        ("ustar", &["--exclude=long*", "--exclude=short-name"]),
        ("v7", &["--exclude=long*", "--exclude=short-name"]),
    ] {
        let name = format!("gnu-{format}{}", more.concat());
        let path = dir.join(format!("{}.tar", name.replace(['*', '='], "")));
        let output = Command::new("tar")
            .args(["--create", "--sort=name", &format!("--format={format}")])
            .args(more)
            .arg(format!("--file={}", path.display()))
            .arg("--directory")
            .args([root.as_os_str(), ".".as_ref()])
            .output()
            .expect("tar");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        all.push((name, path));
    }
    for format in ["GNU", "PAX"] {
        let path = dir.join(format!("python-{format}.tar"));
        let script = format!(
            "import sys, tarfile\nwith tarfile.open(sys.argv[1], 'w', format=tarfile.{format}_FORMAT) as t: t.add(sys.argv[2], '.')"
        );
        let made =
            Command::new("python3").args(["-c", &script]).args([&path, &root]).status().expect("python3");
        assert!(made.success(), "{format}");
        all.push((format!("python-{format}"), path));
    }
    all
}

#[test]
fn archives_of_gnu_tar_and_python_have_the_same_meaning() {
    let dir = scratch();
    let mut python = PythonReader::start();
    for (name, path) in valid_archives(dir.path()) {
        let archive = fs::read(&path).expect("archive");
        let entries = python.read(&path).unwrap_or_else(|| panic!("{name}: python"));
        let listed = gnu_tar(&path).unwrap_or_else(|| panic!("{name}: tar"));
        assert_eq!(listed.len(), entries.len(), "{name}");
        let tree = extracted(&archive)
            .unwrap_or_else(|| panic!("{name}: {:?}", extract(scratch().path(), &archive).err()));
        assert_eq!(difference(&tree, &entries), None, "{name}");
        assert!(tree.len() >= 10, "{name}");
        println!("{name}: {} entries have the same meaning (alike)", entries.len());
    }
}

/// A deterministic random number generator.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }
}

/// Changes a few bytes in headers and extension records. Most changed headers get a correct checksum.
fn damage(archive: &[u8], random: &mut Random) -> Vec<u8> {
    let mut it = archive.to_vec();
    let headers: Vec<usize> =
        (0..it.len() / 512).map(|i| i * 512).filter(|at| &it[at + 257..at + 262] == b"ustar").collect();
    for _ in 0..=random.below(3) {
        let at = headers[random.below(headers.len())];
        let fields =
            [0, 0, 100, 124, 124, 124, 135, 156, 156, 157, 257, 263, 345, 386, 482, 483, 500, 512, 520, 530];
        let field = fields[random.below(fields.len())] + random.below(12);
        let values =
            [0, b' ', b'0', b'1', b'7', b'8', b'/', b'.', b'5', b'L', b'x', b'S', 0x80, 0xff, b'\n', b'='];
        let place = (at + field).min(it.len() - 1);
        it[place] = values[random.below(values.len())];
        if random.below(20) > 0 {
            let header = &mut it[at..at + 512];
            header[148..156].fill(b' ');
            let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    match random.below(20) {
        0 => it.truncate(random.below(archive.len())),
        1 => it.drain(512 * random.below(it.len() / 512)..).take(512).for_each(drop),
        _ => {}
    }
    it
}

#[test]
fn damaged_archives_have_the_same_meaning_or_are_rejected() {
    let dir = scratch();
    // Small archives, so that most changes affect a header.
    let small: Vec<Vec<u8>> = vec![
        Tar::default().dir("d/").file("d/f", "content").symlink("l", "d/f").hardlink("h", "d/f").end(),
        Tar::default().dir("/d/").file("/d/f", "content").symlink("//l", "d/f").hardlink("./h", "/l").end(),
        Tar::default()
            .pax(&[("path", "long/name"), ("size", "7"), ("mtime", "1")])
            .file("x", "content")
            .file("y", "z")
            .end(),
        Tar::default()
            .raw(b'L', b"././@LongLink", b"", 0o644, 10, b"long/name\0")
            .file("x", "content")
            .file("y", "z")
            .end(),
        Tar::default()
            .pax(&[
                ("GNU.sparse.size", "20"),
                ("GNU.sparse.numblocks", "2"),
                ("GNU.sparse.map", "2,4,10,3"),
                ("GNU.sparse.name", "s"),
            ])
            .file("x", "content")
            .file("y", "z")
            .end(),
        Tar::default()
            .file("x", &"x".repeat(1500))
            .pax(&[("linkpath", "x")])
            .hardlink("y", "z")
            .dir("e")
            .end(),
    ];
    let is_quoted_by_tar = |c: char| c.is_control() || c == '\\';
    let mut python = PythonReader::start();
    let mut random = Random(20_261_124);
    let (mut accepted, mut differed) = (0, Vec::new());
    let rounds =
        std::env::var("INVARLOCK_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(600);
    for round in 0..rounds {
        let mut archive = damage(&small[round % small.len()], &mut random);
        let Some(tree) = extracted(&archive) else { continue };
        accepted += 1;
        // Without the padding of its last file, an archive means what it means with it, which the other two insist on.
        archive.resize(archive.len().next_multiple_of(512), 0);
        let path = dir.path().join("damaged.tar");
        fs::write(&path, &archive).expect("write");
        let verdict = match python.read(&path) {
            None => Some("Python rejects it".to_owned()),
            // GNU tar's listing of such names cannot be parsed.
            Some(entries)
                if entries.iter().any(|entry| {
                    [&entry.name, &entry.link].iter().any(|name| name.contains(is_quoted_by_tar))
                }) =>
            {
                difference(&tree, &entries)
            }
            Some(entries) => difference(&tree, &entries).or_else(|| {
                let says = entries.iter().map(as_gnu_tar_lists).map(|(k, s, n)| (k, s, trimmed(&n)));
                match gnu_tar(&path) {
                    None => Some("GNU tar rejects it".to_owned()),
                    Some(listed) => {
                        let listed: Vec<_> =
                            listed.into_iter().map(|(k, s, n)| (k, s, trimmed(&n))).collect();
                        let says: Vec<_> = says.collect();
                        (listed != says).then(|| format!("GNU tar has {listed:?}, Python {says:?}"))
                    }
                }
            }),
        };
        if let Some(why) = verdict {
            differed.push(format!("round {round}: {why}"));
        }
    }
    println!("{rounds} damaged archives: {accepted} accepted, {} with another meaning", differed.len());
    assert!(accepted > rounds / 20, "too few archives are accepted: {accepted}");
    assert!(differed.is_empty(), "{}", differed.join("\n"));
}
