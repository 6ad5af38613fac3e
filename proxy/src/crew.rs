//! Threads for what takes long: scans of long bodies, decoding. They run when nothing else wants the processor.
//!
//! A request that is small is judged by the thread that read it, in microseconds. What may take longer goes to the crew, a
//! *slice* at a time, so that no small request waits behind it: on Linux the crew has the scheduling policy `SCHED_IDLE`,
//! which whoever else wakes up preempts at once. Connections take turns, a slice each, so that eight that send the worst
//! there is hold up the ninth by eight slices at most, and only as long as all threads are busy.
//!
//! - Where one request alone has work that takes long, there is nobody to share with: its windows are scanned where it is, by one of
//!   several workers. So an agent with one thing to say at a time waits for no thread ([`Burden`]).
//! - A task has one piece of work here at a time, waits for it, and reads no further meanwhile: the queue is no longer than
//!   there are requests, and its back-pressure reaches the agent.
//! - A task that is dropped takes its work with it.
//! - A panic is told to the task that waits, as [`Failed`], and the thread goes on.
//! - Where other programs take all of the processor, the crew gets hardly any of it. A task that sees no progress for
//!   [`LATE`] does its work itself, as anything else is done here, and so do the next [`IN_PLACE`] slices.
//!
//! A thread that is preempted may hold a lock, and whoever wants that lock then waits for a thread that may not run. So a
//! slice takes no lock for longer than some instructions (the queue's, that of one shard of the scanner's memory, the
//! runtime's when a task is woken), and neither logs nor writes records. It allocates in arenas of its own; what it was given it
//! does not free, since whoever waits holds it too.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::limits;
use crate::verdict::Cause;

/// So long a task waits without seeing that the crew gets anything done. Longer than the threads of a crew wait for each other,
/// and for other programs that run when nothing else does.
const LATE: Duration = Duration::from_millis(50);
/// Slices that the crew must have done in that time, not to be taken for one that gets no processor.
const FEW: u64 = 2;
/// Slices after a late one that are done in place: a mebibyte of a body.
const IN_PLACE: usize = 16;

/// What was given to the crew panicked, or was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scan failed by a bug of the sidecar's")]
pub struct Failed;

impl From<Failed> for Cause {
    fn from(Failed: Failed) -> Self {
        Self::Internal
    }
}

/// Dropping it ends its threads, each after the slice that it is at.
pub struct Crew(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    /// Slices that threads of the crew have done.
    done: AtomicU64,
    /// Slices that tasks do themselves before they ask the crew again.
    in_place: AtomicUsize,
    /// Requests that have work that takes long.
    burdens: AtomicUsize,
    /// There is another worker beside one that is busy.
    workers: bool,
}

/// That a request has, or will have, work that takes long.
#[derive(Debug)]
pub struct Burden(Arc<Shared>);

#[derive(Default)]
struct Queue {
    /// What waits, by connection; none is empty.
    rows: HashMap<u64, VecDeque<Arc<Job>>>,
    /// Each of those connections once: whose turn is next.
    turns: VecDeque<u64>,
    closed: bool,
}

struct Job {
    connection: u64,
    /// While a thread is at it, it is not here.
    work: Mutex<Option<Work>>,
}

/// Does a slice, and says whether there is more.
type Work = Box<dyn FnMut() -> bool + Send>;

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Crew").field(&self.0).finish()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("burdens", &self.burdens)
            .finish_non_exhaustive()
    }
}

impl Crew {
    /// As many threads as there are processors, and as many more as bodies may be decoded at once, since decoding comes in
    /// long slices. A cage that is put on after this does not hold for them.
    pub fn start() -> io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::of(processors + limits::DECODES, processors > 1)
    }

    fn of(threads: usize, workers: bool) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            ready: Condvar::new(),
            done: AtomicU64::new(0),
            in_place: AtomicUsize::new(0),
            burdens: AtomicUsize::new(0),
            workers,
        });
        // Where one cannot be started those before it end.
        let crew = Self(Arc::clone(&shared));
        for _ in 0..threads {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("crew".into())
                .spawn(move || {
                    step_back();
                    shared.serve();
                })?;
        }
        Ok(crew)
    }

    /// For as long as a request has work for [`Crew::scan`].
    pub fn burden(&self) -> Burden {
        self.0.burdens.fetch_add(1, Ordering::Relaxed);
        Burden(Arc::clone(&self.0))
    }

    /// As [`Crew::run`], of slices that are windows: here, where no other request has as much to do.
    pub async fn scan<T: Send + 'static>(
        &self,
        _of: &Burden,
        connection: u64,
        mut slice: impl FnMut() -> Option<T> + Send + 'static,
    ) -> Result<T, Failed> {
        while self.0.workers && self.0.burdens.load(Ordering::Relaxed) == 1 {
            match catch_unwind(AssertUnwindSafe(&mut slice)) {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => tokio::task::yield_now().await,
                Err(_) => return Err(failed()),
            }
        }
        self.run(connection, slice).await
    }

    /// Runs `slice` until it returns something. Others have their turns between two of its slices, those of the same
    /// connection among themselves.
    pub async fn run<T: Send + 'static>(
        &self,
        connection: u64,
        slice: impl FnMut() -> Option<T> + Send + 'static,
    ) -> Result<T, Failed> {
        let (done, mut wait) = oneshot::channel();
        let mut work = whole(slice, done);
        let in_place = &self.0.in_place;
        let less = |left: usize| left.checked_sub(1);
        if in_place
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
        {
            tokio::task::block_in_place(|| while work() {});
            return wait.await.map_err(|_| failed());
        }
        let queued = Queued {
            shared: &self.0,
            job: Arc::new(Job {
                connection,
                work: Mutex::new(Some(work)),
            }),
        };
        self.0.push(Arc::clone(&queued.job));
        let mut before = self.0.done.load(Ordering::Relaxed);
        loop {
            if let Ok(outcome) = timeout(LATE, &mut wait).await {
                return outcome.map_err(|_| failed());
            }
            let now = self.0.done.load(Ordering::Relaxed);
            if now - before < FEW
                && let Some(mut work) = queued.job.take()
            {
                in_place.store(IN_PLACE, Ordering::Relaxed);
                tokio::task::block_in_place(|| while work() {});
            }
            before = now;
        }
    }

    /// As [`Crew::run`], for what is one slice.
    pub async fn once<T: Send + 'static>(
        &self,
        connection: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failed> {
        let mut work = Some(work);
        // Nobody asks again after the first answer.
        let outcome = self
            .run(connection, move || Some(work.take().map(|work| work())))
            .await?;
        outcome.ok_or(Failed)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.0.queue().closed = true;
        self.0.ready.notify_all();
    }
}

fn failed() -> Failed {
    tracing::error!("a scan failed by a bug of the sidecar's; its request is refused");
    Failed
}

impl Drop for Burden {
    fn drop(&mut self) {
        self.0.burdens.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends with an answer in `done`, or, where nobody waits any more or the slice panics, without one.
fn whole<T: Send + 'static>(
    slice: impl FnMut() -> Option<T> + Send + 'static,
    done: oneshot::Sender<T>,
) -> Work {
    let mut state = Some((slice, done));
    Box::new(move || {
        let Some((slice, _)) = state.as_mut().filter(|(_, done)| !done.is_closed()) else {
            state = None;
            return false;
        };
        match catch_unwind(AssertUnwindSafe(slice)) {
            Ok(None) => return true,
            Ok(Some(outcome)) => {
                if let Some((slice, done)) = state.take() {
                    // What it was given goes first, so that whoever waits frees it.
                    drop(slice);
                    let _unheard = done.send(outcome);
                }
            }
            // Without an answer, which is what tells the task.
            Err(_) => state = None,
        }
        false
    })
}

/// What a task waits for. Dropped, it is no longer in the queue.
struct Queued<'a> {
    shared: &'a Shared,
    job: Arc<Job>,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        drop(self.job.take());
        self.shared.remove(&self.job);
    }
}

impl Job {
    fn take(&self) -> Option<Work> {
        self.work
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn put_back(&self, work: Work) {
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Arc<Job>) {
        let mut queue = self.queue();
        let Queue { rows, turns, .. } = &mut *queue;
        let connection = job.connection;
        let row = rows.entry(connection).or_insert_with(|| {
            turns.push_back(connection);
            VecDeque::new()
        });
        row.push_back(job);
        drop(queue);
        self.ready.notify_one();
    }

    /// What is next; `None` at the end.
    fn next(&self) -> Option<Arc<Job>> {
        let mut queue = self.queue();
        loop {
            if queue.closed {
                return None;
            }
            let Queue { rows, turns, .. } = &mut *queue;
            if let Some(connection) = turns.pop_front() {
                let row = rows.get_mut(&connection);
                let (job, more) =
                    row.map_or((None, false), |row| (row.pop_front(), !row.is_empty()));
                if more {
                    turns.push_back(connection);
                } else {
                    rows.remove(&connection);
                }
                if job.is_some() {
                    return job;
                }
                continue;
            }
            queue = self
                .ready
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn remove(&self, job: &Arc<Job>) {
        let mut queue = self.queue();
        let Queue { rows, turns, .. } = &mut *queue;
        let Some(row) = rows.get_mut(&job.connection) else {
            return;
        };
        row.retain(|other| !Arc::ptr_eq(other, job));
        if row.is_empty() {
            rows.remove(&job.connection);
            turns.retain(|connection| *connection != job.connection);
        }
    }

    fn serve(&self) {
        while let Some(job) = self.next() {
            let Some(mut work) = job.take() else {
                continue;
            };
            let more = work();
            self.done.fetch_add(1, Ordering::Relaxed);
            // Whoever woke up meanwhile is due. Linux may go on with this thread all the same, until its next tick (4 ms): to
            // be idle is a small share, not none.
            std::thread::yield_now();
            if more {
                job.put_back(work);
                self.push(job);
            }
        }
    }
}

/// This thread runs when nothing else does. Where that is refused, it runs as the others do.
#[cfg(target_os = "linux")]
fn step_back() {
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id,
    };
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    if let Err(error) =
        set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle)
    {
        // To be nice is next to it; of a thread, on Linux (setpriority(2)).
        let nice = rustix::process::setpriority_process(None, 19);
        tracing::debug!(%error, nice = nice.is_ok(), "no idle scheduling for scans");
    }
}

#[cfg(not(target_os = "linux"))]
fn step_back() {}

#[cfg(test)]
mod tests;
