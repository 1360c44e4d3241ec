//! Seccomp user notification: one thread of this process has the filter, another answers.

mod sys;

use invarlock_error::Kind;
use invarlock_seccomp::{
    Answer, Arch, Call, Listener, NotifyHandler, Profile, Program, TRACE_FD, syscall_number,
};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::mpsc;
use std::time::Duration;

fn native() -> Arch {
    Arch::native().expect("native")
}

fn number(name: &str) -> u32 {
    syscall_number(native(), name).expect(name)
}

fn with_notify(profile: &Profile) -> Program {
    profile.compile_notify_for(native()).expect("program")
}

/// Runs `body` on a thread with `program`. Returns the listener and a channel for the result of `body`.
fn under<T: Send + 'static>(
    program: Program,
    body: impl FnOnce() -> T + Send + 'static,
) -> (Listener, mpsc::Receiver<T>) {
    let ((send, receive), (done, result)) = (mpsc::channel(), mpsc::channel());
    std::thread::spawn(move || {
        let ready = program.ready().expect("ready");
        let listener = ready.install_notify().expect("listener");
        send.send(listener).expect("the other thread");
        done.send(body()).expect("the other thread");
    });
    (receive.recv().expect("a listener"), result)
}

/// Whether a call waits within `wait`, and whether the listener is hung up.
fn poll_listener(listener: &Listener, wait: Duration) -> (bool, bool) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut fds, Some(&wait)).expect("poll");
    let events = fds[0].revents();
    (events.contains(PollFlags::IN), events.contains(PollFlags::HUP))
}

const LONG: Duration = Duration::from_secs(20);

fn next(listener: &Listener) -> Call {
    assert!(poll_listener(listener, LONG).0, "no notification");
    listener.receive().expect("received").expect("the caller is alive")
}

#[test]
fn denied_calls_are_notified_with_arguments_and_give_eperm() {
    let (listener, result) = under(with_notify(&Profile::evaluator()), || {
        [
            sys::call(number("socket"), [2 | 1 << 40, 1, 0, 0, 0, 7]),
            sys::call(number("socket"), [99, 1, 0, 0, 0, 0]),
            sys::call(number("socketpair"), [16, 1, 0, 0, 0, 0]),
            sys::call(number("mount"), [0; 6]),
            // No notification: an allowed call, an unknown one, clone3.
            sys::call(number("getpid"), [0; 6]),
            sys::call(0x0fff_ffff, [0; 6]),
            sys::call(number("clone3"), [0; 6]),
            sys::call(number("ioctl"), [99, 0x5412, 0, 0, 0, 0]),
        ]
    });
    let names = ["socket(AF_INET)", "socket(unknown family)", "socketpair(AF_NETLINK)", "mount", "ioctl"];
    for name in names {
        let call = next(&listener);
        assert_eq!(call.name(native()), name);
        if name == "socket(AF_INET)" {
            assert_eq!(call.args, [2 | 1 << 40, 1, 0, 0, 0, 7]);
        }
        listener.deny(&call).expect("answered");
    }
    let eperm = libc::EPERM;
    let expected = [eperm, eperm, eperm, eperm, 0, libc::ENOSYS, libc::ENOSYS, eperm];
    assert_eq!(result.recv().expect("the thread is alive"), expected);
    let (waiting, gone) = poll_listener(&listener, LONG);
    assert!(!waiting && gone, "the listener is not hung up after its last thread");
}

#[test]
fn filter_with_notification_requires_listener() {
    let program = with_notify(&Profile::evaluator());
    assert!(program.uses_notify());
    assert!(
        matches!(program.install(), Err(why) if why.kind() == Kind::System && why.message().contains("with a listener"))
    );
    assert!(matches!(program.install_all_threads(), Err(error) if error.kind() == Kind::System));
    let without = Profile::evaluator().compile().expect("program");
    assert!(!without.uses_notify());
    assert_ne!(without.digest, program.digest);
    assert_eq!(without.instructions(), program.instructions());
}

#[test]
fn second_listener_is_rejected() {
    let (_listener, result) = under(with_notify(&Profile::no_network()), || {
        with_notify(&Profile::evaluator()).ready().expect("ready").install_notify().map(drop)
    });
    let error = result.recv().expect("the thread is alive").expect_err("the kernel allows one");
    assert!(
        error.kind() == Kind::Unsupported && error.message().contains("already has a filter with a listener"),
        "{error}"
    );
}

#[test]
fn check_accepts_listeners_only() {
    let file = std::fs::File::open("/dev/null").expect("/dev/null");
    assert!(matches!(Listener::check(OwnedFd::from(file)), Err(error) if error.kind() == Kind::Integrity));
    let (listener, result) = under(with_notify(&Profile::general()), || ());
    let copy = listener.as_fd().try_clone_to_owned().expect("a copy");
    Listener::check(copy).expect("a listener");
    result.recv().expect("the thread is alive");
}

/// As [`under`], with notification of every call: the thread sends the number of the listener through [`TRACE_FD`], as init does.
fn traced<T: Send + 'static>(
    program: Program,
    body: impl FnOnce() -> T + Send + 'static,
) -> (Listener, mpsc::Receiver<T>) {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let (from, to) = rustix::pipe::pipe().expect("a pipe");
    let to = rustix::io::fcntl_dupfd_cloexec(to, TRACE_FD as i32).expect("the descriptor");
    assert_eq!(to.as_raw_fd(), TRACE_FD as i32);
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || {
        let listener = program.ready().expect("ready").install_notify().expect("listener");
        let number = listener.as_fd().as_raw_fd().to_le_bytes();
        rustix::io::write(&to, &number).expect("the pipe");
        // A thread that closes its own listener gets no more answers.
        std::mem::forget(listener);
        done.send(body()).expect("the other thread");
    });
    let mut number = [0; 4];
    rustix::io::read(&from, &mut number).expect("the pipe");
    let this = pidfd_open(getpid(), PidfdFlags::empty()).expect("this process");
    let taken = pidfd_getfd(this, i32::from_le_bytes(number), PidfdGetfdFlags::empty());
    (Listener::check(taken.expect("the listener")).expect("a listener"), result)
}

#[test]
fn tracing_allows_the_calls_of_the_profile() {
    let resolved = Profile::evaluator().resolve(native()).expect("resolved");
    let program = resolved.compile_trace().expect("a program");
    let handler = NotifyHandler::new(resolved).expect("a handler");
    let (listener, result) = traced(program, || {
        [
            sys::call(number("getpid"), [0; 6]),
            sys::call(number("socket"), [2, 1, 0, 0, 0, 0]),
            // A descriptor that is not open: the calls are executed and fail with EBADF.
            sys::call(number("read"), [900, 0, 0, 0, 0, 0]),
            sys::call(number("fcntl"), [900, 1, 0, 0, 0, 0]),
            sys::call(number("fcntl"), [900, 0, 0, 0, 0, 0]),
            // Excepted from notification.
            sys::call(number("write"), [TRACE_FD.into(), 0, 0, 0, 0, 0]),
        ]
    });
    let mut denied = Vec::new();
    let (mut allowed, mut over) = (Vec::new(), false);
    while !over {
        let (waiting, gone) = poll_listener(&listener, LONG);
        over = gone && !waiting;
        let Some(call) = waiting.then(|| listener.receive().expect("received")).flatten() else { continue };
        match handler.answer(&listener, &call).expect("an answer") {
            Answer::Allowed(Some(_)) => allowed.push(call.name(native())),
            Answer::Denied => denied.push(call.name(native())),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(denied, ["socket(AF_INET)", "fcntl"]);
    assert_eq!(allowed[..3], ["getpid", "read", "fcntl"]);
    assert!(!allowed.contains(&"write".to_owned()), "{allowed:?}");
    let (eperm, ebadf) = (libc::EPERM, libc::EBADF);
    assert_eq!(result.recv().expect("the thread is alive"), [0, eperm, ebadf, ebadf, eperm, 0]);
}

#[test]
fn denied_calls_fail_after_the_listener_is_closed() {
    let (go, wait) = mpsc::channel::<()>();
    let (listener, result) = under(with_notify(&Profile::general()), move || {
        wait.recv().expect("go");
        sys::call(number("socket"), [16, 3, 0, 0, 0, 0])
    });
    drop(listener);
    go.send(()).expect("the thread is alive");
    assert_eq!(result.recv_timeout(LONG).expect("an answer"), libc::ENOSYS);
}
