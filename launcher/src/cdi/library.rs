//! Facts about the driver of the host.

use object::Endianness;
use object::elf::{DT_SONAME, FileHeader64};
use object::read::ReadCache;
use object::read::elf::{Dyn as _, FileHeader as _};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The name that a library has in it (SONAME); none for other files.
pub(super) fn name(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let data = ReadCache::new(file);
    let header = FileHeader64::<Endianness>::parse(&data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, &data).ok()?;
    let (entries, strings) = sections.dynamic(endian, &data).ok()??;
    let strings = sections.strings(endian, &data, strings).ok()?;
    let entry = entries.iter().find(|entry| entry.tag(endian) == DT_SONAME)?;
    let name = std::str::from_utf8(entry.string(endian, strings).ok()?).ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The version of NVIDIA's kernel driver.
pub(super) fn nvidia_driver() -> Option<String> {
    let mut text = String::new();
    File::open("/sys/module/nvidia/version").ok()?.take(64).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned()).filter(|version| !version.is_empty())
}
