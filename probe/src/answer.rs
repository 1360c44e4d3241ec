//! What the attacker reports about one attack.

use serde::{Deserialize, Serialize};

/// The result of an attack as the attacker reports it. Untrusted: the attacker runs inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The call succeeded.
    Succeeded,
    /// The call failed with this errno.
    Failed(i32),
    /// The process was killed by this signal.
    Killed(i32),
    /// The attack read or counted this.
    Text(String),
}

impl Answer {
    /// Whether a call succeeded.
    pub(crate) fn of<T>(result: std::io::Result<T>) -> Self {
        match result {
            Ok(_) => Answer::Succeeded,
            Err(e) => Answer::Failed(e.raw_os_error().unwrap_or(0)),
        }
    }

    /// The text for a human reader.
    pub(crate) fn describe(&self) -> String {
        match self {
            Answer::Succeeded => "done".into(),
            Answer::Failed(errno) => errno_name(*errno),
            Answer::Killed(libc::SIGSYS) => "killed by SIGSYS".into(),
            Answer::Killed(signal) => format!("killed by signal {signal}"),
            Answer::Text(text) => text.clone(),
        }
    }
}

/// One line of the attacker's standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AnswerLine {
    /// The identifier of the attack.
    pub(crate) attack: String,
    pub(crate) answer: Answer,
}

/// The name of an errno as in errno(3).
pub(crate) fn errno_name(errno: i32) -> String {
    let known = [
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::ESRCH, "ESRCH"),
        (libc::EIO, "EIO"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EFAULT, "EFAULT"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::EINVAL, "EINVAL"),
        (libc::EBADF, "EBADF"),
        (libc::EMFILE, "EMFILE"),
        (libc::ENOTTY, "ENOTTY"),
        (libc::ETXTBSY, "ETXTBSY"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EROFS, "EROFS"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
        (libc::ENETUNREACH, "ENETUNREACH"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
    ];
    let name = known.into_iter().find(|(number, _)| *number == errno).map(|(_, name)| name.to_owned());
    name.unwrap_or_else(|| std::io::Error::from_raw_os_error(errno).to_string())
}
