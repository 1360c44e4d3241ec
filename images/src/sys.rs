//! The two calls of fs-verity. The crates that wrap them bring a file system of their own along.
#![allow(unsafe_code, reason = "calls that have no safe wrapper")]

use std::os::fd::AsFd;

use rustix::io::Result;
use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};

/// SHA-256, in the kernel's numbering.
const SHA256: u16 = 1;
/// Bytes of a block that has a hash of its own. Every kernel has these, on file systems whose blocks are as large.
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

/// `struct fsverity_digest`, with room for the longest digest behind it.
#[repr(C)]
struct Measured {
    algorithm: u16,
    size: u16,
    digest: [u8; 64],
}

const ENABLE: Opcode = opcode::write::<Enable>(b'f', 133);
const MEASURE: Opcode = opcode::read_write::<[u16; 2]>(b'f', 134);

/// Has the kernel hash a file, and from then on refuse to change it and to give bytes of it that are others.
pub(crate) fn enable_verity(file: impl AsFd) -> Result<()> {
    let asked = Enable {
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
    // SAFETY: this is FS_IOC_ENABLE_VERITY, which reads this struct. Neither salt nor signature is there, so it follows no pointer in it.
    let call = unsafe { Setter::<ENABLE, Enable>::new(asked) };
    // SAFETY: the same.
    unsafe { ioctl(file, call) }
}

/// The digest by which the kernel holds a file; none where it is of another kind than ours. A file that it does not hold is an error.
pub(crate) fn measure_verity(file: impl AsFd) -> Result<Option<[u8; 32]>> {
    let mut measured = Measured { algorithm: 0, size: 64, digest: [0; 64] };
    // SAFETY: this is FS_IOC_MEASURE_VERITY, which reads the size and writes at most so many bytes behind it.
    let call = unsafe { Updater::<MEASURE, Measured>::new(&mut measured) };
    // SAFETY: the same.
    unsafe { ioctl(file, call) }?;
    let ours = measured.algorithm == SHA256 && measured.size == 32;
    Ok(measured.digest.first_chunk().filter(|_| ours).copied())
}
