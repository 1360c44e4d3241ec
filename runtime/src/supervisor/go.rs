//! Observes the waiting workload and lets it go: from `Building` to `Running`.

use super::memory_watchdog::MemoryWatchdog;
use super::seccomp_notify::DeniedCalls;
use super::state::{Building, ContainerHandles, Received, Run, RunRequest, Running, State};
use crate::observe::View;
use crate::protocol::{Reply, Request};
use crate::{hooks, sys};
use invarlock_error::{Context as _, Error, Result};
use rustix::process::{Pid, PidfdFlags};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

impl Received {
    pub(super) fn is_complete(&self) -> bool {
        self.init.is_some() && self.workload.is_some() && self.waiting.is_some()
    }
}

impl Run<'_> {
    /// The workload waits under its filter. It starts only if the kernel reports the requested boundary.
    pub(super) fn observe_and_go(&mut self) -> Result<()> {
        let State::Building(building) = &mut self.state else { return Ok(()) };
        let Building { first, run, out, received, .. } = &mut **building;
        let RunRequest { request, limits, inputs, binds } = run;
        let Received { init: Some(init), workload: Some(report), waiting: Some(waiting) } =
            std::mem::take(received)
        else {
            return Ok(());
        };
        hooks::step("supervisor: workload waits");
        let pid = waiting.pid;
        let workload = open_pidfd(pid).in_control("life")?;
        let denied = waiting
            .listener
            .map(|number| DeniedCalls::take(workload.as_fd(), number, request.trace.clone()))
            .transpose()?;
        let out_handle = out.as_ref().ok_or_else(|| Error::system("the run has no handle of its /out"))?;
        let tmp = limits.read_back(pid, out_handle)?;
        let container = match tmp {
            Some(tmp) => Some(ContainerHandles { tmp, mounts: mount_namespace(pid)? }),
            None => None,
        };
        let view = View {
            pid,
            init: first.pid,
            request,
            identity: self.identity,
            limits: limits.observed.clone(),
            requested_rlimits: &limits.rlimits,
            rlimits: &limits.observed_rlimits,
            inputs,
            binds,
            cgroup: self.cgroup,
        };
        let observations = view.observe(init, report)?;
        view.check(&observations)?;
        let started = Instant::now();
        let deadline = started + wall_limit(request);
        let watchdog = limits.watchdog_limit().map(|limit| MemoryWatchdog::new(limit, !self.host, started));
        hooks::step("supervisor: observed");
        if let Some(socket) = &first.workload {
            Reply::Go.send(socket).context("starting the workload")?;
        }
        self.state = match std::mem::replace(&mut self.state, State::Preparing(None)) {
            State::Building(building) => {
                let Building { first, run, out, .. } = *building;
                let out = out.ok_or_else(|| Error::system("the run has no handle of its /out"))?;
                let ending = None;
                State::Running(Box::new(Running {
                    first,
                    run,
                    workload,
                    out,
                    container,
                    observations,
                    denied,
                    watchdog,
                    started,
                    deadline,
                    ending,
                }))
            }
            other => other,
        };
        hooks::step("supervisor: workload started");
        Ok(())
    }
}

fn open_pidfd(pid: i32) -> Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or_else(|| Error::system("the workload has no process id"))?;
    let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).context("watching the workload")?;
    sys::can_signal(handle.as_fd()).context("sending signals to the workload")?;
    Ok(handle)
}

fn wall_limit(request: &Request) -> Duration {
    if hooks::off("wall limit") { Duration::from_secs(86_400) } else { request.limits.wall }
}

fn mount_namespace(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/mnt");
    std::fs::File::open(&path).map(OwnedFd::from).with_context(|| format!("opening {path}"))
}
