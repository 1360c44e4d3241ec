//! Credential helpers: runs `docker-credential-NAME get` by the protocol of docker-credential-helpers.
//!
//! Existing libraries wait without a limit, read without a limit and start any program that the file names; this module bounds time and
//! output and starts only `docker-credential-NAME` in an absolute directory of `PATH` that other users cannot write to.

use std::fmt::Display;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::credential::Credential;
use crate::url::printable;

const TIME_LIMIT: Duration = Duration::from_secs(30);
const MAX_OUTPUT: u64 = 64 << 10;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    username: String,
    secret: String,
}

/// Asks the helper `name` for the credential of `server`.
pub(crate) fn get(name: &str, server: &str) -> Result<Option<Credential>, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    get_from(name, server, &dirs, TIME_LIMIT)
}

fn get_from(
    name: &str,
    server: &str,
    dirs: &[PathBuf],
    time_limit: Duration,
) -> Result<Option<Credential>, String> {
    let path = find_program(name, dirs)?;
    let failed = |why: &dyn Display| format!("credential helper {}: {why}", path.display());
    let mut child = start(&path, server).map_err(|why| failed(&why))?;
    let (succeeded, output) = wait_for_output(&mut child, time_limit).map_err(|why| failed(&why))?;
    if !succeeded {
        return match is_not_found_response(&output) {
            true => Ok(None),
            false => Err(failed(&format!("it failed: {}", printable(output.trim())))),
        };
    }
    // The message does not contain the output, which may contain a secret.
    let response: Response =
        serde_json::from_str(&output).map_err(|_| failed(&"its output is not a credential"))?;
    Ok(Some(Credential::from_pair(response.username, response.secret)))
}

fn find_program(name: &str, dirs: &[PathBuf]) -> Result<PathBuf, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_allowed) {
        return Err(format!("invalid name of a credential helper: {name:?}"));
    }
    let program = format!("docker-credential-{name}");
    dirs.iter()
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(&program))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("credential helper {program} not found in PATH"))
}

fn start(path: &Path, server: &str) -> Result<Child, String> {
    let real = std::fs::canonicalize(path).map_err(|error| error.to_string())?;
    invarlock_security::secure_executable(&real).map_err(|error| error.to_string())?;
    let mut child = Command::new(&real)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    // A failed write is not an error: a helper may exit without reading its input.
    drop(child.stdin.take().map(|mut stdin| writeln!(stdin, "{server}")));
    Ok(child)
}

/// Whether a failed helper reports that it stores no credential for the server.
///
/// The protocol has no code for this. It defines the message `credentials not found in native keychain` on standard output, and Docker
/// compares this text too (`credentials.IsErrCredentialsNotFoundMessage`). Only its beginning is compared here, so that another ending is
/// accepted.
fn is_not_found_response(output: &str) -> bool {
    output.contains("credentials not found")
}

/// Whether the helper succeeded, and its output, within the time limit and the size limit.
fn wait_for_output(child: &mut Child, time_limit: Duration) -> Result<(bool, String), String> {
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.map(|stdout| stdout.take(MAX_OUTPUT + 1).read_to_end(&mut bytes));
        read.transpose().map(|_| bytes)
    });
    let start = Instant::now();
    let exited = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if start.elapsed() < time_limit => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => break Err(format!("it did not exit within {} s", time_limit.as_secs_f32())),
            Err(error) => break Err(error.to_string()),
        }
    };
    let status = match exited {
        Ok(status) => status,
        Err(why) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(why);
        }
    };
    // A child process of the helper may hold the pipe open.
    while !reader.is_finished() {
        if start.elapsed() >= time_limit {
            return Err("a process that it started keeps its output open".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let bytes =
        reader.join().map_err(|_| "reading its output".to_owned())?.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_OUTPUT {
        return Err(format!("it printed more than {MAX_OUTPUT} bytes"));
    }
    Ok((status.success(), String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_security::SecureTempDir;
    use std::os::unix::fs::PermissionsExt as _;

    fn get_with_script(script: &str) -> Result<Option<Credential>, String> {
        let dir = SecureTempDir::new("invarlock-helper-").expect("directory");
        let path = dir.path().join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("program");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("program");
        let dirs = [PathBuf::from("bin"), dir.path().to_owned()];
        get_from("test", "host.example:1", &dirs, Duration::from_secs(2))
    }

    #[test]
    fn reads_credential_from_helper() {
        let script = r#"read server; [ "$1" = get ] && echo "{\"ServerURL\":\"$server\",\"Username\":\"$server\",\"Secret\":\"s\"}""#;
        let expected = Credential::Password("host.example:1".to_owned(), "s".to_owned());
        assert_eq!(get_with_script(script), Ok(Some(expected)));
        assert_eq!(
            get_with_script(r#"echo '{"Username":"<token>","Secret":"t"}'"#),
            Ok(Some(Credential::Refresh("t".to_owned())))
        );
        assert_eq!(get_with_script("echo credentials not found in native keychain; exit 1"), Ok(None));
    }

    #[test]
    fn rejects_failed_slow_and_malformed_helpers() {
        for (script, expected) in [
            ("echo locked; exit 1", "locked"),
            ("exec sleep 60", "did not exit"),
            ("sleep 5 & exit 0", "keeps its output open"),
            ("exec yes", "more than"),
            ("head -c 100000 /dev/zero", "more than"),
            ("echo '{\"Secret\":\"hidden\"'", "not a credential"),
        ] {
            let why = get_with_script(script).expect_err(script);
            assert!(why.contains(expected), "{script}: {why}");
            assert!(!why.contains("hidden"), "{script}: {why}");
        }
    }

    #[test]
    fn rejects_invalid_and_missing_helper_names() {
        let get = |name: &str| get_from(name, "x", &[PathBuf::from("/tmp")], TIME_LIMIT);
        for name in ["", "../x", "a/b", "a b", "a\0"] {
            assert!(get(name).expect_err(name).contains("invalid name"), "{name}");
        }
        assert!(get("missing-for-sure").expect_err("missing").contains("not found in PATH"));
    }
}
