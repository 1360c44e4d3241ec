//! The launcher's side: starts a supervisor, hands over the plan and the handles, passes on what the workload prints, takes the outcome.

use crate::hooks::{self, Hooks};
use crate::protocol::{self, Done, Order, Prepare, Request, Verdict, WireInput};
use crate::spec::{
    ContainerSpec, HostSpec, InputSource, Outcome, OutputFile, Sink, check_limits, check_strings,
};
use crate::{reexec, seal, state};
use invarlock_error::{Context as _, Error, Result};
use invarlock_seccomp::ResolvedProfile;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::Mutex;

/// How much of standard output and standard error each is passed on. The rest is read and thrown away, so that the workload goes on.
pub const MAX_LOG: u64 = 64 << 20;
const BLOCK: usize = 64 << 10;

/// A supervisor that has been started and waits for its run. It makes ready what needs no knowledge of the run, so start it before the
/// work that finds out what to run; dropped without a run, it leaves nothing.
///
/// The program's `main` must have called [`crate::reexec::run_if_child`] first. Threads of the caller do no harm: everything that
/// clones is a fresh process.
#[derive(Debug)]
pub struct Supervisor {
    socket: UnixStream,
    child: Reaper,
    /// What it was started through; dropped when there is time, because that takes a grace period of the kernel.
    mount: Option<OwnedFd>,
}

/// Runs a container to its end. `cancel` becoming readable asks it to stop: SIGTERM, and SIGKILL three seconds later.
pub fn run(spec: ContainerSpec, cancel: BorrowedFd<'_>, sink: &mut dyn Sink) -> Result<Outcome> {
    Supervisor::for_container()?.run(spec, cancel, sink)
}

/// Runs a program of ours as a plain child, filtered and limited, with the same kind of outcome.
pub fn run_on_host(spec: HostSpec, cancel: BorrowedFd<'_>, sink: &mut dyn Sink) -> Result<Outcome> {
    Supervisor::start(true)?.run_on_host(spec, cancel, sink)
}

impl Supervisor {
    /// Starts one that will run a container.
    pub fn for_container() -> Result<Self> {
        Supervisor::start(false)
    }

    fn start(host: bool) -> Result<Self> {
        let (socket, theirs) = UnixStream::pair().context("making a socket")?;
        let (child, mount) = reexec::spawn(theirs)?;
        let supervisor = Supervisor { socket, child: Reaper(Some(child)), mount };
        hooks::step("launcher: supervisor started");
        let prepare = Prepare { state: state::directory()?, host, hooks: Hooks::from_environment() };
        protocol::send(&supervisor.socket, &prepare, &[])
            .map_err(|e| e.context("talking to the supervisor"))?;
        Ok(supervisor)
    }

    /// As [`run()`].
    pub fn run(self, spec: ContainerSpec, cancel: BorrowedFd<'_>, sink: &mut dyn Sink) -> Result<Outcome> {
        self.contained(spec, None, cancel, sink)
    }

    /// As [`run()`], but under `profile`, whatever the filter of `spec`, and with an outcome that says which of its calls it allowed. The
    /// supervisor is asked about every call and answers as the profile's program would have, which takes much longer.
    pub fn learn(
        self,
        mut spec: ContainerSpec,
        profile: ResolvedProfile,
        cancel: BorrowedFd<'_>,
        sink: &mut dyn Sink,
    ) -> Result<Outcome> {
        spec.filter = profile.compile_learning().context("compiling a filter that asks")?;
        self.contained(spec, Some(profile), cancel, sink)
    }

    fn contained(
        self,
        spec: ContainerSpec,
        learning: Option<ResolvedProfile>,
        cancel: BorrowedFd<'_>,
        sink: &mut dyn Sink,
    ) -> Result<Outcome> {
        spec.check()?;
        let mut fds = Vec::new();
        for layer in &spec.rootfs {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = rustix::fs::open(layer, flags, Mode::empty())
                .map_err(|e| Error::input(format!("opening layer {}: {e}", layer.display())));
            fds.push(opened?);
        }
        let mut inputs = Vec::new();
        for input in spec.inputs {
            let (path, fd) = match input.source {
                InputSource::File { path, file } => {
                    let kind = file
                        .metadata()
                        .with_context(|| format!("looking at {}", path.display()))?
                        .file_type();
                    if !kind.is_file() || kind.is_fifo() {
                        return Err(Error::safety(format!("input {} is not a regular file", path.display())));
                    }
                    (Some(path), OwnedFd::from(file))
                }
                InputSource::Bytes(bytes) => (None, sealed(&bytes).in_control("inputs")?),
            };
            inputs.push(WireInput { target: input.target, path });
            fds.push(fd);
        }
        let request = Request {
            rootfs: spec.rootfs,
            argv: spec.argv,
            env: spec.env,
            cwd: spec.cwd,
            inputs,
            filter: spec.filter,
            limits: spec.limits,
            collect_output: spec.collect_output,
            host: None,
            learning,
        };
        self.supervised(request, fds, cancel, sink)
    }

    fn run_on_host(self, spec: HostSpec, cancel: BorrowedFd<'_>, sink: &mut dyn Sink) -> Result<Outcome> {
        let program = spec.program.to_str().filter(|p| p.starts_with('/'));
        let program = program
            .ok_or_else(|| Error::input(format!("{} is not an absolute path", spec.program.display())))?;
        if !spec.output.is_absolute() {
            return Err(Error::input(format!("{} is not an absolute path", spec.output.display())));
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
            filter: spec.filter,
            limits: spec.limits,
            collect_output: true,
            host: Some(spec.output),
            learning: None,
        };
        self.supervised(request, Vec::new(), cancel, sink)
    }

    fn supervised(
        self,
        request: Request,
        inputs: Vec<OwnedFd>,
        cancel: BorrowedFd<'_>,
        sink: &mut dyn Sink,
    ) -> Result<Outcome> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("making a pipe");
        let ((stdout, out_end), (stderr, err_end)) = (pipe()?, pipe()?);
        let handed_over: Vec<OwnedFd> = [out_end, err_end].into_iter().chain(inputs).collect();
        let fds: Vec<_> = handed_over.iter().map(|fd| fd.as_fd()).collect();
        let sent = protocol::send(&self.socket, &Order::Run(Box::new(request)), &fds);
        drop(handed_over);
        hooks::step("launcher: run handed over");
        drop(self.mount);
        let mut relay = Relay { streams: [Stream::new(stdout), Stream::new(stderr)], dropped: 0 };
        let result = match sent {
            Ok(()) => relay.until_verdict(&self.socket, cancel, sink),
            // It may have failed before it was told what to run, and said why.
            Err(_) => relay.verdict(&self.socket, sink),
        };
        hooks::step("launcher: outcome received");
        let (done, files) = result?;
        self.child.later();
        outcome(done, files, &relay)
    }
}

/// A memory file that nobody can change, read from its start.
pub(crate) fn sealed(bytes: &[u8]) -> Result<OwnedFd> {
    use std::io::Seek as _;
    let fail = || "keeping an input in memory".to_owned();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("invarlock-input", flags).with_context(fail)?);
    file.write_all(bytes).with_context(fail)?;
    file.rewind().with_context(fail)?;
    seal::seal(&file).with_context(fail)?;
    Ok(file.into())
}

/// The supervisor's process. It is waited for whatever happens: when its launcher's end of the socket is closed, it ends by itself.
#[derive(Debug)]
struct Reaper(Option<Child>);

/// Supervisors that have given their answer and only let go of what they held.
static LEAVING: Mutex<Vec<Child>> = Mutex::new(Vec::new());

impl Reaper {
    /// It has given its answer: nobody waits for its end, and the next start reaps it.
    fn later(mut self) {
        let mut leaving = LEAVING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        leaving.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        leaving.extend(self.0.take());
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.wait());
        }
    }
}

/// One pipe from the workload.
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
    /// Passes output on until the supervisor has spoken, then what is left of it.
    fn until_verdict(
        &mut self,
        supervisor: &UnixStream,
        cancel: BorrowedFd<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(Done, Vec<OwnedFd>)> {
        let mut cancelled = false;
        loop {
            let (mut spoken, mut asked, mut readable) = (false, false, [false; 2]);
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
                spoken |= events.first().is_some_and(|e| *e);
                for (event, i) in events[1..].iter().zip(&open) {
                    readable[*i] = *event;
                }
                asked |= !cancelled && events.last().is_some_and(|e| *e);
            }
            for i in (0..2).filter(|i| readable[*i]) {
                self.pass_on(i, sink)?;
            }
            if asked {
                cancelled = true;
                // A supervisor that is gone shows at the next turn.
                drop(protocol::send(supervisor, &Order::Cancel, &[]));
            }
            if spoken {
                return self.verdict(supervisor, sink);
            }
        }
    }

    fn verdict(&mut self, supervisor: &UnixStream, sink: &mut dyn Sink) -> Result<(Done, Vec<OwnedFd>)> {
        let verdict = protocol::receive::<Verdict>(supervisor)?;
        // Every writer is dead: the pipes end.
        for i in 0..2 {
            while self.streams[i].pipe.is_some() {
                self.pass_on(i, sink)?;
            }
        }
        match verdict {
            Some((Verdict::Done(done), files)) => Ok((*done, files)),
            Some((Verdict::Failed(error), _)) => Err(error),
            None => Err(Error::system(
                "the supervisor of the run died; its container died with it, and the next start removes what is left",
            )),
        }
    }

    fn pass_on(&mut self, i: usize, sink: &mut dyn Sink) -> Result<()> {
        let stream = &mut self.streams[i];
        let Some(pipe) = &stream.pipe else { return Ok(()) };
        let mut block = vec![0; BLOCK];
        let count = match rustix::io::read(pipe, &mut block) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other.context("reading what the workload prints")?,
        };
        if count == 0 {
            stream.pipe = None;
            return Ok(());
        }
        let room = usize::try_from(MAX_LOG.saturating_sub(stream.read)).unwrap_or(usize::MAX);
        stream.read += count as u64;
        let passed = &block[..count.min(room)];
        self.dropped += (count - passed.len()) as u64;
        match (passed.is_empty(), i) {
            (true, _) => {}
            (false, 0) => sink.stdout(passed),
            (false, _) => sink.stderr(passed),
        }
        if sink.gone()[i] {
            stream.pipe = None;
        }
        Ok(())
    }
}

fn outcome(done: Done, files: Vec<OwnedFd>, relay: &Relay) -> Result<Outcome> {
    let Done { status, output, observations, mut usage, refused, learned, mut timings } = done;
    timings.extend(hooks::timeline());
    if files.len() != output.len() {
        return Err(Error::system("the supervisor's answer came without its files"));
    }
    let mut read = Vec::new();
    for ((name, size), file) in output.into_iter().zip(files) {
        let mut bytes = Vec::new();
        File::from(file)
            .take(size + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("reading /out/{name}"))?;
        if bytes.len() as u64 != size {
            return Err(Error::integrity(format!("/out/{name} has {} bytes instead of {size}", bytes.len())));
        }
        read.push(OutputFile { name, bytes });
    }
    let [out, err] = &relay.streams;
    (usage.stdout_bytes, usage.stderr_bytes, usage.log_bytes_dropped) = (out.read, err.read, relay.dropped);
    let timings = hooks::since_start(timings);
    Ok(Outcome { status, output: read, observations, usage, refused, learned, timings })
}
