//! The launcher's side of a run: starts a supervisor, sends it the request and the handles, relays the workload's output, receives the outcome.

use crate::hooks::{self, Hooks};
use crate::identity::IdsInside;
use crate::outcome::{Outcome, OutputFile, Sink};
use crate::protocol::{self, Answer, Done, Order, Prepare, Request, RequestInput, Streams};
use crate::spec::{ContainerSpec, HostSpec, Input, InputSource, check_limits, check_strings};
use crate::stdio::{Feed, Stdio};
use crate::{executable, seal, state};
use invarlock_error::{Context as _, Error, Kind, Result, bail};
use invarlock_seccomp::ResolvedProfile;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
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
    /// The mount that it was started through. Unmounting needs a grace period of the kernel, so it is dropped during the run.
    mount: Option<OwnedFd>,
}

/// Runs a container to its end. `cancel` becoming readable asks it to stop: SIGTERM, and SIGKILL three seconds later.
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
        let (child, mount) = executable::spawn(supervisor_end)?;
        hooks::step("launcher: supervisor started");
        Ok(Supervisor { socket, prepared: None, child: Reaper(Some(child)), mount })
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
        let mut fds = Vec::new();
        for layer in &spec.rootfs {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = rustix::fs::open(layer, flags, Mode::empty())
                .with_context(|| format!("opening layer {}", layer.display()))
                .kind(Kind::Input)?;
            fds.push(opened);
        }
        let mut inputs = Vec::new();
        for input in spec.inputs {
            let (input, fd) = request_input(input)?;
            inputs.push(input);
            fds.push(fd);
        }
        let request = Request {
            rootfs: spec.rootfs,
            argv: spec.argv,
            env: spec.env,
            cwd: spec.cwd,
            inputs,
            streams: match &spec.stdio {
                Stdio::Output => Streams::Output,
                Stdio::Input(_) => Streams::Input,
            },
            filter: spec.filter,
            limits: spec.limits,
            collect_output: spec.collect_output,
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
            streams: Streams::Output,
            filter: spec.filter,
            limits: spec.limits,
            collect_output: true,
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
        let ((stdout, out_end), (stderr, err_end)) = (output_pipe()?, output_pipe()?);
        let mut descriptors = vec![out_end, err_end];
        let feed = match stdio {
            Stdio::Output => None,
            Stdio::Input(from) => {
                let (read, write) = pipe()?;
                descriptors.push(read);
                Some(Feed::start(from, write)?)
            }
        };
        descriptors.extend(inputs);
        let fds: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
        let sent = protocol::send(&self.socket, &Order::Run(Box::new(request)), &fds);
        drop(descriptors);
        hooks::step("launcher: run handed over");
        drop(self.mount);
        let mut relay = Relay { streams: [Stream::new(stdout), Stream::new(stderr)], dropped: 0 };
        let result = match sent {
            Ok(()) => relay.until_answer(&self.socket, cancel, sink),
            // The supervisor may have failed before it received the request; its answer has the reason.
            Err(_) => relay.answer(&self.socket, sink),
        };
        hooks::step("launcher: outcome received");
        let (done, files) = result?;
        feed.map_or(Ok(()), |feed| feed.check())?;
        self.child.reap_later();
        outcome(done, files, &relay)
    }
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
    rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK).context("creating a pipe")?;
    Ok((read, write))
}

/// One pipe of the workload.
struct Stream {
    pipe: Option<OwnedFd>,
    read: u64,
}

impl Stream {
    fn new(pipe: OwnedFd) -> Self {
        Stream { pipe: Some(pipe), read: 0 }
    }
}

struct Relay {
    streams: [Stream; 2],
    dropped: u64,
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
            let (mut answered, mut cancelling, mut readable) = (false, false, [false; 2]);
            {
                let mut fds = vec![PollFd::new(supervisor, PollFlags::IN)];
                let open: Vec<usize> = (0..2).filter(|i| self.streams[*i].pipe.is_some()).collect();
                let pipes = open.iter().filter_map(|i| self.streams[*i].pipe.as_ref());
                fds.extend(pipes.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
                if !cancelled {
                    fds.push(PollFd::from_borrowed_fd(cancel, PollFlags::IN));
                }
                match rustix::event::poll(&mut fds, None) {
                    Err(rustix::io::Errno::INTR) => continue,
                    other => drop(other.context("waiting for the run")?),
                }
                let events: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
                answered |= events.first().is_some_and(|e| *e);
                for (event, i) in events[1..].iter().zip(&open) {
                    readable[*i] = *event;
                }
                cancelling |= !cancelled && events.last().is_some_and(|e| *e);
            }
            for i in (0..2).filter(|i| readable[*i]) {
                self.relay(i, sink)?;
            }
            if cancelling {
                cancelled = true;
                // A dead supervisor is detected in the next iteration.
                drop(protocol::send(supervisor, &Order::Cancel, &[]));
            }
            if answered {
                return self.answer(supervisor, sink);
            }
        }
    }

    fn answer(&mut self, supervisor: &UnixStream, sink: &mut dyn Sink) -> Result<(Done, Vec<OwnedFd>)> {
        let answer = protocol::receive::<Answer>(supervisor)?;
        // Every writer is dead, so what the pipes hold is all.
        for i in 0..2 {
            while self.relay(i, sink)? {}
        }
        match answer {
            Some((Answer::Done(done), files)) => Ok((*done, files)),
            Some((Answer::Failed(error), _)) => Err(error),
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
            other => other.context("reading the output of the workload")?,
        };
        if count == 0 {
            stream.pipe = None;
            return Ok(false);
        }
        let remaining = usize::try_from(MAX_LOG.saturating_sub(stream.read)).unwrap_or(usize::MAX);
        stream.read += count as u64;
        let relayed = &block[..count.min(remaining)];
        self.dropped += (count - relayed.len()) as u64;
        match (relayed.is_empty(), i) {
            (true, _) => {}
            (false, 0) => sink.stdout(relayed),
            (false, _) => sink.stderr(relayed),
        }
        if sink.gone()[i] {
            stream.pipe = None;
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
        let mut relay = Relay { streams: [Stream::new(stdout), Stream::new(stderr)], dropped: 0 };
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
