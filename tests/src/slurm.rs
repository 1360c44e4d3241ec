//! A Slurm cluster on this machine, in a network namespace of its own, for sweeps that use it.

use crate::{Place, wrapped_by};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The programs of the packages slurm-wlm, munge and iproute2.
const PROGRAMS: [&str; 5] = ["slurmctld", "slurmd", "munged", "sbatch", "ip"];

/// A running cluster; its daemons end on drop.
pub struct Cluster {
    /// Holds the network namespace.
    holder: Child,
    /// The daemons, by name: `munged`, `slurmctld`, `n1`, …
    daemons: Vec<(String, Child)>,
    config: PathBuf,
}

/// Why no cluster can be started here; none if one can.
pub fn missing() -> Option<String> {
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    let has = |name: &&str| path.split(':').any(|dir| std::path::Path::new(dir).join(name).exists());
    match PROGRAMS.iter().find(|name| !has(name)) {
        Some(name) => Some(format!("{name} is not installed (packages slurm-wlm, munge, iproute2)")),
        None => (!crate::is_root()).then(|| "a network namespace needs root".to_owned()),
    }
}

impl Cluster {
    /// Starts a cluster of nodes with so many processors each, in `slurm` below the place.
    pub fn start(place: &Place, nodes: usize, processors: usize) -> Self {
        let dir = place.path("slurm");
        for name in ["munge", "state", "spool", "log", "run"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        crate::set_mode(&dir.join("munge"), 0o755);
        let config = dir.join("slurm.conf");
        std::fs::write(&config, configuration(&dir, nodes, processors)).unwrap();
        let mut cluster = Self { holder: holder(), daemons: Vec::new(), config };
        std::fs::write(dir.join("munge/key"), [7; 1024]).unwrap();
        crate::set_mode(&dir.join("munge/key"), 0o600);
        let file = |name: &str| dir.join("munge").join(name).to_str().unwrap().to_owned();
        let munged = [
            "--foreground".to_owned(),
            // The place is below a directory that others can write.
            "--force".to_owned(),
            format!("--key-file={}", file("key")),
            format!("--socket={}", file("socket")),
            format!("--pid-file={}", file("pid")),
            format!("--log-file={}", file("log")),
            format!("--seed-file={}", file("seed")),
        ];
        cluster.daemon("munged", Command::new("munged").args(munged));
        cluster.daemon("slurmctld", Command::new("slurmctld").arg("-D"));
        for node in 1..=nodes {
            let name = format!("n{node}");
            std::fs::create_dir_all(dir.join("spool").join(&name)).unwrap();
            cluster.daemon(&name, Command::new("slurmd").args(["-D", "-N", &name]));
        }
        cluster.wait_for_nodes(nodes);
        cluster
    }

    /// The command in the network and with the configuration of the cluster.
    pub fn inside(&self, command: &Command) -> Command {
        let namespace = format!("--net=/proc/{}/ns/net", self.holder.id());
        let mut inside = wrapped_by("nsenter", &[&namespace, "--"], command);
        inside.env("SLURM_CONF", &self.config).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        inside
    }

    /// Kills the daemon of a node, and all that it started.
    pub fn lose(&mut self, node: &str) {
        let (_, daemon) = self.daemons.iter_mut().find(|(name, _)| name == node).unwrap();
        // Each daemon is the leader of a session, and so are the steps of its tasks.
        kill_tree(daemon.id());
        daemon.wait().unwrap();
    }

    /// What a command of Slurm prints.
    pub fn ask(&self, program: &str, args: &[&str]) -> String {
        let output = self.inside(Command::new(program).args(args)).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn daemon(&mut self, name: &str, command: &Command) {
        let mut command = self.inside(command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.daemons.push((name.to_owned(), command.spawn().unwrap()));
    }

    fn wait_for_nodes(&self, nodes: usize) {
        let start = Instant::now();
        while self.ask("sinfo", &["--noheader", "--Node", "--states=idle", "--format=%N"]).lines().count()
            < nodes
        {
            let log = || {
                std::fs::read_to_string(self.config.with_file_name("log").join("slurmctld.log"))
                    .unwrap_or_default()
            };
            assert!(start.elapsed() < Duration::from_secs(60), "{}\n{}", self.ask("sinfo", &[]), log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, daemon) in self.daemons.iter_mut().rev() {
            kill_tree(daemon.id());
            drop(daemon.wait());
        }
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// A process in a network namespace whose loopback device is up.
fn holder() -> Child {
    // Slurm finds no address where there is only that of loopback.
    let script = "ip link set lo up && ip addr add 10.77.0.1/32 dev lo && echo ready && exec sleep infinity";
    let mut child =
        Command::new("unshare").args(["--net", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

/// Kills a process and its descendants.
fn kill_tree(process: u32) {
    let children =
        std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    if let Some(pid) = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw) {
        _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    children.split_whitespace().filter_map(|child| child.parse().ok()).for_each(kill_tree);
}

fn configuration(dir: &std::path::Path, nodes: usize, processors: usize) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let dir = dir.display();
    format!(
        "ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort=16817\nSlurmdPort=16818\n\
         AuthType=auth/munge\nAuthInfo=socket={dir}/munge/socket,cred_expire=5\nCredType=cred/munge\n\
         SlurmUser=root\nSlurmdUser=root\nStateSaveLocation={dir}/state\nSlurmdSpoolDir={dir}/spool/%n\n\
         SlurmctldPidFile={dir}/run/slurmctld.pid\nSlurmdPidFile={dir}/run/slurmd-%n.pid\n\
         SlurmctldLogFile={dir}/log/slurmctld.log\nSlurmdLogFile={dir}/log/slurmd-%n.log\n\
         ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none\n\
         AccountingStorageType=accounting_storage/none\nJobCompType=jobcomp/none\nSchedulerType=sched/backfill\n\
         SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0\n\
         SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nReturnToService=2\nSlurmctldTimeout=10\n\
         SlurmdTimeout=10\nKillWait=2\nUnkillableStepTimeout=20\nInactiveLimit=0\nMinJobAge=300\n\
         MpiDefault=none\nSwitchType=switch/none\n\
         NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[17001-{last}] CPUs={processors} State=UNKNOWN\n\
         PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO\n",
        last = 17000 + nodes
    )
}
