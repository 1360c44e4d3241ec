//! Retries of requests that may succeed at a later attempt.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use invarlock_error::{Error, Kind, Result};

use crate::limits::FREE_GAIN;

/// The longest pause between attempts, also if the registry requests a longer one.
const MAX_PAUSE: Duration = Duration::from_secs(60);

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
    /// How often a request may fail. A failure after [`FREE_GAIN`] new bytes of a blob does not count.
    pub attempts: u32,
    /// The pause after the first failure. It doubles with each further failure.
    pub first_pause: Duration,
    /// No attempt starts after this time.
    pub total: Duration,
}

impl RetryPolicy {
    /// Calls `attempt` until it succeeds, fails permanently, fails too often or the time is over. With its error, `attempt` returns how many
    /// bytes it gained that no attempt before had.
    pub fn run<T>(
        self,
        mut attempt: impl FnMut() -> std::result::Result<T, (RequestError, u64)>,
    ) -> Result<T> {
        let start = Instant::now();
        let mut failed = 0;
        loop {
            let (error, requested, gained) = match attempt() {
                Ok(done) => return Ok(done),
                Err((RequestError::Permanent(error), _)) => return Err(error),
                Err((RequestError::Transient(error, requested), gained)) => (error, requested, gained),
            };
            failed += u32::from(gained < FREE_GAIN);
            if failed >= self.attempts {
                return Err(with_note(error, format_args!("{failed} attempts failed")));
            }
            let pause = requested.map_or_else(|| self.pause(failed), |pause| pause.min(MAX_PAUSE));
            if start.elapsed() + pause > self.total {
                let total = self.total;
                return Err(with_note(error, format_args!("not tried again, because {total:?} are over")));
            }
            std::thread::sleep(pause);
        }
    }

    /// Exponential back-off with jitter between half and the whole pause.
    fn pause(self, failed: u32) -> Duration {
        let whole = self.first_pause.saturating_mul(1 << failed.saturating_sub(1).min(10)).min(MAX_PAUSE);
        let noise = std::hash::RandomState::new().build_hasher().finish() % 512;
        whole.mul_f64((512 + noise) as f64 / 1024.0)
    }
}

fn with_note(error: Error, note: impl std::fmt::Display) -> Error {
    match error.kind() {
        Kind::System => error.with_note(note),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transient() -> RequestError {
        RequestError::Transient(Error::system("no"), None)
    }

    const POLICY: RetryPolicy =
        RetryPolicy { attempts: 3, first_pause: Duration::from_millis(1), total: Duration::from_secs(60) };

    /// The number of attempts, and the error, if attempt number N gains `gained(N)` bytes and fails.
    fn count(policy: RetryPolicy, gained: impl Fn(u64) -> u64) -> (u64, String) {
        let mut calls = 0;
        let result = policy.run(|| -> std::result::Result<(), _> {
            calls += 1;
            Err((transient(), gained(calls)))
        });
        (calls, result.expect_err("no attempt succeeds").to_string())
    }

    #[test]
    fn attempts_without_substantial_gain_are_limited() {
        let expected = (3, "no; 3 attempts failed".to_owned());
        assert_eq!(count(POLICY, |_| 0), expected);
        assert_eq!(count(POLICY, |_| FREE_GAIN - 1), expected);
        // Failures count over the whole request, not in a row.
        assert_eq!(count(POLICY, |call| if call % 2 == 0 { FREE_GAIN } else { 0 }).0, 5);
        assert_eq!(count(POLICY, |call| if call <= 200 { FREE_GAIN } else { 0 }).0, 203);
    }

    #[test]
    fn no_attempt_starts_after_the_total_time() {
        let policy = RetryPolicy {
            first_pause: Duration::from_millis(20),
            total: Duration::from_millis(100),
            ..POLICY
        };
        let start = Instant::now();
        let (calls, error) = count(policy, |_| FREE_GAIN);
        assert!(calls < 20 && start.elapsed() < Duration::from_secs(5), "{calls}");
        assert_eq!(error, "no; not tried again, because 100ms are over");
        let long = policy.run(|| -> std::result::Result<(), _> {
            Err((RequestError::Transient(Error::system("busy"), Some(Duration::MAX)), 0))
        });
        assert!(
            long.is_err() && start.elapsed() < Duration::from_secs(5),
            "a pause beyond the total time is not made"
        );
    }

    #[test]
    fn third_attempt_may_succeed() {
        let mut calls = 0;
        POLICY
            .run(|| {
                calls += 1;
                if calls < 3 { Err((transient(), 0)) } else { Ok(()) }
            })
            .expect("the third attempt succeeds");
    }

    #[test]
    fn pauses_are_limited() {
        for failed in 0..40 {
            assert!(POLICY.pause(failed) <= MAX_PAUSE);
        }
    }
}
