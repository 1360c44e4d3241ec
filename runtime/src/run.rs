//! The launcher's side of a run: starts a supervisor, sends it the request and the handles, relays the workload's output, receives the outcome.

use crate::bind_source::BindSource;
use crate::hooks::{self, Hooks};
use crate::identity::IdsInside;
use crate::outcome::{Outcome, OutputFile, Sink};
use crate::protocol::{self, Answer, Done, Order, Prepare, Request, RequestInput};
use crate::spec::{ContainerSpec, HostSpec, Input, InputSource, Rootfs, check_limits, check_strings};
use crate::stdio::{CallerTerminal, Connected, Feed, Stdio, Streams};
use crate::user_mounts::RequestMount;
use crate::{executable, seal, state};
use invarlock_error::{Context as _, Error, Kind, Result, bail};
use invarlock_seccomp::ResolvedProfile;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Mutex;

/// The most bytes of standard output, and of standard error, that are relayed. Further bytes are read and discarded, so that the
/// workload continues.
pub const MAX_LOG: u64 = 64 << 20;
const BLOCK: usize = 64 << 10;

/// A supervisor that waits for its run. It prepares everything that does not depend on the run, so start it before the work that determines
/// the run. Dropped without a run, it leaves nothing.
///
/// The program's `main` must first call [`crate::reexec::run_if_child`]. The caller may have threads: only new processes clone.
#[derive(Debug)]
pub struct Supervisor {
    socket: UnixStream,
    /// The ids of the workload that it was told, and for which it prepares the run; none for those of a measurement.
    prepared: Option<Option<IdsInside>>,
    child: Reaper,
}

/// Runs a container to its end. `cancel` becoming readable asks it to stop: SIGTERM, and SIGKILL later.
pub fn run(spec: ContainerSpec, cancel: BorrowedFd<'_>, sink: &mut dyn Sink) -> Result<Outcome> {
    Supervisor::for_container()?.run(spec, cancel, sink)
}

/// Runs a trusted program as a plain child with a filter and limits.
pub fn run_on_host(spec: HostSpec, cancel: BorrowedFd<'_>, sink: &mut dyn Sink) -> Result<Outcome> {
    let mut supervisor = Supervisor::start()?;
    supervisor.send_prepare(true, None)?;
    supervisor.run_on_host(spec, cancel, sink)
}

impl Supervisor {
    /// Starts a supervisor for a container with the ids of a measurement.
    pub fn for_container() -> Result<Self> {
        let mut supervisor = Supervisor::start()?;
        supervisor.send_prepare(false, None)?;
        Ok(supervisor)
    }

    /// Starts a supervisor for a container whose ids are not known yet: it waits for [`Supervisor::prepare`].
    pub fn for_container_with_ids() -> Result<Self> {
        Supervisor::start()
    }

    /// Prepares the run of a workload with these ids inside. It can be called again with the same ids.
    pub fn prepare(&mut self, inside: IdsInside) -> Result<()> {
        match self.prepared {
            None => self.send_prepare(false, Some(inside)),
            Some(ids) if ids == Some(inside) => Ok(()),
            Some(_) => bail!(System, "the supervisor already prepares a run with other ids than {inside:?}"),
        }
    }

    fn start() -> Result<Self> {
        let (socket, supervisor_end) = UnixStream::pair().context("creating a socket")?;
        let child = executable::spawn(supervisor_end)?;
        hooks::step("launcher: supervisor started");
        Ok(Supervisor { socket, prepared: None, child: Reaper(Some(child)) })
    }

    fn send_prepare(&mut self, host: bool, inside: Option<IdsInside>) -> Result<()> {
        let prepare = Prepare { state: state::directory()?, host, inside, hooks: Hooks::from_environment() };
        protocol::send(&self.socket, &prepare, &[]).context("preparing the supervisor")?;
        self.prepared = Some(inside);
        Ok(())
    }

    /// Runs a container like [`run()`].
    pub fn run(self, spec: ContainerSpec, cancel: BorrowedFd<'_>, sink: &mut dyn Sink) -> Result<Outcome> {
        self.run_container(spec, None, cancel, sink)
    }

    /// Runs a container under `profile` instead of the filter of `spec`, and records the allowed and denied calls in the outcome. Every call
    /// is reported to the supervisor, which answers as the compiled profile would, so the run takes much longer.
    pub fn trace_profile(
        self,
        mut spec: ContainerSpec,
        profile: ResolvedProfile,
        cancel: BorrowedFd<'_>,
        sink: &mut dyn Sink,
    ) -> Result<Outcome> {
        spec.filter = profile.compile_trace().context("compiling a filter that reports every call")?;
        self.run_container(spec, Some(profile), cancel, sink)
    }

    fn run_container(
        self,
        spec: ContainerSpec,
        trace: Option<ResolvedProfile>,
        cancel: BorrowedFd<'_>,
        sink: &mut dyn Sink,
    ) -> Result<Outcome> {
        spec.check()?;
        let (rootfs, mut fds) = opened(spec.rootfs)?;
        let mut inputs = Vec::new();
        for input in spec.inputs {
            let (input, fd) = request_input(input)?;
            inputs.push(input);
            fds.push(fd);
        }
        let mut mounts = Vec::new();
        for mount in spec.mounts {
            let (mount, fd) = RequestMount::of(mount);
            mounts.push(mount);
            fds.extend(fd);
        }
        let request = Request {
            rootfs,
            argv: spec.argv,
            env: spec.env,
            cwd: spec.cwd,
            inputs,
            mounts,
            streams: spec.stdio.streams()?,
            filter: spec.filter,
            limits: spec.limits,
            collect_output: spec.collect_output,
            stop_timeout: spec.stop_timeout,
            runtime_files: spec.runtime_files,
            host: None,
            trace,
        };
        self.run_request(request, spec.stdio, fds, cancel, sink)
    }

    fn run_on_host(self, spec: HostSpec, cancel: BorrowedFd<'_>, sink: &mut dyn Sink) -> Result<Outcome> {
        let relative = |path: &Path| Error::input(format!("{} is not an absolute path", path.display()));
        let program = spec.program.to_str().filter(|path| path.starts_with('/'));
        let program = program.ok_or_else(|| relative(&spec.program))?;
        if !spec.output.is_absolute() {
            return Err(relative(&spec.output));
        }
        let argv: Vec<String> = std::iter::once(program.to_owned()).chain(spec.args).collect();
        check_strings(&argv, &spec.env)?;
        check_limits(&spec.limits)?;
        let request = Request {
            rootfs: Vec::new(),
            argv,
            env: spec.env,
            cwd: "/".into(),
            inputs: Vec::new(),
            mounts: Vec::new(),
            streams: Streams::Output,
            filter: spec.filter,
            limits: spec.limits,
            collect_output: true,
            stop_timeout: ContainerSpec::STOP_TIMEOUT,
            runtime_files: None,
            host: Some(spec.output),
            trace: None,
        };
        self.run_request(request, Stdio::Output, Vec::new(), cancel, sink)
    }

    fn run_request(
        mut self,
        request: Request,
        stdio: Stdio,
        inputs: Vec<OwnedFd>,
        cancel: BorrowedFd<'_>,
        sink: &mut dyn Sink,
    ) -> Result<Outcome> {
        if self.prepared.is_none() {
            self.send_prepare(false, None)?;
        }
        let (mut relay, mut descriptors, mut feed) = (Relay::default(), Vec::new(), None);
        if !matches!(stdio, Stdio::Terminal(_)) {
            for stream in &mut relay.streams {
                let (read, write) = output_pipe()?;
                stream.pipe = Some(read);
                descriptors.push(write);
            }
        }
        match stdio {
            Stdio::Output => {}
            Stdio::Input(from) => {
                let (read, write) = pipe()?;
                descriptors.push(read);
                feed = Some(Feed::start(from, write, None)?);
            }
            Stdio::Terminal(caller) => {
                descriptors.push(caller.handle.try_clone().context("duplicating the caller's terminal")?);
                relay.terminal = Some(caller);
            }
        }
        descriptors.extend(inputs);
        let fds: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
        let sent = protocol::send(&self.socket, &Order::Run(Box::new(request)), &fds);
        drop(descriptors);
        hooks::step("launcher: run handed over");
        let result = match sent {
            Ok(()) => relay.until_answer(&self.socket, cancel, sink),
            // The supervisor may have failed before it received the request; its answer has the reason.
            Err(_) => protocol::receive(&self.socket).and_then(|answer| relay.finish(answer, sink)),
        };
        if relay.disconnect() {
            // The supervisor waits for it.
            drop(protocol::send(&self.socket, &Order::TerminalRestored, &[]));
        }
        hooks::step("launcher: outcome received");
        let (done, files) = result?;
        feed.map_or(Ok(()), |feed| feed.check())?;
        self.child.reap_later();
        outcome(done, files, &relay)
    }
}

/// The paths of a root file system, and their handles.
fn opened(rootfs: Rootfs) -> Result<(Vec<PathBuf>, Vec<OwnedFd>)> {
    let layers = match rootfs {
        Rootfs::Directory(BindSource { path, handle, .. }) => return Ok((vec![path], vec![handle])),
        Rootfs::Layers(layers) => layers,
    };
    let open = |layer: &PathBuf| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(layer, flags, Mode::empty())
            .with_context(|| format!("opening layer {}", layer.display()))
            .kind(Kind::Input)
    };
    let handles = layers.iter().map(open).collect::<Result<_>>()?;
    Ok((layers, handles))
}

/// The input as it is sent to the supervisor, and its descriptor.
fn request_input(input: Input) -> Result<(RequestInput, OwnedFd)> {
    let (path, fd) = match input.source {
        InputSource::File { path, file } => {
            let attributes =
                file.metadata().with_context(|| format!("reading the attributes of {}", path.display()))?;
            if !attributes.is_file() {
                bail!(Safety, "input {} is not a regular file", path.display());
            }
            (Some(path), OwnedFd::from(file))
        }
        InputSource::Bytes(bytes) => (None, seal::memory_file(&bytes).in_control("inputs")?),
    };
    Ok((RequestInput { target: input.target, path }, fd))
}

/// Waits for the supervisor's process when dropped. The supervisor exits when the launcher's end of the socket is closed.
#[derive(Debug)]
struct Reaper(Option<Child>);

/// Supervisors that have answered and only release their resources.
static EXITING: Mutex<Vec<Child>> = Mutex::new(Vec::new());

impl Reaper {
    /// After the answer the launcher need not wait; the next run reaps the process.
    fn reap_later(mut self) {
        let mut exiting = EXITING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        exiting.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        exiting.extend(self.0.take());
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.wait());
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("creating a pipe")
}

/// A pipe for output of the workload: the end to read and the end to write. Reading never waits: the workload can open its pipe for reading
/// and empty it between poll(2) and read(2).
fn output_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe()?;
    set_nonblocking(&read)?;
    Ok((read, write))
}

fn set_nonblocking(stream: &OwnedFd) -> Result<()> {
    rustix::fs::fcntl_setfl(stream, OFlags::NONBLOCK).context("preparing to read without waiting")
}

/// One pipe of the workload, or its terminal.
#[derive(Default)]
struct Stream {
    pipe: Option<OwnedFd>,
    read: u64,
}

/// The source of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Supervisor,
    Output(usize),
    Cancel,
    Resized,
    InputEnded,
}

#[derive(Default)]
struct Relay {
    /// Standard output, also of a terminal, and standard error.
    streams: [Stream; 2],
    dropped: u64,
    /// The caller's terminal, until that of the container is connected.
    terminal: Option<CallerTerminal>,
    /// The same afterwards.
    connected: Option<Connected>,
}

impl Relay {
    /// Relays output until the supervisor answers, and then the rest of it.
    fn until_answer(
        &mut self,
        supervisor: &UnixStream,
        cancel: BorrowedFd<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(Done, Vec<OwnedFd>)> {
        let mut cancelled = false;
        loop {
            let ready = self.wait(supervisor, (!cancelled).then_some(cancel))?;
            for i in (0..2).filter(|i| ready.contains(&Source::Output(*i))) {
                self.relay(i, sink)?;
            }
            if ready.contains(&Source::Cancel) {
                cancelled = true;
                // A dead supervisor is detected in the next iteration.
                drop(protocol::send(supervisor, &Order::Cancel, &[]));
            }
            if let Some(connected) = &self.connected
                && ready.contains(&Source::Resized)
            {
                connected.follow_size(self.streams[0].pipe.as_ref());
            }
            if ready.contains(&Source::InputEnded) {
                // The terminal of the container hangs up like that of the caller.
                self.close(0);
            }
            if ready.contains(&Source::Supervisor) {
                match protocol::receive(supervisor)? {
                    Some((Answer::Terminal, fds)) => self.connect(fds)?,
                    answer => return self.finish(answer, sink),
                }
            }
        }
    }

    /// Waits for the next events.
    fn wait(&self, supervisor: &UnixStream, cancel: Option<BorrowedFd<'_>>) -> Result<Vec<Source>> {
        let pipe = |i: usize| self.streams[i].pipe.as_ref().map(|pipe| pipe.as_fd());
        let connected = self.connected.as_ref();
        let sources = [
            (Source::Supervisor, Some(supervisor.as_fd())),
            (Source::Output(0), pipe(0)),
            (Source::Output(1), pipe(1)),
            (Source::Cancel, cancel),
            (Source::Resized, connected.map(Connected::resized)),
            (Source::InputEnded, connected.and_then(Connected::input_ended)),
        ];
        let open: Vec<_> = sources.into_iter().filter_map(|(source, fd)| Some((source, fd?))).collect();
        let mut fds: Vec<_> =
            open.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            other => drop(other.context("waiting for the run")?),
        }
        let ready = open.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|((source, _), _)| *source).collect())
    }

    /// Connects the terminal of the container with that of the caller.
    fn connect(&mut self, fds: Vec<OwnedFd>) -> Result<()> {
        let (Some(master), Some(caller)) = (fds.into_iter().next(), self.terminal.take()) else {
            bail!(System, "the supervisor sent an unexpected terminal");
        };
        set_nonblocking(&master)?;
        self.connected = Some(Connected::new(caller, &master)?);
        self.streams[0].pipe = Some(master);
        Ok(())
    }

    /// Restores the caller's terminal; false if the run had none.
    fn disconnect(&mut self) -> bool {
        let (unused, connected) = (self.terminal.take(), self.connected.take());
        unused.is_some() || connected.is_some()
    }

    /// Reads nothing more from a stream. A terminal hangs up.
    fn close(&mut self, i: usize) {
        self.streams[i].pipe = None;
        self.connected.iter_mut().for_each(Connected::end_input);
    }

    /// Relays the rest of the output and returns the outcome. `answer`: none if the supervisor died.
    fn finish(
        &mut self,
        answer: Option<(Answer, Vec<OwnedFd>)>,
        sink: &mut dyn Sink,
    ) -> Result<(Done, Vec<OwnedFd>)> {
        // Every writer is dead, so what the pipes hold is all.
        for i in 0..2 {
            while self.relay(i, sink)? {}
        }
        match answer {
            Some((Answer::Done(done), files)) => Ok((*done, files)),
            Some((Answer::Failed(error), _)) => Err(error),
            Some((Answer::Terminal, _)) => Err(Error::system("the supervisor sent an unexpected terminal")),
            None => Err(Error::system(
                "the supervisor of the run died; its container died with it, and the next run removes what is left",
            )),
        }
    }

    /// Relays what can be read now; false if that is nothing.
    fn relay(&mut self, i: usize, sink: &mut dyn Sink) -> Result<bool> {
        let stream = &mut self.streams[i];
        let Some(pipe) = &stream.pipe else { return Ok(false) };
        let mut block = vec![0; BLOCK];
        let count = match rustix::io::read(pipe, &mut block) {
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            // A terminal that no process has open any more.
            Err(rustix::io::Errno::IO) if self.connected.is_some() => 0,
            other => other.context("reading the output of the workload")?,
        };
        if count == 0 {
            self.close(i);
            return Ok(false);
        }
        // An interactive session has no end of its output.
        let most = if self.connected.is_some() { u64::MAX } else { MAX_LOG };
        let remaining = usize::try_from(most.saturating_sub(stream.read)).unwrap_or(usize::MAX);
        stream.read += count as u64;
        let relayed = &block[..count.min(remaining)];
        self.dropped += (count - relayed.len()) as u64;
        match (relayed.is_empty(), i) {
            (true, _) => {}
            (false, 0) => sink.stdout(relayed),
            (false, _) => sink.stderr(relayed),
        }
        if sink.gone()[i] {
            self.close(i);
        }
        Ok(true)
    }
}

fn outcome(done: Done, files: Vec<OwnedFd>, relay: &Relay) -> Result<Outcome> {
    let Done { status, output, observations, mut usage, denied_calls, profile_trace, mut timings } = done;
    timings.extend(hooks::timeline());
    if files.len() != output.len() {
        bail!(System, "the supervisor's answer came without its files");
    }
    let mut read = Vec::new();
    for ((name, size), file) in output.into_iter().zip(files) {
        let mut bytes = Vec::new();
        File::from(file)
            .take(size + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("reading /out/{name}"))?;
        if bytes.len() as u64 != size {
            bail!(Integrity, "/out/{name} has {} bytes instead of {size}", bytes.len());
        }
        read.push(OutputFile { name, bytes });
    }
    let [out, err] = &relay.streams;
    (usage.stdout_bytes, usage.stderr_bytes, usage.log_bytes_dropped) = (out.read, err.read, relay.dropped);
    let timings = hooks::since_start(timings);
    Ok(Outcome { status, output: read, observations, usage, denied_calls, profile_trace, timings })
}

#[cfg(test)]
mod tests {
    use super::{Relay, Stream, output_pipe};
    use crate::outcome::Sink;

    #[derive(Default)]
    struct Kept(Vec<u8>);

    impl Sink for Kept {
        fn stdout(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }

        fn stderr(&mut self, _: &[u8]) {}
    }

    #[test]
    fn relay_does_not_wait_for_output_that_the_workload_read_back() {
        let ((stdout, write), (stderr, _write)) =
            (output_pipe().expect("a pipe"), output_pipe().expect("a pipe"));
        let streams = [stdout, stderr].map(|pipe| Stream { pipe: Some(pipe), read: 0 });
        let mut relay = Relay { streams, ..Relay::default() };
        let mut kept = Kept::default();
        rustix::io::write(&write, b"kept").expect("output");
        assert!(relay.relay(0, &mut kept).expect("relayed"));
        // The writer is still open, and nothing is left to read.
        assert!(!relay.relay(0, &mut kept).expect("nothing"));
        assert!(relay.streams[0].pipe.is_some());
        drop(write);
        assert!(!relay.relay(0, &mut kept).expect("the end"));
        assert!(relay.streams[0].pipe.is_none() && kept.0 == b"kept");
    }
}
