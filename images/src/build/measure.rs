//! The default image: one static program and the directories that mounts need. The same bytes give the same digest, whatever the file's
//! name, owner, times and mode, and whatever the umask.

use invarlock_error::Context as _;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::{bytes, descriptor, linked};
use crate::digest::Hashing;
use crate::layout::Held;
use crate::resolve::{CONFIG, LABEL, LAYER_TAR, MANIFEST, architecture};
use crate::sbom::Sbom;
use crate::{Digest, Error, Result};

/// Name of the program in the image.
const PROGRAM: &str = "invarlock-evaluator";
/// Directories of the image: mount points, and the one in which our matrix library looks for processor caches. That one is empty: the
/// library then takes its own sizes, the same on every machine, and does not try to start lscpu instead.
const DIRECTORIES: [&str; 10] = [
    "dev/",
    "etc/",
    "in/",
    "out/",
    "proc/",
    "sys/",
    "sys/devices/",
    "sys/devices/system/",
    "sys/devices/system/cpu/",
    "tmp/",
];
/// More is not a program of ours.
const LARGEST: u64 = 1 << 30;

/// The default image, computed and not yet written.
pub(crate) struct Measure {
    program: File,
    size: u64,
    layer: (Digest, u64),
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Measure {
    /// Reads the program once and computes every digest.
    pub fn of(evaluator: &Path) -> Result<Self> {
        let reading = || format!("reading evaluator {}", evaluator.display());
        let program = File::open(evaluator).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::input(format!("{}: {error}", reading())),
            _ => Error::system(format!("{}: {error}", reading())),
        })?;
        let metadata = program.metadata().context(reading())?;
        if !metadata.is_file() || metadata.len() == 0 || metadata.len() > LARGEST {
            return Err(Error::input(format!(
                "evaluator {} is not a file of 1 byte to 1 GiB",
                evaluator.display()
            )));
        }
        let size = metadata.len();
        let mut hashing = Hashing::new(io::sink());
        write_layer(&program, size, &mut hashing).context(reading())?;
        let (_, length, digest) = hashing.finish();
        let config = bytes(&config(&digest))?;
        let manifest = bytes(&manifest((&digest, length), &config))?;
        Ok(Self { program, size, layer: (digest, length), config, manifest })
    }

    /// The image's digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// Its manifest's size.
    pub fn manifest_size(&self) -> u64 {
        self.manifest.len() as u64
    }

    /// What the program says that it is made of.
    pub fn bill(&self) -> Result<Sbom> {
        linked::bill(&self.program)
    }

    /// Writes the blobs, and then lets `tag` mean them.
    pub fn write(&self, store: &Held<'_>, tag: &str) -> Result<()> {
        let (digest, length) = &self.layer;
        store.put(digest, *length, |to| write_layer(&self.program, self.size, to))?;
        for it in [&self.config, &self.manifest] {
            store.put(&Digest::of(it), it.len() as u64, |to| to.write_all(it))?;
        }
        store.sync()?;
        store.tag(Some(tag), descriptor(MANIFEST, &self.digest(), self.manifest.len() as u64, true))
    }
}

/// The layer: sorted, owned by 0, of 1970, with fixed modes.
fn write_layer(mut program: &File, size: u64, to: &mut dyn Write) -> io::Result<()> {
    program.seek(io::SeekFrom::Start(0))?;
    let mut names: Vec<&str> = DIRECTORIES.to_vec();
    names.push(PROGRAM);
    names.sort_unstable();
    let mut tar = tar::Builder::new(to);
    for name in names {
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        if name == PROGRAM {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o555);
            header.set_size(size);
            header.set_cksum();
            let mut content = program.take(size);
            tar.append(&header, &mut content)?;
            // The builder believes the header; a file that shrank would give an archive that lies.
            if content.limit() != 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        } else {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            header.set_cksum();
            tar.append(&header, io::empty())?;
        }
    }
    tar.finish()
}

fn config(diff_id: &Digest) -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "User": "65532:65532",
            "Entrypoint": [format!("/{PROGRAM}")],
            "WorkingDir": "/",
            "Labels": { LABEL: "measure" },
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    })
}

fn manifest((layer, length): (&Digest, u64), config: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &Digest::of(config), config.len() as u64, false),
        "layers": [descriptor(LAYER_TAR, layer, length, false)],
    })
}
