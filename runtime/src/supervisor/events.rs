//! The event loop: launcher, first process, workload, signals, denied calls, and time.

use super::first_process::is_readable;
use super::seccomp_notify::DeniedCalls;
use super::start::BUILD_TIMEOUT;
use super::state::{Ending, Run, State, Waiting};
use crate::outcome::Usage;
use crate::protocol::{self, Answer, FromInit, FromWorkload, Order};
use crate::{hooks, sys};
use invarlock_error::{Context as _, Error, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;
use std::os::fd::AsFd as _;
use std::time::Instant;

/// The source of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Launcher,
    Init,
    Workload,
    Signal,
    DeniedCall,
}

impl Run<'_> {
    /// Starts the run and handles its events until it has ended.
    pub(super) fn go(&mut self) -> Result<()> {
        if !self.host {
            self.start_builder()?;
        }
        while !self.state.has_ended() {
            self.handle_events()?;
        }
        Ok(())
    }

    /// Waits for the next events and handles them.
    fn handle_events(&mut self) -> Result<()> {
        let ready = self.wait()?;
        if self.state.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
            return self.handle_deadline();
        }
        if let Some(denied) = self.state.running_mut().and_then(|running| running.denied.as_mut())
            && ready.contains(&Source::DeniedCall)
        {
            denied.answer()?;
        }
        if self.exceeds_memory()? {
            return Ok(());
        }
        if ready.contains(&Source::Launcher) {
            self.handle_launcher()?;
        }
        if ready.contains(&Source::Init) {
            self.handle_init()?;
        }
        if !self.state.has_ended() && ready.contains(&Source::Workload) {
            self.handle_workload()?;
        }
        self.handle_dead_init()?;
        if let State::Building(building) = &self.state
            && building.received.is_complete()
        {
            self.observe_and_go()?;
        }
        if ready.contains(&Source::Signal) {
            self.handle_signal()?;
        }
        Ok(())
    }

    fn wait(&self) -> Result<Vec<Source>> {
        let (first, running) = (self.state.first(), self.state.running());
        let sockets = [
            (Source::Launcher, Some(self.launcher)),
            (Source::Init, first.and_then(|first| first.socket.as_ref())),
            (Source::Workload, first.and_then(|first| first.workload.as_ref())),
        ];
        let open: Vec<_> =
            sockets.into_iter().filter_map(|(source, socket)| Some((source, socket?))).collect();
        let mut fds: Vec<_> = open.iter().map(|(_, socket)| PollFd::new(*socket, PollFlags::IN)).collect();
        fds.push(PollFd::new(&self.signals, PollFlags::IN));
        let listener = running.and_then(|running| running.denied.as_ref()).and_then(DeniedCalls::listener);
        fds.extend(listener.map(|listener| PollFd::from_borrowed_fd(listener, PollFlags::IN)));
        let next_check = running.and_then(|running| running.watchdog.as_ref()).map(|watchdog| watchdog.next);
        let next = [self.state.deadline(), next_check].into_iter().flatten().min();
        let timeout = next.map(|next| {
            let left = next.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs().min(86_400) as i64, tv_nsec: left.subsec_nanos().into() }
        });
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            other => drop(other.context("waiting for events of the run")?),
        }
        let sources = open.iter().map(|(source, _)| *source).chain([Source::Signal, Source::DeniedCall]);
        Ok(fds
            .iter()
            .zip(sources)
            .filter(|(fd, _)| !fd.revents().is_empty())
            .map(|(_, source)| source)
            .collect())
    }

    fn handle_deadline(&mut self) -> Result<()> {
        match &mut self.state {
            State::Running(running) => {
                running.ending.get_or_insert(Ending::TimedOut);
                self.set_killed(false);
                Ok(())
            }
            _ => bail!(System, "building the container took more than {} s", BUILD_TIMEOUT.as_secs()),
        }
    }

    /// Ends a run whose memory exceeds its limit; true if it does.
    fn exceeds_memory(&mut self) -> Result<bool> {
        let Some(running) = self.state.running_mut().filter(|running| running.ending.is_none()) else {
            return Ok(false);
        };
        let exceeds = running.exceeds_memory()?;
        if exceeds {
            running.ending = Some(Ending::OverMemory);
            self.set_killed(false);
        }
        Ok(exceeds)
    }

    fn handle_launcher(&mut self) -> Result<()> {
        match protocol::receive::<Order>(self.launcher) {
            Ok(Some((Order::Run(request), fds))) => self.begin(*request, fds),
            Ok(Some((Order::Cancel, _))) => {
                self.cancel();
                Ok(())
            }
            Ok(Some((Order::TerminalRestored, _))) => {
                bail!(System, "the launcher sent an unexpected message")
            }
            Ok(None) | Err(_) => bail!(System, "the launcher is gone"),
        }
    }

    /// Sends SIGTERM to a running workload, and ends a run without one.
    fn cancel(&mut self) {
        match &mut self.state {
            State::Running(running) => {
                if running.ending.is_none() {
                    running.ending = Some(Ending::Cancelled);
                    _ = rustix::process::pidfd_send_signal(&running.workload, Signal::TERM);
                    running.deadline = Instant::now() + running.run.request.stop_timeout;
                }
            }
            _ => self.set_killed(true),
        }
    }

    pub(super) fn handle_init(&mut self) -> Result<()> {
        let Some(first) = self.state.first_mut() else { return Ok(()) };
        let Some(socket) = &first.socket else { return Ok(()) };
        match (protocol::receive::<FromInit>(socket)?, &mut self.state) {
            (None, state) => {
                if let Some(first) = state.first_mut() {
                    first.socket = None;
                }
            }
            (Some((FromInit::Failed(error), _)), _) => return Err(error),
            (Some((FromInit::Output, fds)), State::Building(building)) => {
                building.out = fds.into_iter().next();
                hooks::step("supervisor: output handle received");
            }
            (Some((FromInit::Ready(report), fds)), State::Building(building)) => {
                building.received.init = Some(report);
                if let Some(master) = fds.first() {
                    protocol::send(self.launcher, &Answer::Terminal, &[master.as_fd()])
                        .context("sending the terminal to the launcher")?;
                }
            }
            (Some((FromInit::Exited { status, user_us, system_us, peak_kib }, _)), _) => {
                self.drain_workload()?;
                let usage = Usage {
                    cpu_user_ms: user_us / 1000,
                    cpu_system_ms: system_us / 1000,
                    peak_memory_bytes: Some(peak_kib * 1024),
                    peak_memory_by: Some("rusage".into()),
                    ..Usage::default()
                };
                self.set_ended(status, usage, false);
            }
            (Some((FromInit::Output | FromInit::Ready(_), _)), _) => {
                bail!(System, "init of the run sent an unexpected message");
            }
        }
        Ok(())
    }

    /// The failure that the first process reported, if sending to it failed; otherwise the failed result.
    pub(super) fn or_reported_failure(&mut self, sent: Result<()>) -> Result<()> {
        if sent.is_err() && self.state.first().is_some_and(|first| first.is_readable()) {
            self.handle_init()?;
        }
        sent
    }

    /// Ends the run if init is dead: killed from outside, or by the kernel for memory. All processes of the run die with it.
    fn handle_dead_init(&mut self) -> Result<()> {
        let dead = self.state.first().is_some_and(|first| first.socket.is_none());
        if dead && !self.state.has_ended() {
            self.drain_workload()?;
            self.set_killed(false);
        }
        Ok(())
    }

    /// Reads the last messages of the workload. Its end can be reported before its reason.
    fn drain_workload(&mut self) -> Result<()> {
        match self.state.first().and_then(|first| first.workload.as_ref()) {
            Some(socket) => {
                socket.set_nonblocking(true).context("receiving messages of the workload")?;
                self.handle_workload()
            }
            None => Ok(()),
        }
    }

    fn handle_workload(&mut self) -> Result<()> {
        let Some(first) = self.state.first_mut() else { return Ok(()) };
        let Some(socket) = &first.workload else { return Ok(()) };
        let message = FromWorkload::receive(socket)?;
        // A failure can follow the report at once.
        let more = matches!(message, Some(FromWorkload::Report(_))) && is_readable(socket);
        match (message, &mut self.state) {
            (None, state) => {
                if let Some(first) = state.first_mut() {
                    first.workload = None;
                }
            }
            (Some(FromWorkload::Failed(error)), _) => return Err(error),
            (Some(FromWorkload::ExecFailed { errno }), state) => return Err(exec_failed(state, errno)),
            (Some(FromWorkload::Report(report)), State::Building(building)) => {
                building.received.workload = Some(report);
            }
            (Some(FromWorkload::Ready { pid, listener }), State::Building(building)) => {
                building.received.waiting = Some(Waiting { pid, listener });
            }
            (Some(FromWorkload::Report(_) | FromWorkload::Ready { .. }), _) => {
                bail!(System, "the workload sent an unexpected message");
            }
        }
        if more { self.handle_workload() } else { Ok(()) }
    }

    fn handle_signal(&mut self) -> Result<()> {
        let mut info = [0u8; 128];
        if rustix::io::read(&self.signals, &mut info).is_ok() {
            let [a, b, c, d, ..] = info;
            if u32::from_le_bytes([a, b, c, d]) != libc::SIGCHLD as u32 {
                self.cancel();
                return Ok(());
            }
        }
        while let Ok(Some(dead)) = sys::reap() {
            if self.note_early_end(&dead) {
                // It may have reported a reason. The future workload has a copy of its socket, so there may be no end of file.
                if self.state.first().is_some_and(|first| first.is_readable()) {
                    self.handle_init()?;
                }
                self.set_killed(false);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Remembers that the first process failed before the workload was started; true if `dead` is that process.
    pub(super) fn note_early_end(&mut self, dead: &sys::Reaped) -> bool {
        if self.state.has_started() {
            return false;
        }
        let Some(first) = self.state.first_mut() else { return false };
        first.note_early_end(dead);
        dead.pid == first.pid && first.early_end.is_some()
    }
}

fn exec_failed(state: &State, errno: i32) -> Error {
    let argv = match state {
        State::Building(building) => &building.run.request.argv[..],
        State::Running(running) => &running.run.request.argv[..],
        _ => &[],
    };
    let program = argv.first().map(String::as_str).unwrap_or_default();
    let cause = std::io::Error::from_raw_os_error(errno);
    // The kernel gives ENOENT also for an existing program whose interpreter does not exist.
    let hint = match errno {
        libc::ENOENT => {
            "the program is not in the image, or its dynamic loader or interpreter is missing there: use a static program, or add the loader to \
             the image"
        }
        _ => "the program must be in the image, executable, and built for this machine",
    };
    Error::input(format!("starting {program:?} in the container: {cause}"))
        .with_hint(hint)
        .with_program_errno(errno)
}
