//! Denial of the network for a whole process, tested in a child process.

use std::process::Command;

#[test]
fn every_thread_loses_the_network() {
    const CHILD: &str = "INVARLOCK_SECURITY_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let program = std::env::current_exe().expect("own path");
        let mut child = Command::new(program);
        let output =
            child.args(["--exact", "every_thread_loses_the_network", "--nocapture"]).env(CHILD, "1").output();
        let output = output.expect("child");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let (go, wait) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        wait.recv().expect("go");
        std::net::UdpSocket::bind("127.0.0.1:0").map(drop)
    });
    let digest = invarlock_security::deny_network_for_this_process().expect("denied");
    assert_eq!(digest, invarlock_seccomp::Profile::no_network().compile().expect("program").digest);
    go.send(()).expect("thread");
    let denied =
        |result: std::io::Result<()>| result.is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied);
    assert!(denied(other.join().expect("thread")));
    assert!(denied(std::net::TcpListener::bind("127.0.0.1:0").map(drop)));
    assert!(denied(std::net::TcpStream::connect("[::1]:1").map(drop)));
    assert!(std::os::unix::net::UnixStream::pair().is_ok());
    let child = Command::new("/bin/sh").args(["-c", "exec 3<>/dev/tcp/127.0.0.1/1"]).output().expect("sh");
    assert!(!child.status.success());
}
