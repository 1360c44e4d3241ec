//! `/sys` of a container with the files of an OCI runtime: which processors the run may use, and how they are arranged.
//!
//! It is a small file system with copies of a few values of the host's sysfs, which itself is not visible. Programs count processors by it
//! (glibc, Python, OpenMP, `lscpu`). A value that the machine does not have is left out, as programs expect; none is invented.

mod numbers;

use self::numbers::{Set, list, mask, set, within};
use crate::procfs;
use invarlock_error::{Context as _, Result};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::thread::CpuSet;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Where it is mounted.
pub(crate) const TARGET: &str = "/sys";
/// The name of the mount point below the root.
pub(crate) const NAME: &str = "sys";
/// Where a bundle has it.
pub(crate) const IN_BUNDLE: &str = "sys";
/// Most processors that are described one by one. Above this there are only the lists.
const MAX_DESCRIBED: usize = 512;
/// Most nodes, as the kernel allows.
const MAX_NODES: usize = 1024;

const PROCESSORS: &str = "devices/system/cpu";
const NODES: &str = "devices/system/node";

/// The processors of a run and what is known of them.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    /// The processors that the run may use: those of its affinity.
    usable: Set,
    /// All processors that the machine can have, by which programs size arrays that they index by a processor.
    possible: Option<String>,
    /// The highest number of a processor that the kernel can handle.
    kernel_max: Option<String>,
    /// Package, and processors of it that the run may use.
    packages: BTreeMap<usize, (String, Set)>,
    /// Core, and processors of it that the run may use.
    cores: BTreeMap<usize, (String, Set)>,
    /// Nodes with processors that the run may use.
    nodes: BTreeMap<usize, Set>,
}

impl Topology {
    /// The topology of the processors that this process may use, from the host's sysfs.
    pub(crate) fn of_host() -> Self {
        // The kernel gives no set if it can have more processors than fit into one.
        let affinity = rustix::thread::sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let usable = (0..CpuSet::MAX_CPU).filter(|cpu| affinity.is_set(*cpu));
        Self::read(Path::new(TARGET), usable.collect())
    }

    /// Whether [`Self::limited`] would show fewer processors.
    pub(crate) fn has_more_than(&self, count: Option<usize>) -> bool {
        count.is_some_and(|count| count < self.usable.len())
    }

    /// The same of the first `count` of these processors.
    pub(crate) fn limited(mut self, count: Option<usize>) -> Self {
        if self.has_more_than(count) {
            self.usable.truncate(count.unwrap_or(usize::MAX));
            for (_, members) in self.packages.values_mut().chain(self.cores.values_mut()) {
                *members = within(members, &self.usable);
            }
            for members in self.nodes.values_mut() {
                *members = within(members, &self.usable);
            }
            self.nodes.retain(|_, members| !members.is_empty());
        }
        self
    }

    fn read(sysfs: &Path, usable: Set) -> Self {
        let processors = sysfs.join(PROCESSORS);
        let number = |text: String| text.parse::<i64>().is_ok().then_some(text);
        let mut topology = Topology {
            possible: value(&processors.join("possible")).filter(|text| set(text).is_some()),
            kernel_max: value(&processors.join("kernel_max")).and_then(number),
            ..Topology::default()
        };
        if usable.len() <= MAX_DESCRIBED {
            for cpu in &usable {
                let directory = processors.join(format!("cpu{cpu}/topology"));
                let of = |file: &str| value(&directory.join(file));
                let members = |file: &str| Some(within(&set(&of(file)?)?, &usable));
                describe(&mut topology.packages, *cpu, "physical_package_id", of, || {
                    members("core_siblings_list")
                });
                describe(&mut topology.cores, *cpu, "core_id", of, || members("thread_siblings_list"));
            }
            let nodes = value(&sysfs.join(NODES).join("online")).and_then(|text| set(&text));
            for node in nodes.into_iter().flatten().take(MAX_NODES) {
                let members = value(&sysfs.join(NODES).join(format!("node{node}/cpulist")));
                let members = members.and_then(|text| set(&text)).map(|members| within(&members, &usable));
                if let Some(members) = members.filter(|members| !members.is_empty()) {
                    topology.nodes.insert(node, members);
                }
            }
        }
        Topology { usable, ..topology }
    }

    /// Writes it to a new directory.
    pub(crate) fn write_at(&self, path: &str) -> Result<()> {
        let doing = || format!("creating {TARGET}");
        std::fs::create_dir(path).with_context(doing)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let at = rustix::fs::open(path, flags, Mode::empty()).with_context(doing)?;
        self.write(&at, false)
    }

    /// Writes it below a directory that this program created. `open` gives files and directories the mode that all users can read, whatever
    /// the umask is.
    pub(crate) fn write(&self, at: &OwnedFd, open: bool) -> Result<()> {
        let mut writer = Writer { at, open, written: BTreeMap::new() };
        for directory in ["devices", "devices/system", PROCESSORS] {
            writer.directory(directory)?;
        }
        let lists = [("online", Some(list(&self.usable))), ("present", Some(list(&self.usable)))];
        let others = [("possible", self.possible.clone()), ("kernel_max", self.kernel_max.clone())];
        for (name, text) in lists.into_iter().chain(others) {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                writer.file(&format!("{PROCESSORS}/{name}"), &text)?;
            }
        }
        for cpu in self.usable.iter().filter(|_| self.usable.len() <= MAX_DESCRIBED) {
            let directory = format!("{PROCESSORS}/cpu{cpu}");
            writer.directory(&directory)?;
            let directory = format!("{directory}/topology");
            writer.directory(&directory)?;
            for (of, id, members) in [
                (&self.packages, "physical_package_id", "core_siblings"),
                (&self.cores, "core_id", "thread_siblings"),
            ] {
                let Some((text, set)) = of.get(cpu) else { continue };
                writer.file(&format!("{directory}/{id}"), text)?;
                writer.file(&format!("{directory}/{members}"), &mask(set))?;
                writer.file(&format!("{directory}/{members}_list"), &list(set))?;
            }
        }
        if self.nodes.is_empty() {
            return Ok(());
        }
        writer.directory(NODES)?;
        let nodes = list(&self.nodes.keys().copied().collect::<Set>());
        for name in ["online", "possible", "has_cpu"] {
            writer.file(&format!("{NODES}/{name}"), &nodes)?;
        }
        for (node, members) in &self.nodes {
            let directory = format!("{NODES}/node{node}");
            writer.directory(&directory)?;
            writer.file(&format!("{directory}/cpulist"), &list(members))?;
            writer.file(&format!("{directory}/cpumap"), &mask(members))?;
        }
        Ok(())
    }
}

/// Reads the package or core of a processor, unless it is known from another processor of it.
fn describe(
    all: &mut BTreeMap<usize, (String, Set)>,
    cpu: usize,
    id: &str,
    of: impl Fn(&str) -> Option<String>,
    members: impl Fn() -> Option<Set>,
) {
    if all.contains_key(&cpu) {
        return;
    }
    let Some(id) = of(id).filter(|text| text.parse::<i64>().is_ok()) else { return };
    let Some(members) = members().filter(|members| members.contains(&cpu)) else { return };
    for member in &members {
        all.insert(*member, (id.clone(), members.clone()));
    }
}

struct Writer<'a> {
    at: &'a OwnedFd,
    open: bool,
    /// A file for each content. Most contents are those of many files, which share it.
    written: BTreeMap<String, String>,
}

impl Writer<'_> {
    fn directory(&self, path: &str) -> Result<()> {
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(self.at, path, mode)
            .and_then(|()| self.set_mode(path, mode))
            .with_context(|| format!("creating {TARGET}/{path}"))
    }

    fn file(&mut self, path: &str, text: &str) -> Result<()> {
        let doing = || format!("writing {TARGET}/{path}");
        match self.written.entry(text.to_owned()) {
            Entry::Occupied(written) => {
                rustix::fs::linkat(self.at, written.get().as_str(), self.at, path, AtFlags::empty())
                    .with_context(doing)
            }
            Entry::Vacant(new) => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(0o444);
                let file = rustix::fs::openat(self.at, path, flags, mode).with_context(doing)?;
                File::from(file).write_all(format!("{text}\n").as_bytes()).with_context(doing)?;
                new.insert(path.to_owned());
                self.set_mode(path, mode).with_context(doing)
            }
        }
    }

    fn set_mode(&self, path: &str, mode: Mode) -> rustix::io::Result<()> {
        match self.open {
            true => rustix::fs::chmodat(self.at, path, mode, AtFlags::empty()),
            false => Ok(()),
        }
    }
}

/// The text of a file of sysfs, if it has one.
fn value(path: &Path) -> Option<String> {
    let text = procfs::read(path).ok()?;
    Some(text.trim_end().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::numbers::Set;
    use super::{MAX_DESCRIBED, NODES, PROCESSORS, Topology};
    use rustix::fs::{Mode, OFlags};
    use std::fs;
    use std::path::Path;

    /// A machine of two packages with two threads a core, and one node a package.
    fn machine(at: &Path, processors: usize) {
        let half = processors / 2;
        let write = |path: String, text: String| {
            let path = at.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, text + "\n").expect("a file");
        };
        write(format!("{PROCESSORS}/possible"), format!("0-{}", processors * 2 - 1));
        write(format!("{PROCESSORS}/kernel_max"), "8191".into());
        write(format!("{NODES}/online"), "0-2".into());
        for package in 0..2 {
            let members = format!("{}-{}", package * half, package * half + half - 1);
            write(format!("{NODES}/node{package}/cpulist"), members.clone());
            for cpu in package * half..package * half + half {
                let topology = format!("{PROCESSORS}/cpu{cpu}/topology");
                write(format!("{topology}/physical_package_id"), package.to_string());
                write(format!("{topology}/core_siblings_list"), members.clone());
                write(format!("{topology}/core_id"), (cpu % half / 2).to_string());
                write(format!("{topology}/thread_siblings_list"), format!("{}-{}", cpu & !1, cpu | 1));
            }
        }
        // A node without processors.
        write(format!("{NODES}/node2/cpulist"), String::new());
    }

    /// What is shown of this machine to a run that may use `usable`.
    fn shown(processors: usize, usable: Set) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let (host, made) = (dir.path().join("host"), dir.path().join("made"));
        fs::create_dir(&made).expect("a directory");
        machine(&host, processors);
        let at = rustix::fs::open(&made, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("it");
        Topology::read(&host, usable).write(&at, true).expect("written");
        dir
    }

    #[test]
    fn only_processors_of_the_run_are_shown() {
        let dir = shown(8, vec![1, 2, 3, 6]);
        let read = |path: &str| {
            let text = fs::read_to_string(dir.path().join("made/devices/system").join(path));
            text.map(|text| text.trim_end().to_owned()).map_err(|error| error.kind())
        };
        for (path, expected) in [
            ("cpu/online", "1-3,6"),
            ("cpu/present", "1-3,6"),
            ("cpu/possible", "0-15"),
            ("cpu/kernel_max", "8191"),
            ("cpu/cpu1/topology/thread_siblings_list", "1"),
            ("cpu/cpu2/topology/thread_siblings_list", "2-3"),
            ("cpu/cpu3/topology/core_siblings", "0000000e"),
            ("cpu/cpu3/topology/core_id", "1"),
            ("cpu/cpu6/topology/physical_package_id", "1"),
            ("cpu/cpu6/topology/core_siblings_list", "6"),
            ("node/online", "0-1"),
            ("node/node0/cpulist", "1-3"),
            ("node/node1/cpumap", "00000040"),
        ] {
            assert_eq!(read(path).as_deref(), Ok(expected), "{path}");
        }
        for path in ["cpu/cpu0/topology/core_id", "node/node2/cpulist", "node/node0/meminfo"] {
            assert_eq!(read(path), Err(std::io::ErrorKind::NotFound), "{path}");
        }
    }

    #[test]
    fn large_machine_has_only_lists() {
        let dir = shown(4, (0..=MAX_DESCRIBED).collect());
        let cpu = dir.path().join("made").join(PROCESSORS);
        assert_eq!(fs::read_to_string(cpu.join("online")).expect("a list"), "0-512\n");
        assert!(!cpu.join("cpu0").exists());
    }

    #[test]
    fn fewer_processors_are_shown_as_if_there_were_no_others() {
        let dir = tempfile::tempdir().expect("a directory");
        machine(dir.path(), 8);
        for (of, count, expected) in [(8, 5, 5), (8, 1, 1), (8, 8, 8), (2, 4, 2)] {
            let limited = Topology::read(dir.path(), (0..of).collect()).limited(Some(count));
            let direct = Topology::read(dir.path(), (0..expected).collect());
            let text = |topology: &Topology, name: &str| {
                let made = dir.path().join(format!("{name}-{of}-{count}"));
                fs::create_dir(&made).expect("a directory");
                let at =
                    rustix::fs::open(&made, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("it");
                topology.write(&at, true).expect("written");
                let grep = std::process::Command::new("grep").args(["-r", "."]).current_dir(&made).output();
                let text = String::from_utf8(grep.expect("grep").stdout).expect("text");
                let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(text(&limited, "limited"), text(&direct, "direct"), "{count} of {of}");
        }
    }

    #[test]
    fn machine_without_sysfs_has_lists_of_the_affinity_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("it");
        Topology::read(Path::new("/nothing"), vec![0, 1]).write(&at, true).expect("written");
        let cpu = dir.path().join(PROCESSORS);
        assert_eq!(fs::read_to_string(cpu.join("online")).expect("a list"), "0-1\n");
        assert!(!cpu.join("possible").exists());
        assert_eq!(fs::read_dir(cpu.join("cpu0/topology")).expect("a directory").count(), 0);
        assert!(!dir.path().join(NODES).exists());
    }
}
