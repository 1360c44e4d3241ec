//! The two fs-verity system calls. Crates that wrap them also contain a whole file system.
#![allow(unsafe_code, reason = "these ioctls have no safe wrapper")]

use std::os::fd::AsFd;

use rustix::io::Result;
use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};

/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256: u16 = 1;
/// Bytes of a hashed block. Every kernel supports this size on file systems with blocks of the same size.
const BLOCK: u32 = 4096;

/// `struct fsverity_enable_arg` of `linux/fsverity.h`.
#[repr(C)]
struct Enable {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved: u32,
    signature: u64,
    more_reserved: [u64; 11],
}

/// `struct fsverity_digest`, followed by space for the longest digest.
#[repr(C)]
struct Measured {
    algorithm: u16,
    size: u16,
    digest: [u8; 64],
}

const ENABLE: Opcode = opcode::write::<Enable>(b'f', 133);
const MEASURE: Opcode = opcode::read_write::<[u16; 2]>(b'f', 134);

/// Enables fs-verity for a file (`FS_IOC_ENABLE_VERITY`).
pub(crate) fn enable_verity(file: impl AsFd) -> Result<()> {
    let argument = Enable {
        version: 1,
        hash_algorithm: u32::from(SHA256),
        block_size: BLOCK,
        salt_size: 0,
        salt: 0,
        signature_size: 0,
        reserved: 0,
        signature: 0,
        more_reserved: [0; 11],
    };
    // SAFETY: FS_IOC_ENABLE_VERITY reads this struct. Salt and signature are empty, so the kernel follows no pointer in it.
    let call = unsafe { Setter::<ENABLE, Enable>::new(argument) };
    // SAFETY: as above.
    unsafe { ioctl(file, call) }
}

/// The fs-verity digest of a file (`FS_IOC_MEASURE_VERITY`); `None` if it is not SHA-256. A file without fs-verity is an error.
pub(crate) fn measure_verity(file: impl AsFd) -> Result<Option<[u8; 32]>> {
    let mut measured = Measured { algorithm: 0, size: 64, digest: [0; 64] };
    // SAFETY: FS_IOC_MEASURE_VERITY reads the size and writes at most that many bytes after it.
    let call = unsafe { Updater::<MEASURE, Measured>::new(&mut measured) };
    // SAFETY: as above.
    unsafe { ioctl(file, call) }?;
    let is_sha256 = measured.algorithm == SHA256 && measured.size == 32;
    Ok(measured.digest.first_chunk().filter(|_| is_sha256).copied())
}
