//! Programs that keep passwords: `docker-credential-NAME get`.
//!
//! Ours and not a library's, since those there are wait for ever, read without bound and start whatever the file names.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::credentials::Credential;

const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST: u64 = 64 << 10;
/// How these programs say that they know nothing.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the program `name` about `server`.
pub(crate) fn get(name: &str, server: &str) -> Result<Option<Credential>, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    ask(name, server, &dirs, PATIENCE)
}

fn ask(name: &str, server: &str, dirs: &[PathBuf], patience: Duration) -> Result<Option<Credential>, String> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(inner) {
        return Err(format!("it names the credential helper {name:?}, which is no name of a program"));
    }
    let program = format!("docker-credential-{name}");
    let path = dirs
        .iter()
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(&program))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("it names the credential helper {program}, which is not in PATH"))?;
    let failed = |why: &dyn std::fmt::Display| format!("credential helper {}: {why}", path.display());
    let real = std::fs::canonicalize(&path).map_err(|error| failed(&error))?;
    invarlock_security::secure_executable(&real).map_err(|error| failed(&error))?;
    let mut child = Command::new(&real)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(&error))?;
    // One that ends at once need not have read.
    drop(child.stdin.take().map(|mut it| writeln!(it, "{server}")));
    let (ok, output) = finish(&mut child, patience).map_err(|why| failed(&why))?;
    if !ok {
        return match output.contains(NOT_FOUND) {
            true => Ok(None),
            false => Err(failed(&format!("it failed: {}", crate::http::printable(output.trim())))),
        };
    }
    // Not what it printed: that may be a secret.
    let answer: Answer =
        serde_json::from_str(&output).map_err(|_| failed(&"what it prints is no credential"))?;
    Ok(Some(Credential::of(answer.username, answer.secret)))
}

/// Whether it ended well, and what it printed, within the time and the bound.
fn finish(child: &mut Child, patience: Duration) -> Result<(bool, String), String> {
    let output = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = output.map(|it| it.take(LONGEST + 1).read_to_end(&mut bytes));
        read.transpose().map(|_| bytes)
    });
    let start = Instant::now();
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if start.elapsed() < patience => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => break Err(format!("it does not end within {} s", patience.as_secs_f32())),
            Err(error) => break Err(error.to_string()),
        }
    };
    let status = match ended {
        Ok(status) => status,
        Err(why) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(why);
        }
    };
    // What it started may hold the pipe open.
    while !reader.is_finished() {
        if start.elapsed() >= patience {
            return Err("what it started goes on printing".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let bytes = reader.join().map_err(|_| "reading it".to_owned())?.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("it prints more than {LONGEST} bytes"));
    }
    Ok((status.success(), String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use invarlock_security::SecureTempDir;
    use std::os::unix::fs::PermissionsExt as _;

    fn with(script: &str) -> Result<Option<Credential>, String> {
        let dir = SecureTempDir::new("invarlock-helper-").expect("directory");
        let path = dir.path().join("docker-credential-it");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("program");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("program");
        ask("it", "host.example:1", &[PathBuf::from("bin"), dir.path().to_owned()], Duration::from_secs(2))
    }

    #[test]
    fn helpers() {
        let good = r#"read server; [ "$1" = get ] && echo "{\"ServerURL\":\"$server\",\"Username\":\"$server\",\"Secret\":\"s\"}""#;
        let expected = Credential::Password("host.example:1".to_owned(), "s".to_owned());
        assert_eq!(with(good), Ok(Some(expected)));
        assert_eq!(
            with(r#"echo '{"Username":"<token>","Secret":"t"}'"#),
            Ok(Some(Credential::Refresh("t".to_owned())))
        );
        assert_eq!(with("echo credentials not found in native keychain; exit 1"), Ok(None));
        let no = |script: &str, word: &str| {
            let why = with(script).expect_err(script);
            assert!(why.contains(word), "{script}: {why}");
        };
        no("echo locked; exit 1", "locked");
        no("exec sleep 60", "does not end");
        no("sleep 5 & exit 0", "goes on printing");
        no("exec yes", "more than");
        no("head -c 100000 /dev/zero", "more than");
        no("echo '{\"Secret\":\"hidden\"'", "no credential");
        assert!(!with("echo '{\"Secret\":\"hidden\"'").expect_err("no").contains("hidden"));
    }

    #[test]
    fn only_names_of_programs_in_safe_places() {
        let ask = |name: &str| ask(name, "x", &[PathBuf::from("/tmp")], PATIENCE);
        for name in ["", "../x", "a/b", "a b", "a\0"] {
            assert!(ask(name).expect_err(name).contains("no name of a program"), "{name}");
        }
        assert!(ask("missing-for-sure").expect_err("missing").contains("not in PATH"));
    }
}
