//! Parallel work in threads, which stops at the first error.

use invarlock_error::Context as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use crate::{Error, Result};

/// Most threads. More do not help where disk and memory bandwidth are shared, and need open files.
const MAX_THREADS: usize = 8;

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
}

/// Calls `work` for every item, in one thread per processor.
pub(crate) fn for_each<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    for_each_limited(processors(), items, work)
}

/// Calls `work` for every item, in at most `limit` threads: for work that mostly waits.
pub(crate) fn for_each_limited<T: Sync>(
    limit: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let workers = limit.min(items.len());
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
        // This thread works as well, so it does not matter if the system refuses further threads.
        let threads: Vec<_> = (1..workers).map_while(|_| start(scope, run).ok()).collect();
        let own = run();
        threads.into_iter().map(join).fold(own, Result::and)
    })
}

/// Like [`for_each`]; also calls `flush` in another thread whenever an item is done and others are not. Calls are merged if `flush` takes
/// longer than an item.
pub(crate) fn for_each_with_flush<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<()> + Sync,
    flush: impl Fn() -> Result<()> + Send,
) -> Result<()> {
    if items.len() < 2 {
        return for_each(items, work);
    }
    let (request, requests) = sync_channel::<()>(1);
    let done = AtomicUsize::new(0);
    let work = move |item: &T| {
        work(item)?;
        if done.fetch_add(1, Ordering::Relaxed) + 1 < items.len() {
            // If a flush is already requested, that is enough.
            let _ = request.try_send(());
        }
        Ok(())
    };
    let flush_all = move || requests.iter().try_for_each(|()| flush());
    let (flushed, worked) = join_with(flush_all, move || for_each(items, work))?;
    worked.and(flushed)
}

/// Runs `other` in a new thread and `own` in this one.
pub(crate) fn join_with<A: Send, B>(
    other: impl FnOnce() -> A + Send,
    own: impl FnOnce() -> B,
) -> Result<(A, B)> {
    std::thread::scope(|scope| {
        let thread = start(scope, other)?;
        let own = own();
        Ok((join(thread), own))
    })
}

/// Starts a thread.
fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    std::thread::Builder::new()
        .spawn_scoped(scope, work)
        .context("starting a thread")
        .hint("allow more processes (`ulimit -u`, or `pids.max` of the caller's cgroup)")
}

/// Starts `wanted` threads with the same work. If the system refuses some of them, fewer run, but at least one.
pub(crate) fn start_up_to<'scope, T: Send + 'scope>(
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

/// Threads that process a stream of items, each with its own state.
pub(crate) struct WorkerPool<Start, Work> {
    /// Items that a thread receives at once.
    pub batch: usize,
    /// Creates the state of a thread.
    pub start: Start,
    /// Processes an item.
    pub work: Work,
}

impl<Start, Work> WorkerPool<Start, Work> {
    /// Processes the items of `produce` until it ends or a thread fails.
    pub fn run<T: Send, S>(
        self,
        produce: impl FnOnce(&mut dyn FnMut(T) -> Result<()>) -> Result<()>,
    ) -> Result<()>
    where
        Start: Fn() -> Result<S> + Sync,
        Work: Fn(&mut S, T) -> Result<()> + Sync,
    {
        let workers = processors();
        let (sender, receiver) = sync_channel::<Vec<T>>(workers * 2);
        let receiver = Mutex::new(receiver);
        std::thread::scope(|scope| {
            let threads = start_up_to(scope, workers, || self.run_worker(&receiver))?;
            let mut batch = Vec::with_capacity(self.batch);
            // Sending fails only after every thread has failed; their error is returned.
            let stopped = |_| Error::system("all worker threads have stopped");
            let mut produced = produce(&mut |item| {
                batch.push(item);
                match batch.len() < self.batch {
                    true => Ok(()),
                    false => sender.send(std::mem::take(&mut batch)).map_err(stopped),
                }
            });
            if produced.is_ok() {
                produced = sender.send(batch).map_err(stopped);
            }
            drop(sender);
            threads.into_iter().map(join).fold(Ok(()), Result::and).and(produced)
        })
    }

    fn run_worker<T: Send, S>(&self, receiver: &Mutex<Receiver<Vec<T>>>) -> Result<()>
    where
        Start: Fn() -> Result<S> + Sync,
        Work: Fn(&mut S, T) -> Result<()> + Sync,
    {
        let next = || receiver.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
        let mut result = (self.start)();
        while let Some(batch) = next() {
            // After an error, items are received and discarded, so that the producer is not blocked.
            result = result.and_then(|mut state| {
                batch.into_iter().try_for_each(|item| (self.work)(&mut state, item)).map(|()| state)
            });
        }
        result.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_processes_all_items_and_returns_first_error() {
        for count in [0, 1, 5, 1000] {
            let sum = AtomicUsize::new(0);
            let add = |_: &mut (), item: usize| {
                sum.fetch_add(item, Ordering::Relaxed);
                Ok(())
            };
            let pool = WorkerPool { batch: 7, start: || Ok(()), work: add };
            pool.run(|send| (0..count).try_for_each(send)).expect("worked");
            assert_eq!(sum.into_inner(), (0..count).sum::<usize>());
        }
        let fail = |_: &mut (), item: usize| match item {
            500 => Err(Error::input("500")),
            _ => Ok(()),
        };
        let pool = WorkerPool { batch: 7, start: || Ok(()), work: fail };
        assert_eq!(pool.run(|send| (0..1000).try_for_each(send)).expect_err("500").to_string(), "500");
        let pool = WorkerPool { batch: 7, start: || Err::<(), _>(Error::input("start")), work: fail };
        assert_eq!(pool.run(|send| (0..1000).try_for_each(send)).expect_err("start").to_string(), "start");
        let pool = WorkerPool { batch: 7, start: || Ok(()), work: |_: &mut (), _: usize| Ok(()) };
        let produced = pool.run(|send| send(1).and_then(|()| Err(Error::input("produce"))));
        assert_eq!(produced.expect_err("produce").to_string(), "produce");
    }

    #[test]
    fn for_each_processes_all_items_and_returns_error() {
        let all: Vec<usize> = (0..100).collect();
        let done = AtomicUsize::new(0);
        for_each(&all, |_| {
            done.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .expect("worked");
        assert_eq!(done.into_inner(), 100);
        assert!(
            for_each(&all, |item| if *item == 50 { Err(Error::input(String::new())) } else { Ok(()) })
                .is_err()
        );
    }
}
