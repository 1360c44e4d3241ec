//! Starts the first process of a run, and sends it the request: from `Preparing` to `Building`.

use super::first_process::{FirstProcess, Sockets};
use super::state::{Building, Received, Run, RunRequest, State};
use super::terminal;
use crate::builder::Builder;
use crate::failure::SystemCall as _;
use crate::init::Init;
use crate::observe::expected_inputs;
use crate::protocol::{self, Reply, Request};
use crate::sys::{self, Forked};
use crate::{core_dumps, hints, hooks, limits, prepare, rlimit, user_mounts};
use invarlock_error::{Context as _, Error, Result, bail};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// Building a container takes milliseconds; after this long it has failed.
pub(super) const BUILD_TIMEOUT: Duration = Duration::from_secs(60);

/// The namespaces that a container's first process is cloned into. It creates the cgroup namespace itself, once it is in its cgroup.
fn namespaces() -> libc::c_int {
    let optional = [
        ("pid namespace", libc::CLONE_NEWPID),
        ("network namespace", libc::CLONE_NEWNET),
        ("ipc namespace", libc::CLONE_NEWIPC),
        ("uts namespace", libc::CLONE_NEWUTS),
    ];
    optional
        .into_iter()
        .filter(|(name, _)| !hooks::off(name))
        .fold(libc::CLONE_NEWUSER | libc::CLONE_NEWNS, |all, (_, flag)| all | flag)
}

impl Run<'_> {
    /// Starts a container's first process, in its namespaces from its first instruction.
    pub(super) fn start_builder(&mut self) -> Result<()> {
        let sockets = Sockets::new()?;
        let mut entrances = self.cgroup.entrances()?;
        if self.identity.by_root && !hooks::off("supplementary groups") {
            // Inside the user namespace setgroups is denied.
            rustix::thread::set_thread_groups(&[]).context("dropping supplementary groups")?;
        }
        let target = self.cgroup_target(&mut entrances)?;
        let cloned = sys::clone_process(namespaces(), target.as_ref().map(std::os::fd::AsFd::as_fd))
            .or_unsupported(|| "creating the namespaces of the run".into(), hints::NAMESPACES)
            .in_control("namespaces")?;
        let pid = match cloned {
            Forked::Child => {
                let Sockets { first, workload, first_end, workload_end } = sockets;
                drop((first, workload));
                let identity = self.identity;
                Builder { identity, entrances, socket: first_end, workload_socket: workload_end }.run()
            }
            Forked::Parent(pid, _) => pid,
        };
        self.state = State::Preparing(Some(FirstProcess::new(pid, sockets)));
        hooks::step("supervisor: builder cloned");
        // Some kernels allow every user to create a user namespace, but not to write its maps.
        let mapped = self
            .identity
            .write_maps_of(pid)
            .or_unsupported(|| "preparing the user namespace of the run".into(), hints::NAMESPACES)
            .in_control("namespaces");
        let sent = mapped.and_then(|()| match self.state.first().and_then(|first| first.socket.as_ref()) {
            Some(socket) => {
                Reply::IdsMapped.send(socket).context("telling the builder that its ids are mapped")
            }
            None => Ok(()),
        });
        self.or_reported_failure(sent)
    }

    /// The cgroup that a new process is cloned into. Without clone3(2), it enters by itself.
    fn cgroup_target(&self, entrances: &mut Vec<File>) -> Result<Option<File>> {
        let target = self.cgroup.clone_target()?;
        if target.is_some() && !sys::has_clone3() {
            entrances.extend(self.cgroup.slow_entrance()?);
            return Ok(None);
        }
        Ok(target)
    }

    /// Handles the launcher's request.
    pub(super) fn begin(&mut self, request: Request, mut fds: Vec<OwnedFd>) -> Result<()> {
        hooks::step("supervisor: request received");
        let streams = request.streams.descriptors();
        let files = request.rootfs.len() + request.inputs.len();
        let expected = streams + files + user_mounts::binds(&request.mounts).count();
        let preparing = matches!(self.state, State::Preparing(_));
        if !preparing || request.host.is_some() != self.host || fds.len() != expected {
            bail!(System, "the launcher sent an invalid request");
        }
        let mut limits = limits::enforce(&request.limits, self.cgroup, !self.host)?;
        if let Some(files) = &request.runtime_files {
            rlimit::lower(&mut limits.rlimits, &files.rlimits);
        }
        limits.require(&request.limits)?;
        core_dumps::require(&limits.rlimits)?;
        hooks::step("supervisor: limits set");
        let handles = fds.split_off(streams);
        if request.streams.are_terminal() {
            fds.drain(..).try_for_each(terminal::remember)?;
        }
        if self.identity.by_root && request.runtime_files.is_some() {
            // Programs open their standard streams again, by `/dev/stdout`.
            let (uid, gid) = (self.identity.host_uid, self.identity.host_gid);
            let owner = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            for pipe in &fds {
                rustix::fs::fchown(pipe, Some(owner.0), Some(owner.1))
                    .context("changing the owner of a pipe")?;
            }
        }
        let inputs = expected_inputs(&request, &handles[request.rootfs.len()..])?;
        let binds = user_mounts::expected(&request.mounts, &handles[files..])?;
        let handles = match self.identity.by_root {
            true => prepare::mounts(&request, self.identity, handles).in_control("root file system")?,
            false => handles,
        };
        fds.extend(handles);
        hooks::step("supervisor: handles prepared");
        let deadline = Instant::now() + BUILD_TIMEOUT;
        let run = RunRequest { request, limits, inputs, binds };
        let out = match &run.request.host {
            Some(directory) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let out = rustix::fs::open(directory, flags, Mode::empty())
                    .with_context(|| format!("opening {}", directory.display()))?;
                self.start_on_host(&run, fds)?;
                Some(out)
            }
            None => {
                self.send_to_builder(&run, &fds)?;
                None
            }
        };
        if let State::Preparing(first) = &mut self.state
            && let Some(first) = first.take()
        {
            let received = Received::default();
            self.state = State::Building(Box::new(Building { first, run, deadline, out, received }));
        }
        Ok(())
    }

    fn send_to_builder(&mut self, run: &RunRequest, fds: &[OwnedFd]) -> Result<()> {
        let Some(socket) = self.state.first().and_then(|first| first.socket.as_ref()) else {
            bail!(System, "the builder of the run is dead");
        };
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let sent = protocol::send(socket, &run.build(), &fds).context("sending the request to the builder");
        self.or_reported_failure(sent)
    }

    /// Forks the parent of a plain child.
    fn start_on_host(&mut self, run: &RunRequest, fds: Vec<OwnedFd>) -> Result<()> {
        let sockets = Sockets::new()?;
        let mut entrances = self.cgroup.entrances()?;
        let stdio: [OwnedFd; 2] =
            fds.try_into().map_err(|_| Error::system("a plain child takes no handles"))?;
        let target = self.cgroup_target(&mut entrances)?;
        let cloned = sys::clone_process(0, target.as_ref().map(std::os::fd::AsFd::as_fd))
            .or_no_process(|| "forking the parent of the program".into())?;
        match cloned {
            Forked::Child => {
                let Sockets { first, workload, first_end, workload_end } = sockets;
                let init = Init::new(run.build(), self.identity, &first_end, &workload_end);
                drop((first, workload));
                init.run_on_host(&first_end, &entrances, &stdio)
            }
            Forked::Parent(pid, _) => {
                self.state = State::Preparing(Some(FirstProcess::new(pid, sockets)));
            }
        }
        hooks::step("supervisor: program's parent forked");
        Ok(())
    }
}
