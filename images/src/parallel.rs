//! Work on all processors, of which the first error ends all.

use invarlock_error::Context as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use crate::{Error, Result};

/// More threads than this gain nothing where the disk or the memory is shared, and cost handles.
const MOST: usize = 8;

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST)
}

/// Calls `work` for every item, at most as many at once as there are processors.
pub(crate) fn each<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    each_of_some(processors(), items, work)
}

/// The same for work that waits rather than computes: at most `most` at once.
pub(crate) fn each_of_some<T: Sync>(
    most: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let workers = most.min(items.len());
    if workers < 2 {
        return items.iter().try_for_each(work);
    }
    let next = AtomicUsize::new(0);
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(item) {
                next.store(items.len(), Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        // This thread works as well, so that fewer than wanted are enough.
        let threads: Vec<_> = (1..workers).map_while(|_| start(scope, run).ok()).collect();
        let own = run();
        threads.into_iter().map(join).fold(own, Result::and)
    })
}

/// The same, and calls `after` in a thread of its own when items are done and others are not yet: not once for each, but as often as it
/// manages.
pub(crate) fn each_and_after<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<()> + Sync,
    after: impl Fn() -> Result<()> + Send,
) -> Result<()> {
    if items.len() < 2 {
        return each(items, work);
    }
    let (tell, told) = sync_channel::<()>(1);
    let done = AtomicUsize::new(0);
    let work = move |item: &T| {
        work(item)?;
        if done.fetch_add(1, Ordering::Relaxed) + 1 < items.len() {
            // Where one call is due already, that is enough.
            let _ = tell.try_send(());
        }
        Ok(())
    };
    let after = move || told.iter().try_for_each(|()| after());
    let (after, worked) = beside(after, move || each(items, work))?;
    worked.and(after)
}

/// Does one thing in a thread of its own, and another meanwhile.
pub(crate) fn beside<A: Send, B>(
    other: impl FnOnce() -> A + Send,
    own: impl FnOnce() -> B,
) -> Result<(A, B)> {
    std::thread::scope(|scope| {
        let thread = start(scope, other)?;
        let own = own();
        Ok((join(thread), own))
    })
}

/// A thread, where the system has one left.
fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    std::thread::Builder::new()
        .spawn_scoped(scope, work)
        .context("starting a thread")
        .hint("allow more processes (`ulimit -u`, or `pids.max` of the caller's cgroup)")
}

/// `wanted` threads for the same, or as many as the system has left, but one.
pub(crate) fn several<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    wanted: usize,
    work: impl FnOnce() -> T + Send + Copy + 'scope,
) -> Result<Vec<ScopedJoinHandle<'scope, T>>> {
    let mut threads = Vec::new();
    while threads.len() < wanted {
        match start(scope, work) {
            Ok(thread) => threads.push(thread),
            Err(error) if threads.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(threads)
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Threads for a stream of items, each with a state of its own.
pub(crate) struct WorkerPool<Start, Work> {
    /// Items that a thread takes at once.
    pub batch: usize,
    /// Makes a thread's state.
    pub start: Start,
    /// What is done with an item.
    pub work: Work,
}

impl<Start, Work> WorkerPool<Start, Work> {
    /// Has `produce` give items until it is done or somebody failed.
    pub fn run<T: Send, S>(
        self,
        produce: impl FnOnce(&mut dyn FnMut(T) -> Result<()>) -> Result<()>,
    ) -> Result<()>
    where
        Start: Fn() -> Result<S> + Sync,
        Work: Fn(&mut S, T) -> Result<()> + Sync,
    {
        let workers = processors();
        let (give, take) = sync_channel::<Vec<T>>(workers * 2);
        let take = Mutex::new(take);
        std::thread::scope(|scope| {
            let threads = several(scope, workers, || self.worker(&take))?;
            let mut batch = Vec::with_capacity(self.batch);
            // Nobody takes any more: all have failed, and say why.
            let stopped = |_| Error::system("nobody is left to work");
            let mut produced = produce(&mut |item| {
                batch.push(item);
                match batch.len() < self.batch {
                    true => Ok(()),
                    false => give.send(std::mem::take(&mut batch)).map_err(stopped),
                }
            });
            if produced.is_ok() {
                produced = give.send(batch).map_err(stopped);
            }
            drop(give);
            threads.into_iter().map(join).fold(Ok(()), Result::and).and(produced)
        })
    }

    fn worker<T: Send, S>(&self, take: &Mutex<Receiver<Vec<T>>>) -> Result<()>
    where
        Start: Fn() -> Result<S> + Sync,
        Work: Fn(&mut S, T) -> Result<()> + Sync,
    {
        let next = || take.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
        let mut worked = (self.start)();
        while let Some(batch) = next() {
            // After an error the rest is taken and thrown away, so that whoever gives is not held up.
            worked = worked.and_then(|mut state| {
                batch.into_iter().try_for_each(|item| (self.work)(&mut state, item)).map(|()| state)
            });
        }
        worked.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_worked_on_and_the_first_error_is_told() {
        for count in [0, 1, 5, 1000] {
            let sum = AtomicUsize::new(0);
            let add = |_: &mut (), item: usize| {
                sum.fetch_add(item, Ordering::Relaxed);
                Ok(())
            };
            let crew = WorkerPool { batch: 7, start: || Ok(()), work: add };
            crew.run(|give| (0..count).try_for_each(give)).expect("worked");
            assert_eq!(sum.into_inner(), (0..count).sum::<usize>());
        }
        let fail = |_: &mut (), item: usize| match item {
            500 => Err(Error::input("500")),
            _ => Ok(()),
        };
        let crew = WorkerPool { batch: 7, start: || Ok(()), work: fail };
        assert_eq!(crew.run(|give| (0..1000).try_for_each(give)).expect_err("500").to_string(), "500");
        let crew = WorkerPool { batch: 7, start: || Err::<(), _>(Error::input("start")), work: fail };
        assert_eq!(crew.run(|give| (0..1000).try_for_each(give)).expect_err("start").to_string(), "start");
        let crew = WorkerPool { batch: 7, start: || Ok(()), work: |_: &mut (), _: usize| Ok(()) };
        let produced = crew.run(|give| give(1).and_then(|()| Err(Error::input("produce"))));
        assert_eq!(produced.expect_err("produce").to_string(), "produce");
    }

    #[test]
    fn items_are_worked_on_at_once_until_one_fails() {
        let all: Vec<usize> = (0..100).collect();
        let done = AtomicUsize::new(0);
        each(&all, |_| {
            done.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .expect("worked");
        assert_eq!(done.into_inner(), 100);
        assert!(each(&all, |it| if *it == 50 { Err(Error::input(String::new())) } else { Ok(()) }).is_err());
    }
}
