//! Trying again what may go better another time.

use invarlock_error::Kind;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use invarlock_images::{Error, Result};

/// No registry makes us wait longer at once.
const LONGEST: Duration = Duration::from_secs(60);

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Problem {
    /// It would fail again.
    Final(Error),
    /// It may not, after this time where the registry named one.
    Passing(Error, Option<Duration>),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// How often and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryPolicy {
    pub tries: u32,
    pub first: Duration,
}

impl RetryPolicy {
    /// Calls `work` until it is done, fails for good, or has failed too often in a row. It says of a failure whether it got any further.
    pub fn with<T>(self, mut work: impl FnMut() -> std::result::Result<T, (Problem, bool)>) -> Result<T> {
        let mut failed = 0;
        // Progress a byte at a time is none for ever.
        for _ in 0..100 {
            match work() {
                Ok(done) => return Ok(done),
                Err((Problem::Final(error), _)) => return Err(error),
                Err((Problem::Passing(error, asked), further)) => {
                    failed = if further { 1 } else { failed + 1 };
                    if failed >= self.tries {
                        return Err(told(error, failed));
                    }
                    std::thread::sleep(asked.map_or_else(|| self.pause(failed), |it| it.min(LONGEST)));
                }
            }
        }
        Err(Error::system("it stops again and again"))
    }

    /// Twice as long each time, and not the same for all who wait.
    fn pause(self, failed: u32) -> Duration {
        let whole = self.first.saturating_mul(1 << failed.saturating_sub(1).min(10)).min(LONGEST);
        let noise = std::hash::RandomState::new().build_hasher().finish() % 512;
        whole.mul_f64((512 + noise) as f64 / 1024.0)
    }
}

fn told(error: Error, tries: u32) -> Error {
    match error.kind() {
        Kind::System => error.context(format_args!("giving up after {tries} attempts")),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends() {
        let patience = RetryPolicy { tries: 3, first: Duration::from_millis(1) };
        let passing = || Problem::Passing(Error::system("no"), None);
        let mut calls = 0;
        let ended = patience.with(|| -> std::result::Result<(), _> {
            calls += 1;
            Err((passing(), false))
        });
        assert_eq!((calls, ended.expect_err("no").to_string()), (3, "no (tried 3 times)".to_owned()));
        let mut calls = 0;
        let ended = patience.with(|| -> std::result::Result<(), _> {
            calls += 1;
            Err((passing(), true))
        });
        assert_eq!((calls, ended.is_err()), (100, true));
        let mut calls = 0;
        patience
            .with(|| {
                calls += 1;
                if calls < 3 { Err((passing(), false)) } else { Ok(()) }
            })
            .expect("third time");
        for failed in 1..40 {
            assert!(patience.pause(failed) <= LONGEST);
        }
    }
}
