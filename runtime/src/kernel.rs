//! Files of `/proc` and of cgroups, which the kernel writes while they are read.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Longer is none that is read here; a mount table takes some hundred bytes a line.
const LONGEST: u64 = 16 << 20;
/// Most of them fit into it, and take two reads then. They have no size that could be asked for, and without a place of this size the library
/// begins with 32 bytes, while for some of them the kernel begins anew at each read.
const USUAL: usize = 4096;

/// The whole text of such a file.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::with_capacity(USUAL);
    match File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)? as u64 > LONGEST {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 16 MiB")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_long_file_of_the_kernel_is_read_whole() {
        let maps = super::read("/proc/self/smaps").expect("maps");
        assert!(maps.len() > super::USUAL && maps.contains("[stack]") && maps.ends_with('\n'));
        let same = super::read("/proc/self/mountinfo").expect("mounts");
        assert_eq!(same, std::fs::read_to_string("/proc/self/mountinfo").expect("mounts"));
    }
}
