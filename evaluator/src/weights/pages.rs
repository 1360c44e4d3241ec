//! Resident pages of mapped weights: read ahead of a step of the forward pass, and released after it, so that memory does not depend on the
//! size of the model.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Peak;
use crate::checkpoint::Tensors;

/// Bytes of weights that may be resident within one step. A checkpoint that is not larger stays resident.
pub const RESIDENT: usize = 256 << 20;

/// The mapped weights of one step.
#[derive(Debug)]
pub struct Pages<'a> {
    tensors: &'a Tensors,
    ranges: OnceLock<Vec<&'a [u8]>>,
    /// Bytes that may be resident.
    limit: usize,
    /// Bytes that were read since the last release.
    used: AtomicUsize,
    /// The largest input or output of these weights, or state between steps.
    pub peak: Peak,
}

impl<'a> Pages<'a> {
    /// The pages of a step whose weights are not known yet; [`RESIDENT`] is the usual limit.
    pub fn new(tensors: &'a Tensors, limit: usize) -> Self {
        Self { tensors, limit, ranges: OnceLock::new(), used: AtomicUsize::new(0), peak: Peak::default() }
    }

    /// Sets the weights. Later calls are ignored.
    pub fn set(&self, ranges: Vec<&'a [u8]>) {
        let _ = self.ranges.set(ranges);
    }

    fn ranges(&self) -> &[&'a [u8]] {
        self.ranges.get().map_or(&[], Vec::as_slice)
    }

    /// The addresses of the weights.
    pub fn starts(&self) -> impl Iterator<Item = *const u8> {
        self.ranges().iter().map(|range| range.as_ptr())
    }

    /// Bytes of all weights of the step.
    pub fn bytes(&self) -> usize {
        self.ranges().iter().map(|range| range.len()).sum()
    }

    /// Counts weights that were just used. Weights that exceed the limit are released now and then, and read again.
    pub fn used(&self, bytes: usize) {
        if self.bytes() > self.limit && self.used.fetch_add(bytes, Ordering::Relaxed) + bytes > self.limit {
            self.used.store(0, Ordering::Relaxed);
            self.release();
        }
    }

    /// Releases the pages. The next access reads them again.
    pub fn release(&self) {
        self.ranges().iter().for_each(|range| self.tensors.release(range));
    }

    /// Lets the kernel read the weights in the background.
    pub fn prefetch(&self) {
        if self.bytes() <= self.limit {
            self.ranges().iter().for_each(|range| self.tensors.prefetch(range));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A checkpoint with one tensor of `size` bytes.
    fn write(directory: &Path, size: usize) {
        let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{size}],"data_offsets":[0,{size}]}}}}"#);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend((0..size).map(|i| (i % 251) as u8));
        std::fs::write(directory.join("model.safetensors"), bytes).expect("written");
    }

    /// Resident bytes of the maps of files below `directory`.
    fn resident(directory: &Path) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("readable");
        let mut of_file = false;
        let mut kib = 0;
        for line in maps.lines() {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["Rss:", size, _] if of_file => kib += size.parse::<usize>().expect("a number"),
                // The line that begins a map; only maps of files have a path.
                [range, _, _, _, _, ..] if range.contains('-') => {
                    of_file = line.contains(&*directory.to_string_lossy());
                }
                _ => {}
            }
        }
        kib << 10
    }

    #[test]
    fn weights_above_the_limit_are_released_and_read_again() {
        const SIZE: usize = 4 << 20;
        let directory = tempfile::tempdir().expect("a temporary directory");
        write(directory.path(), SIZE);
        let tensors = Tensors::open(directory.path()).expect("opened");
        let bytes = tensors.get("w").expect("supported").expect("found").bytes;
        let sum = || bytes.iter().map(|b| u64::from(*b)).sum::<u64>();
        let expected = sum();
        for (limit, stays) in [(SIZE, true), (SIZE - 1, false)] {
            let pages = Pages::new(&tensors, limit);
            pages.set(vec![bytes]);
            assert_eq!(sum(), expected);
            assert!(resident(directory.path()) >= SIZE);
            pages.used(SIZE);
            assert_eq!(resident(directory.path()) >= SIZE, stays, "limit {limit}");
        }
        assert_eq!(sum(), expected, "released weights are read again");
        let pages = Pages::new(&tensors, SIZE);
        pages.set(vec![bytes]);
        pages.release();
        assert!(resident(directory.path()) < SIZE / 16);
        pages.prefetch();
        assert_eq!(sum(), expected);
    }
}
