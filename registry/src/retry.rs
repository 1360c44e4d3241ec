//! Retries of requests that may succeed at a later attempt.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use invarlock_error::{Error, Kind, Result};

/// The longest pause between attempts, also if the registry requests a longer one.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The limit of attempts even if each makes progress: a registry could send one byte per attempt.
const MAX_ATTEMPTS: usize = 100;

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// Another attempt would fail too.
    Permanent(Error),
    /// Another attempt may succeed, after the pause that the registry requested, if any.
    Transient(Error, Option<Duration>),
}

/// The result of one attempt.
pub(crate) type Attempt<T> = std::result::Result<T, RequestError>;

impl From<Error> for RequestError {
    fn from(error: Error) -> Self {
        Self::Permanent(error)
    }
}

/// The number of attempts and the pauses between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryPolicy {
    /// How often in a row a request may fail without progress.
    pub attempts: u32,
    /// The pause after the first failure. It doubles with each further failure.
    pub first_pause: Duration,
}

impl RetryPolicy {
    /// Calls `attempt` until it succeeds, fails permanently or fails too often in a row. With its error, `attempt` returns whether it made
    /// progress.
    pub fn run<T>(
        self,
        mut attempt: impl FnMut() -> std::result::Result<T, (RequestError, bool)>,
    ) -> Result<T> {
        let mut failed = 0;
        for _ in 0..MAX_ATTEMPTS {
            match attempt() {
                Ok(done) => return Ok(done),
                Err((RequestError::Permanent(error), _)) => return Err(error),
                Err((RequestError::Transient(error, requested), progress)) => {
                    failed = if progress { 1 } else { failed + 1 };
                    if failed >= self.attempts {
                        return Err(with_attempts(error, failed));
                    }
                    std::thread::sleep(
                        requested.map_or_else(|| self.pause(failed), |pause| pause.min(MAX_PAUSE)),
                    );
                }
            }
        }
        Err(Error::system(format!("the transfer was interrupted {MAX_ATTEMPTS} times")))
    }

    /// Exponential back-off with jitter between half and the whole pause.
    fn pause(self, failed: u32) -> Duration {
        let whole = self.first_pause.saturating_mul(1 << failed.saturating_sub(1).min(10)).min(MAX_PAUSE);
        let noise = std::hash::RandomState::new().build_hasher().finish() % 512;
        whole.mul_f64((512 + noise) as f64 / 1024.0)
    }
}

fn with_attempts(error: Error, attempts: u32) -> Error {
    match error.kind() {
        Kind::System => error.with_note(format_args!("{attempts} attempts failed")),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transient() -> RequestError {
        RequestError::Transient(Error::system("no"), None)
    }

    #[test]
    fn attempts_are_limited_with_and_without_progress() {
        let policy = RetryPolicy { attempts: 3, first_pause: Duration::from_millis(1) };
        let count = |progress: bool| {
            let mut calls = 0;
            let result = policy.run(|| -> std::result::Result<(), _> {
                calls += 1;
                Err((transient(), progress))
            });
            (calls, result.expect_err("no attempt succeeds").to_string())
        };
        assert_eq!(count(false), (3, "no; 3 attempts failed".to_owned()));
        assert_eq!(count(true).0, 100);
    }

    #[test]
    fn third_attempt_may_succeed() {
        let policy = RetryPolicy { attempts: 3, first_pause: Duration::from_millis(1) };
        let mut calls = 0;
        policy
            .run(|| {
                calls += 1;
                if calls < 3 { Err((transient(), false)) } else { Ok(()) }
            })
            .expect("the third attempt succeeds");
    }

    #[test]
    fn pauses_are_limited() {
        let policy = RetryPolicy { attempts: 3, first_pause: Duration::from_millis(1) };
        for failed in 1..40 {
            assert!(policy.pause(failed) <= MAX_PAUSE);
        }
    }
}
