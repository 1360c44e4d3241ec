//! Reads the state of a running container from the kernel, on the host, in the JSON form of the
//! observations. It uses no code of the runtime crate.

use invarlock_tests::{is_root, leaks};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Paths of `/proc` that a container masks if the kernel has them.
const MASKED: [&str; 15] = [
    "acpi",
    "asound",
    "kcore",
    "keys",
    "latency_stats",
    "pressure",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
    "bus",
    "fs",
    "irq",
    "sys",
    "sysrq-trigger",
];

/// The processes of a container whose workload runs.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    pub supervisor: u32,
    pub init: u32,
    pub workload: u32,
}

/// Waits for the container of the launcher whose workload has executed the program `name`.
pub fn running(launcher: u32, name: &str) -> Running {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        for supervisor in leaks::children(launcher) {
            for init in leaks::children(supervisor) {
                let mut workloads = leaks::children(init).into_iter();
                let has_name = |pid: &u32| read(&format!("/proc/{pid}/comm")).trim() == name;
                if let Some(workload) = workloads.find(has_name) {
                    return Running { supervisor, init, workload };
                }
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no workload {name} below {launcher}");
}

pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn status(pid: u32, key: &str) -> String {
    let text = read(&format!("/proc/{pid}/status"));
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{key} of {pid}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().map(|n| n.parse().unwrap()).collect()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap()
}

impl Running {
    fn proc_file(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.workload);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn proc_link(&self, file: &str) -> String {
        fs::read_link(format!("/proc/{}/{file}", self.workload)).unwrap().display().to_string()
    }

    fn proc_path(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.workload.to_string()).join(file)
    }

    /// Every control that can be read from outside the process, by name.
    pub fn controls(&self, launcher: u32) -> Map<String, Value> {
        let status_field = |key| status(self.workload, key);
        let lines = |file: &str| -> Vec<String> {
            self.proc_file(file).lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
        };
        let controls = json!({
            "namespaces": self.namespaces(launcher),
            "interfaces": self.interfaces(),
            "routes": self.routes(),
            "sockets": self.proc_file("net/unix").lines().filter(|l| l.contains(" @")).collect::<Vec<_>>(),
            "seccomp": self.seccomp(),
            "no_new_privs": status_field("NoNewPrivs") == "1",
            "capabilities": {
                "inheritable": status_field("CapInh"),
                "permitted": status_field("CapPrm"),
                "effective": status_field("CapEff"),
                "bounding": status_field("CapBnd"),
                "ambient": status_field("CapAmb"),
            },
            "identity": {
                "uid": numbers(&status_field("Uid")),
                "gid": numbers(&status_field("Gid")),
                "groups": numbers(&status_field("Groups")),
            },
            "ids_inside": {"uid": self.ids_inside("uid_map", "Uid"), "gid": self.ids_inside("gid_map", "Gid")},
            "id_maps": {
                "uid": lines("uid_map"),
                "gid": lines("gid_map"),
                "setgroups": self.proc_file("setgroups").trim(),
            },
            "host_name": self.host_name(),
            "mounts": self.mounts(),
            "inputs": self.inputs(),
            "devices": self.devices(),
            "proc": self.proc(),
            "descriptors": self.descriptors(),
            "environment": self.environment_names(),
            "process": self.process(),
            "init": self.init(),
            "cgroup": lines("cgroup"),
            "limits": self.limits(),
            "rlimits": self.rlimits(),
            "core_dumps": self.core_dumps(),
            "user_limits": self.user_limits(),
        });
        controls.as_object().unwrap().clone()
    }

    fn namespaces(&self, launcher: u32) -> Value {
        let id = |pid: u32, name: &str| {
            let link = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().display().to_string();
            number(link.split(['[', ']']).nth(1).unwrap())
        };
        let compare = |name: &str| {
            let (outer, inner) = (id(launcher, name), id(self.workload, name));
            (name.to_owned(), json!({"launcher": outer, "container": inner, "new": outer != inner}))
        };
        ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"]
            .map(compare)
            .into_iter()
            .collect::<Map<_, _>>()
            .into()
    }

    fn interfaces(&self) -> Vec<String> {
        let text = self.proc_file("net/dev");
        text.lines().skip(2).map(|l| l.split(':').next().unwrap().trim().to_owned()).collect()
    }

    fn environment_names(&self) -> Vec<Option<String>> {
        let text = self.proc_file("environ");
        text.split_terminator('\0').map(|v| v.split('=').next().map(str::to_owned)).collect()
    }

    fn routes(&self) -> Vec<String> {
        let (v4, v6) =
            (self.proc_file("net/route"), read(&format!("/proc/{}/net/ipv6_route", self.workload)));
        let v4 = v4.lines().skip(1).filter(|l| !l.starts_with("lo"));
        v4.chain(v6.lines().filter(|l| !l.ends_with("lo"))).map(str::to_owned).collect()
    }

    /// Only root can read the filter program from the kernel. For other users the digest is null.
    fn seccomp(&self) -> Value {
        let count = |pid| number(&status(pid, "Seccomp_filters"));
        let (filters, inherited) = (count(self.workload), count(self.supervisor));
        let digest = match is_root() {
            true => {
                let programs =
                    super::sys::filters(self.workload as i32, (filters - inherited) as usize).unwrap();
                // The digest covers the number of programs, then length and bytes of each.
                let mut digest = Sha256::new();
                digest.update((programs.len() as u32).to_le_bytes());
                for program in programs {
                    digest.update((program.len() as u32).to_le_bytes());
                    digest.update(program);
                }
                let digest = digest.finalize();
                json!(format!("sha256:{}", digest.iter().map(|b| format!("{b:02x}")).collect::<String>()))
            }
            false => Value::Null,
        };
        let mode = number(&status(self.workload, "Seccomp"));
        json!({"mode": mode, "filters": filters, "inherited": inherited, "digest": digest})
    }

    /// The ids inside the container, computed from the ids on the host and the id map.
    fn ids_inside(&self, map: &str, key: &str) -> Vec<u64> {
        let map: Vec<Vec<u64>> = self.proc_file(map).lines().map(numbers).collect();
        let inside = |id: u64| {
            let line = map.iter().find(|l| (l[1]..l[1] + l[2]).contains(&id)).unwrap();
            line[0] + id - line[1]
        };
        numbers(&status(self.workload, key)).into_iter().map(inside).collect()
    }

    /// Host and domain name, read inside the container's UTS namespace.
    fn host_name(&self) -> Value {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.workload.to_string(), "--uts"]);
        if !is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        let out = command
            .args(["cat", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname"])
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        let names: Vec<&str> = text.lines().collect();
        json!({"host": names[0], "domain": names[1]})
    }

    fn mount_entries(&self) -> Vec<(u64, Value)> {
        let entry = |line: &str| {
            let fields: Vec<&str> = line.split(' ').collect();
            let dash = fields.iter().position(|f| *f == "-").unwrap();
            let peers = fields[6..dash].join(" ");
            let propagation = if peers.is_empty() { "private" } else { &peers };
            let mount = json!({
                "target": fields[4], "options": fields[5], "kind": fields[dash + 1], "propagation": propagation,
            });
            (number(fields[0]), mount)
        };
        self.proc_file("mountinfo").lines().map(entry).collect()
    }

    fn mounts(&self) -> Vec<Value> {
        self.mount_entries().into_iter().map(|(_, mount)| mount).collect()
    }

    /// Every file below `/in`. A mounted file of the host also gets its device and inode.
    fn inputs(&self) -> Value {
        let root = self.proc_path("root");
        let in_device = fs::metadata(root.join("in")).unwrap().dev();
        let (mut inputs, mut queue) = (Map::new(), vec![root.join("in")]);
        while let Some(path) = queue.pop() {
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                queue.extend(fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
                continue;
            }
            let target = format!("/{}", path.strip_prefix(&root).unwrap().display());
            let mut input = json!({"target": target, "bytes": meta.len()});
            if meta.dev() != in_device {
                input["file"] = json!(device_and_inode(&meta));
            }
            inputs.insert(target, input);
        }
        // Sorted by target.
        inputs.into_iter().map(|(_, input)| input).collect()
    }

    fn devices(&self) -> Value {
        let entries = fs::read_dir(self.proc_path("root/dev")).unwrap().map(|e| e.unwrap());
        let name_and_number = |entry: fs::DirEntry| {
            let meta = entry.path().symlink_metadata().unwrap();
            let kind = meta.file_type();
            let value = match (kind.is_char_device(), kind.is_dir(), kind.is_symlink()) {
                (true, ..) => device(meta.rdev()),
                (_, true, _) => "Directory".to_owned(),
                (.., true) => "Symlink".to_owned(),
                _ => panic!("{entry:?}"),
            };
            (entry.file_name().to_string_lossy().into_owned(), json!(value))
        };
        entries.map(name_and_number).collect::<Map<_, _>>().into()
    }

    fn proc(&self) -> Value {
        let entries = fs::read_dir(self.proc_path("root/proc")).unwrap();
        let mut processes: Vec<u64> =
            entries.filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok()).collect();
        processes.sort_unstable();
        let absent = MASKED.iter().filter(|name| !self.proc_path(&format!("root/proc/{name}")).exists());
        json!({"processes": processes, "absent": absent.map(|name| format!("/proc/{name}")).collect::<Vec<_>>()})
    }

    fn descriptors(&self) -> Vec<Value> {
        let mut open: Vec<(u64, String)> = fs::read_dir(self.proc_path("fd"))
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| {
                (
                    number(e.file_name().to_str().unwrap()),
                    fs::read_link(e.path()).unwrap().display().to_string(),
                )
            })
            .collect();
        open.sort();
        open.iter().map(|(fd, target)| json!({"fd": fd, "what": target.split(':').next()})).collect()
    }

    fn process(&self) -> Value {
        let stat = self.proc_file("stat");
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let pid = self.workload.to_string();
        let cwd = fs::File::open(self.proc_path("cwd")).unwrap();
        let info = read(&format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&cwd)));
        let id = number(info.lines().find_map(|l| l.strip_prefix("mnt_id:")).unwrap());
        let mount = self
            .mount_entries()
            .into_iter()
            .find(|(mount, _)| *mount == id)
            .map(|(_, mount)| mount["target"].clone());
        json!({
            "cwd": self.proc_link("cwd"), "cwd_mount": mount, "umask": status(self.workload, "Umask"),
            "group_leader": fields[2] == pid, "session_leader": fields[3] == pid, "terminal": fields[4] != "0",
            "oom_score_adj": self.proc_file("oom_score_adj").trim().parse::<i64>().unwrap(),
        })
    }

    fn init(&self) -> Value {
        let innermost = |key| number(status(self.init, key).split(' ').next_back().unwrap());
        let environ = fs::metadata(format!("/proc/{}/environ", self.init)).unwrap();
        let directory = fs::metadata(format!("/proc/{}", self.init)).unwrap();
        json!({
            "pid": innermost("NSpid"),
            "child_of_supervisor": status(self.init, "PPid") == self.supervisor.to_string(),
            "parent_of_workload": status(self.workload, "PPid") == self.init.to_string(),
            // If the process is not dumpable, root owns its files.
            "dumpable": environ.uid() == directory.uid(),
        })
    }

    /// The value of each limit, by each mechanism that can enforce it. The supervisor enforces the
    /// wall-clock limit; a separate test checks its effect.
    fn limits(&self) -> Value {
        let processors = numbers_in_list(&status(self.workload, "Cpus_allowed_list")) * 1000;
        json!({
            "memory": {"cgroup": self.in_cgroup("memory"), "rlimit": self.rlimit("Max data size")},
            "pids": {"cgroup": self.in_cgroup("pids"), "rlimit": self.rlimit("Max processes")},
            "cpu": {"cgroup": self.in_cgroup("cpu"), "affinity": processors},
            "core": {"rlimit": self.rlimit("Max core file size")},
            "files": {"rlimit": self.rlimit("Max open files")},
            "output": {"tmpfs": self.capacity("out").0},
            // One inode is the directory itself.
            "output_files": {"tmpfs": self.capacity("out").1 - 1},
            "tmp": {"tmpfs": self.capacity("tmp").0},
        })
    }

    fn rlimit(&self, label: &str) -> Value {
        let limits = self.proc_file("limits");
        let line = limits.lines().find_map(|l| l.strip_prefix(label)).unwrap();
        let soft_and_hard: Vec<&str> = line.split_whitespace().take(2).collect();
        if soft_and_hard[0] == soft_and_hard[1] {
            json!(soft_and_hard[0].parse::<u64>().ok())
        } else {
            json!(soft_and_hard)
        }
    }

    /// All resource limits by name.
    fn rlimits(&self) -> Value {
        const NAMES: [&str; 16] = [
            "cpu",
            "fsize",
            "data",
            "stack",
            "core",
            "rss",
            "nproc",
            "nofile",
            "memlock",
            "as",
            "locks",
            "sigpending",
            "msgqueue",
            "nice",
            "rtprio",
            "rttime",
        ];
        // The kernel prints them in the order of their numbers, each with its label in 26 columns.
        let text = self.proc_file("limits");
        let limits = text.lines().skip(1).zip(NAMES).map(|(line, name)| {
            let mut values = line[26..].split_whitespace().map(|value| value.parse::<u64>().ok());
            (name.to_owned(), json!({"soft": values.next().unwrap(), "hard": values.next().unwrap()}))
        });
        limits.collect::<Map<_, _>>().into()
    }

    fn core_dumps(&self) -> Value {
        let handler = match read("/proc/sys/kernel/core_pattern").chars().next() {
            Some('|') => "program",
            Some('@') => "socket",
            _ => "file",
        };
        let filter = u64::from_str_radix(self.proc_file("coredump_filter").trim(), 16).unwrap();
        json!({"handler": handler, "limit": self.rlimits()["core"], "filter": filter})
    }

    /// The limits of the run's user namespace, read by a process that enters it.
    fn user_limits(&self) -> Value {
        let out = Command::new("nsenter")
            .args(["--target", &self.workload.to_string(), "--user", "--preserve-credentials"])
            .args(["sh", "-c", "cd /proc/sys/user && grep -H . max_*"])
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        let limits = text.lines().filter(|line| !line.starts_with("max_mnt_namespaces")).map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_owned(), json!(number(value)))
        });
        limits.collect::<Map<_, _>>().into()
    }

    /// Bytes and inodes of the file system.
    fn capacity(&self, dir: &str) -> (u64, u64) {
        let stat = rustix::fs::statvfs(self.proc_path(&format!("root/{dir}"))).unwrap();
        (stat.f_blocks * stat.f_frsize, stat.f_files)
    }

    /// The limit in the run's own cgroup, if the run has one for this controller. Fails the test if
    /// the workload is not in that cgroup.
    fn in_cgroup(&self, controller: &str) -> Option<u64> {
        let groups = self.proc_file("cgroup");
        let cgroup_path = |wanted: &str| {
            groups.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (controllers, path) = (parts.next()?, parts.next()?);
                controllers.split(',').any(|c| c == wanted).then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let mounts = read("/proc/self/mountinfo");
        let mount = |wanted: &dyn Fn(&str) -> bool| {
            mounts.lines().find(|l| wanted(l)).map(|l| PathBuf::from(l.split(' ').nth(4).unwrap()))
        };
        let is_v1 = |l: &str| {
            l.contains(" - cgroup ") && l.rsplit(' ').next().unwrap().split(',').any(|o| o == controller)
        };
        let (dir, version) = match mount(&is_v1) {
            Some(mount) => (mount.join(cgroup_path(controller)?), 1),
            None => (mount(&|l: &str| l.contains(" - cgroup2 "))?.join(cgroup_path("")?), 2),
        };
        if !dir.file_name()?.to_str()?.starts_with("invarlock-") {
            return None;
        }
        let file = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        assert!(file("cgroup.procs").lines().any(|l| l == self.workload.to_string()), "{dir:?}");
        Some(match (controller, version) {
            ("memory", 1) => number(&file("memory.limit_in_bytes")),
            ("memory", _) => number(&file("memory.max")),
            ("pids", _) => number(&file("pids.max")),
            (_, 1) => number(&file("cpu.cfs_quota_us")) * 1000 / number(&file("cpu.cfs_period_us")),
            _ => {
                let quota_and_period = numbers(&file("cpu.max"));
                quota_and_period[0] * 1000 / quota_and_period[1]
            }
        })
    }
}

fn device(number: u64) -> String {
    format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number))
}

pub fn device_and_inode(meta: &fs::Metadata) -> String {
    format!("{} {}", device(meta.dev()), meta.ino())
}

/// The count of numbers in a list such as `0-3,5`.
fn numbers_in_list(list: &str) -> u64 {
    let count = |part: &str| match part.split_once('-') {
        Some((first, last)) => number(last) - number(first) + 1,
        None => 1,
    };
    list.split(',').map(count).sum()
}
