//! Refused calls as their listener hears them: a thread of this process has the filter, another answers.

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

/// `body` on a thread under `program`; whoever calls this holds the listener. The second value is what `body` gave.
fn under<T: Send + 'static>(
    program: Program,
    body: impl FnOnce() -> T + Send + 'static,
) -> (Listener, mpsc::Receiver<T>) {
    let ((say, hear), (done, result)) = (mpsc::channel(), mpsc::channel());
    std::thread::spawn(move || {
        let ready = program.ready().expect("ready");
        let listener = ready.install_notify().expect("listener");
        say.send(listener).expect("the other thread");
        done.send(body()).expect("the other thread");
    });
    (hear.recv().expect("a listener"), result)
}

/// Whether a call waits, now or within `wait`; the second value: nobody is left to make one.
fn waits(listener: &Listener, wait: Duration) -> (bool, bool) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut fds, Some(&wait)).expect("poll");
    let seen = fds[0].revents();
    (seen.contains(PollFlags::IN), seen.contains(PollFlags::HUP))
}

const LONG: Duration = Duration::from_secs(20);

fn next(listener: &Listener) -> Call {
    assert!(waits(listener, LONG).0, "no call is heard");
    listener.receive().expect("received").expect("its caller lives")
}

#[test]
fn refused_calls_are_heard_with_their_arguments_and_give_eperm() {
    let (listener, result) = under(with_notify(&Profile::evaluator()), || {
        [
            sys::call(number("socket"), [2 | 1 << 40, 1, 0, 0, 0, 7]),
            sys::call(number("socket"), [99, 1, 0, 0, 0, 0]),
            sys::call(number("socketpair"), [16, 1, 0, 0, 0, 0]),
            sys::call(number("mount"), [0; 6]),
            // Allowed, unknown and clone3: nobody is asked.
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
    assert_eq!(result.recv().expect("the thread lives"), expected);
    let (waiting, gone) = waits(&listener, LONG);
    assert!(!waiting && gone, "the listener is not hung up after its last thread");
}

#[test]
fn a_filter_that_is_heard_is_installed_with_its_listener_only() {
    let program = with_notify(&Profile::evaluator());
    assert!(program.uses_notify());
    assert!(
        matches!(program.install(), Err(why) if why.kind() == Kind::System && why.message().contains("nobody would hear"))
    );
    assert!(matches!(program.install_all_threads(), Err(error) if error.kind() == Kind::System));
    let quiet = Profile::evaluator().compile().expect("program");
    assert!(!quiet.uses_notify());
    assert_ne!(quiet.digest, program.digest);
    assert_eq!(quiet.instructions(), program.instructions());
}

#[test]
fn a_second_listener_is_an_error_that_says_so() {
    let (_listener, result) = under(with_notify(&Profile::general()), || {
        with_notify(&Profile::evaluator()).ready().expect("ready").install_notify().map(drop)
    });
    let error = result.recv().expect("the thread lives").expect_err("the kernel allows one");
    assert!(
        error.kind() == Kind::Unsupported && error.message().contains("hears its refused calls already"),
        "{error}"
    );
}

#[test]
fn only_a_listener_is_one() {
    let file = std::fs::File::open("/dev/null").expect("/dev/null");
    assert!(matches!(Listener::check(OwnedFd::from(file)), Err(error) if error.kind() == Kind::Integrity));
    let (listener, result) = under(with_notify(&Profile::general()), || ());
    let copy = listener.as_fd().try_clone_to_owned().expect("a copy");
    Listener::check(copy).expect("a listener");
    result.recv().expect("the thread lives");
}

/// As [`under`], but every call of the thread is heard, so that it can only speak by the descriptor of which nobody is asked, as init
/// does.
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
        // Whoever closes one's own listener gets no more answers.
        std::mem::forget(listener);
        done.send(body()).expect("the other thread");
    });
    let mut number = [0; 4];
    rustix::io::read(&from, &mut number).expect("the pipe");
    let this = pidfd_open(getpid(), PidfdFlags::empty()).expect("this process");
    let taken = pidfd_getfd(this, i32::from_le_bytes(number), PidfdGetfdFlags::empty());
    (Listener::check(taken.expect("the listener")).expect("a listener"), result)
}

/// A thread whose profile is learned calls what it may and nothing else, and every call of it is heard.
#[test]
fn learning_lets_through_what_the_profile_allows() {
    let resolved = Profile::evaluator().resolve(native()).expect("resolved");
    let program = resolved.compile_trace().expect("a program");
    let handler = NotifyHandler::new(resolved).expect("a handler");
    let (listener, result) = traced(program, || {
        [
            sys::call(number("getpid"), [0; 6]),
            sys::call(number("socket"), [2, 1, 0, 0, 0, 0]),
            // A file that is not open: made, and failed for a reason of its own.
            sys::call(number("read"), [900, 0, 0, 0, 0, 0]),
            sys::call(number("fcntl"), [900, 1, 0, 0, 0, 0]),
            sys::call(number("fcntl"), [900, 0, 0, 0, 0, 0]),
            // Of this one nobody is asked.
            sys::call(number("write"), [TRACE_FD.into(), 0, 0, 0, 0, 0]),
        ]
    });
    let mut refused = Vec::new();
    let (mut allowed, mut over) = (Vec::new(), false);
    while !over {
        let (waiting, gone) = waits(&listener, LONG);
        over = gone && !waiting;
        let Some(call) = waiting.then(|| listener.receive().expect("received")).flatten() else { continue };
        match handler.answer(&listener, &call).expect("an answer") {
            Answer::Allowed(Some(_)) => allowed.push(call.name(native())),
            Answer::Denied => refused.push(call.name(native())),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, ["socket(AF_INET)", "fcntl"]);
    assert_eq!(allowed[..3], ["getpid", "read", "fcntl"]);
    assert!(!allowed.contains(&"write".to_owned()), "{allowed:?}");
    let (eperm, ebadf) = (libc::EPERM, libc::EBADF);
    assert_eq!(result.recv().expect("the thread lives"), [0, eperm, ebadf, ebadf, eperm, 0]);
}

/// Without a listener, refused calls fail; they are never let through and never wait.
#[test]
fn a_listener_that_is_gone_lets_nothing_through() {
    let (go, wait) = mpsc::channel::<()>();
    let (listener, result) = under(with_notify(&Profile::general()), move || {
        wait.recv().expect("go");
        sys::call(number("socket"), [16, 3, 0, 0, 0, 0])
    });
    drop(listener);
    go.send(()).expect("the thread lives");
    assert_eq!(result.recv_timeout(LONG).expect("an answer"), libc::ENOSYS);
}
