//! Key files. A private key is created and read here and nowhere else; it stays in the memory of this process.

use crate::error::{Context as _, Error, Result};
use crate::evidence_dir::{write_output, write_private};
use crate::inputs::not_read;
use crate::ui;
use invarlock_evidence::signing::keys::{PublicKey, SigningKey};
use rustix::fs::OFlags;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use zeroize::Zeroizing;

/// Largest key file.
const LIMIT: u64 = 64 << 10;

/// The private key in a file that only its owner can read.
pub fn signing(path: &Path) -> Result<SigningKey> {
    let reading = || format!("reading the signing key {}", path.display());
    let file = open(path).with_context(reading)?;
    let mode = file.metadata().with_context(reading)?.mode();
    if mode & 0o077 != 0 {
        let message = format!("other users can open it (mode {:04o})", mode & 0o7777);
        return Err(Error::input(message))
            .with_context(reading)
            .hint(format!("run `chmod 600 {}`", path.display()));
    }
    SigningKey::parse(&text(file).with_context(reading)?).with_context(reading)
}

/// The public key in a file.
pub fn public(path: &Path) -> Result<PublicKey> {
    let reading = || format!("reading the public key {}", path.display());
    let text = open(path).and_then(text).with_context(reading)?;
    PublicKey::parse(&text).with_context(reading)
}

/// Creates a key pair in two new files; gives its fingerprint.
pub fn create_pair(private: &Path, public: &Path) -> Result<String> {
    if public == private {
        return Err(Error::input("the private and the public key have the same file name"))
            .hint("pass another file with --public-key-out");
    }
    if public.symlink_metadata().is_ok() {
        return Err(Error::input(format!("{} exists", public.display())))
            .hint("choose another file name; keys are never replaced");
    }
    let key = SigningKey::generate()?;
    write_private(private, key.to_pem()?.as_bytes())?;
    write_output(public, key.public().to_pem()?.as_bytes(), false)?;
    Ok(key.public().fingerprint())
}

/// Prints the files and the fingerprint of a new key pair.
pub fn print_pair(private: &Path, public: &Path, fingerprint: &str) {
    for (name, path) in [("private key", private), ("public key", public)] {
        ui::out(&format!("{name:<12} {}", ui::printable(&path.to_string_lossy())));
    }
    ui::out(&format!("fingerprint  {fingerprint}"));
}

/// Opens a regular file; a named pipe does not block.
fn open(path: &Path) -> Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|why| not_read(&why))?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(Error::input("not a regular file")),
    }
}

fn text(file: File) -> Result<Zeroizing<String>> {
    // Its capacity is the limit, so that it never moves and leaves a copy.
    let mut text = Zeroizing::new(String::with_capacity(LIMIT as usize + 1));
    let read = file.take(LIMIT + 1).read_to_string(&mut text);
    read.map_err(|why| Error::input(why.to_string()))?;
    match text.len() as u64 > LIMIT {
        true => Err(Error::input(format!("it is larger than {} KiB", LIMIT >> 10))),
        false => Ok(text),
    }
}
