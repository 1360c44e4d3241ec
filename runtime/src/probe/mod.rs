//! `probe`: an attacker of ours in a container of ours, and what became of it.
//!
//! The attacker is this very program once more (`attacker.rs`), put into an image of its own (`stage.rs`) and run through [`crate::run()`]
//! like any workload, with the same filter, limits and supervisor. It tries what `attacks/` lists and prints what the kernel answered. Whether that
//! is good is judged here, outside, where also the supervisor's observations and the host's own state are known.

mod attacker;
mod attacks;
mod stage;
mod sys;

pub(crate) use attacker::{NAME, main};

use crate::identity::Identity;
use crate::observations::Observations;
use crate::outcome::{Outcome, Sink, Status};
use crate::spec::Limits;
use attacks::Expect;
use invarlock_error::{Error, Result};
use serde::{Deserialize, Serialize};
use stage::Stage;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

/// What came of one attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The boundary held.
    Held,
    /// It did not.
    NotHeld,
    /// The attacker refused to try, or did not come so far.
    NotTried,
}

/// One attack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The row of the boundary it goes against.
    pub row: String,
    /// Its short name.
    pub id: String,
    /// What was tried.
    pub attack: String,
    /// What should come of it.
    pub expected: String,
    /// What came of it.
    pub seen: String,
    /// Whether that is the same.
    pub verdict: Verdict,
}

/// What the kernel answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// It was done.
    Done,
    /// This errno.
    Refused(i32),
    /// This signal.
    Killed(i32),
    /// Something to read.
    Said(String),
}

impl Answer {
    fn of<T>(result: std::io::Result<T>) -> Self {
        match result {
            Ok(_) => Answer::Done,
            Err(e) => Answer::Refused(e.raw_os_error().unwrap_or(0)),
        }
    }

    fn shown(&self) -> String {
        match self {
            Answer::Done => "done".into(),
            Answer::Refused(errno) => errno_name(*errno),
            Answer::Killed(libc::SIGSYS) => "killed by SIGSYS".into(),
            Answer::Killed(signal) => format!("killed by signal {signal}"),
            Answer::Said(text) => text.clone(),
        }
    }
}

/// One line of the attacker's.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    attack: String,
    answer: Answer,
}

/// What is known outside.
struct Facts {
    identity: Identity,
    limits: Limits,
    answers: BTreeMap<String, Answer>,
    observations: Observations,
    /// The ends of the runs that have one attack each.
    ends: BTreeMap<&'static str, std::result::Result<Status, Error>>,
    /// What changed on the host.
    changes: stage::Changes,
}

/// Attacks the boundary of this machine, as the caller. Leaves nothing behind.
pub fn probe(cancel: BorrowedFd<'_>) -> Result<Vec<Row>> {
    let stage = Stage::new()?;
    let mut heard = Heard::default();
    let spec = stage.spec("all")?;
    let limits = spec.limits.clone();
    let outcome = crate::run(spec, cancel, &mut heard)?;
    if outcome.status == Status::Cancelled {
        return Err(Error::system("cancelled"));
    }
    let mut ends = BTreeMap::new();
    for alone in attacks::ALONE {
        let end = match crate::run(stage.spec(alone)?, cancel, &mut heard).map(|o: Outcome| o.status) {
            // What is left in its output is refused; any other run has none.
            Err(error) if !attacks::BAD_OUTPUT.contains(&alone) => return Err(error),
            end => end,
        };
        ends.insert(alone, end);
    }
    let changes = stage.changes()?;
    let facts = Facts {
        identity: Identity::of_caller(),
        limits,
        answers: heard.answers(),
        observations: outcome.observations,
        ends,
        changes,
    };
    stage.close()?;
    Ok(attacks::all().map(|attack| attack.judge(&facts)).collect())
}

/// Standard output of the attacker, as far as it is believed to go on.
#[derive(Default)]
struct Heard(Vec<u8>);

const MAX_HEARD: usize = 1 << 20;

impl Sink for Heard {
    fn stdout(&mut self, bytes: &[u8]) {
        let room = MAX_HEARD.saturating_sub(self.0.len());
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn stderr(&mut self, _: &[u8]) {}
}

impl Heard {
    fn answers(&self) -> BTreeMap<String, Answer> {
        let lines =
            self.0.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Line>(line).ok());
        lines.map(|line| (line.attack, line.answer)).collect()
    }
}

impl attacks::Attack {
    /// Compares what was seen with what should be.
    fn judge(&self, facts: &Facts) -> Row {
        let answer = facts.answers.get(self.id);
        let said = |wanted: String| {
            let good = matches!(answer, Some(Answer::Said(text)) if *text == wanted);
            (wanted, answer.map(|a| (a.shown(), good)))
        };
        let (expected, seen) = match &self.expect {
            Expect::Refused(errnos) => {
                let names: Vec<String> = errnos.iter().map(|e| errno_name(*e)).collect();
                let good = matches!(answer, Some(Answer::Refused(errno)) if errnos.contains(errno));
                (names.join(" or "), answer.map(|a| (a.shown(), good)))
            }
            Expect::Killed => {
                let good = answer == Some(&Answer::Killed(libc::SIGSYS));
                ("killed by SIGSYS".into(), answer.map(|a| (a.shown(), good)))
            }
            Expect::Says(text) => said((*text).to_owned()),
            Expect::SaysAs(wanted) => said(wanted(facts)),
            Expect::AtMost(most) => {
                let most = most(facts);
                let number = match answer {
                    Some(Answer::Said(text)) => text.parse::<u64>().ok(),
                    _ => None,
                };
                let good = number.is_some_and(|n| n <= most);
                (format!("at most {most}"), answer.map(|a| (a.shown(), good)))
            }
            Expect::Outside(expected, look) => ((*expected).to_owned(), look(facts, answer)),
        };
        let (seen, verdict) = match seen {
            Some((seen, true)) => (seen, Verdict::Held),
            Some((seen, false)) => (seen, Verdict::NotHeld),
            None => ("no answer".into(), Verdict::NotTried),
        };
        Row {
            row: self.row.into(),
            id: self.id.into(),
            attack: self.what.into(),
            expected,
            seen: crate::printable(&seen),
            verdict,
        }
    }
}

/// As the manual calls it.
fn errno_name(errno: i32) -> String {
    let known = [
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::ESRCH, "ESRCH"),
        (libc::EIO, "EIO"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EFAULT, "EFAULT"),
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
