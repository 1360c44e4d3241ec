//! What the others say, and what the supervisor does about it.

use super::refusals::Refusals;
use super::watch::Memory;
use super::{Ending, GRACE, Run, RunRequest};
use crate::hooks;
use crate::observe::View;
use crate::protocol::{self, FromInit, Order, Request};
use crate::spec::Usage;
use crate::sys;
use invarlock_error::{Context as _, Error, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

impl Run<'_> {
    pub(super) fn hear_launcher(&mut self) -> Result<()> {
        let Some(launcher) = self.launcher else { return Ok(()) };
        match protocol::receive::<Order>(launcher) {
            Ok(Some((Order::Run(request), fds))) => self.begin(*request, fds),
            Ok(Some((Order::Cancel, _))) => self.cancel(),
            // Dead, or confused: nobody wants the result.
            Ok(None) | Err(_) => {
                self.launcher = None;
                Err(Error::system("the launcher is gone"))
            }
        }
    }

    pub(super) fn cancel(&mut self) -> Result<()> {
        if self.ending.is_some() {
            return Ok(());
        }
        self.ending = Some(Ending::Cancelled);
        let Some(workload) = &self.workload_pidfd else { return self.kill_now() };
        _ = rustix::process::pidfd_send_signal(workload, Signal::TERM);
        self.deadline = Some(Instant::now() + GRACE);
        Ok(())
    }

    pub(super) fn hear_init(&mut self) -> Result<()> {
        let Some(socket) = &self.init else { return Ok(()) };
        match protocol::receive::<FromInit>(socket)? {
            Some((FromInit::Output, fds)) => {
                self.out = fds.into_iter().next();
                hooks::step("supervisor: output handle received");
            }
            Some((FromInit::Ready(inside), _)) => self.inside = Some(inside),
            Some((FromInit::Failed(error), _)) => return Err(error),
            Some((FromInit::Exited { status, user_us, system_us, peak_kib }, _)) => {
                self.wall = self.started.map_or(Duration::ZERO, |s| s.elapsed());
                self.last_words()?;
                let usage = Usage {
                    cpu_user_ms: user_us / 1000,
                    cpu_system_ms: system_us / 1000,
                    peak_memory_bytes: Some(peak_kib * 1024),
                    peak_memory_by: Some("rusage".into()),
                    ..Usage::default()
                };
                self.exited = Some((status, usage));
            }
            None => self.init = None,
        }
        Ok(())
    }

    /// Whoever cannot be told anything any more may have said why.
    pub(super) fn or_its_reason(&mut self, told: Result<()>) -> Result<()> {
        if told.is_err() && self.init.as_ref().is_some_and(readable) {
            self.hear_init()?;
        }
        told
    }

    /// Init is dead, and with it everything: killed from outside, or by the kernel for memory.
    pub(super) fn hear_silence(&mut self) -> Result<()> {
        if self.exited.is_some() || self.init.is_some() || self.init_pid.is_none() {
            return Ok(());
        }
        self.last_words()?;
        self.kill_now()
    }

    /// The workload's end may be heard before its reason.
    fn last_words(&mut self) -> Result<()> {
        match &self.workload {
            Some(socket) => {
                socket.set_nonblocking(true).context("listening to the workload")?;
                self.hear_workload()
            }
            None => Ok(()),
        }
    }

    pub(super) fn hear_workload(&mut self) -> Result<()> {
        let Some(socket) = &self.workload else { return Ok(()) };
        match protocol::receive_ready(socket)? {
            None => self.workload = None,
            Some((b'S', _)) => {
                self.own = protocol::receive(socket)?.map(|(seen, _)| seen);
                // More may have come already, and be its last words.
                if readable(socket) {
                    return self.hear_workload();
                }
            }
            Some((b'R', pid)) => self.waiting = Some((pid, protocol::receive_number(socket)?)),
            Some((b'E', _)) => {
                let mut errno = [0; 4];
                (&*socket).read_exact(&mut errno).context("hearing why the program did not start")?;
                let cause = std::io::Error::from_raw_os_error(i32::from_le_bytes(errno));
                let told = self.told.as_ref().and_then(|told| told.request.argv.first());
                let program = told.map(String::as_str).unwrap_or_default();
                return Err(Error::input(format!(
                    "starting {program:?} in the container: {cause}; the program must be in the image, executable, and made for this machine"
                )));
            }
            Some(_) => match protocol::receive::<FromInit>(socket)? {
                Some((FromInit::Failed(error), _)) => return Err(error),
                _ => {
                    return Err(Error::system("the workload could not be started and did not say why"));
                }
            },
        }
        Ok(())
    }

    /// The workload waits, filter on. What the kernel says of it decides whether it starts.
    pub(super) fn observe_and_go(&mut self) -> Result<()> {
        let (Some((pid, listener)), Some(inside), Some(own)) =
            (self.waiting.take(), self.inside.take(), self.own.take())
        else {
            return Ok(());
        };
        let (Some(socket), Some(RunRequest { request, holding, inputs })) = (&self.workload, &mut self.told)
        else {
            return Ok(());
        };
        hooks::step("supervisor: workload waits");
        let raw = rustix::process::Pid::from_raw(pid)
            .ok_or_else(|| Error::system("the workload has no process id"))?;
        let handle = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty())
            .context("watching the workload")
            .and_then(|handle| {
                sys::can_signal(handle.as_fd()).context("reaching the workload with signals")?;
                Ok(handle)
            })
            .in_control("life")?;
        if let Some(listener) = listener {
            self.refusals = Some(Refusals::take(handle.as_fd(), listener, request.learning.clone())?);
        }
        self.tmp = holding.read_back(pid, self.out.as_ref())?;
        if !self.host {
            // With a handle of its mounts its last process need not wait for the kernel to take them away.
            self.mounts = Some(mount_namespace(pid)?);
        }
        let view = View {
            pid,
            init: self.init_pid.unwrap_or_default(),
            request,
            identity: self.identity,
            limits: holding.rows.clone(),
            inputs,
            cgroup: self.cgroup,
        };
        let seen = view.take(inside, own)?;
        view.check(&seen)?;
        self.observations = Some(seen);
        self.workload_pidfd = Some(handle);
        let now = Instant::now();
        (self.started, self.deadline) = (Some(now), Some(now + wall_limit(request)));
        self.watch = holding.watched().map(|limit| Memory::new(limit, now));
        hooks::step("supervisor: observed");
        (&*socket).write_all(b"G").context("starting the workload")?;
        hooks::step("supervisor: workload started");
        Ok(())
    }

    pub(super) fn hear_signal(&mut self, signals: &OwnedFd) -> Result<()> {
        let mut info = [0u8; 128];
        if rustix::io::read(signals, &mut info).is_ok() {
            let [a, b, c, d, ..] = info;
            if u32::from_le_bytes([a, b, c, d]) != libc::SIGCHLD as u32 {
                return self.cancel();
            }
        }
        while let Ok(Some(dead)) = sys::reap() {
            self.note_early_end(&dead);
            if Some(dead.pid) == self.init_pid && self.early_end.is_some() {
                // It may have told its reason. The workload-to-be has a copy of its end, so there need not be an end of file.
                if self.init.as_ref().is_some_and(readable) {
                    self.hear_init()?;
                }
                return self.kill_now();
            }
        }
        Ok(())
    }
}

fn wall_limit(request: &Request) -> Duration {
    if hooks::off("wall limit") { Duration::from_secs(86_400) } else { request.limits.wall }
}

fn mount_namespace(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/mnt");
    std::fs::File::open(&path).map(OwnedFd::from).with_context(|| format!("opening {path}"))
}

fn readable(socket: &UnixStream) -> bool {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
}
