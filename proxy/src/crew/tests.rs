use std::sync::mpsc;

use tokio::task::JoinSet;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A crew whose one thread waits in a slice until the sender is dropped.
async fn occupied() -> (Arc<Crew>, mpsc::Sender<()>, JoinSet<()>) {
    let crew = Arc::new(Crew::of(1, true).unwrap());
    let (free, wait) = mpsc::channel::<()>();
    let (begun, began) = oneshot::channel();
    let mut waiting = JoinSet::new();
    let own = Arc::clone(&crew);
    waiting.spawn(async move {
        let work = move || {
            begun.send(()).unwrap();
            let _freed = wait.recv();
        };
        own.once(0, work).await.unwrap();
    });
    began.await.unwrap();
    (crew, free, waiting)
}

/// As if its threads got much done, so that nobody does his work himself.
fn never_late(crew: &Crew) {
    crew.0.done.fetch_add(1 << 40, Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_comes_back_done() {
    let crew = Crew::of(2, true).unwrap();
    assert_eq!(crew.once(1, || 7).await, Ok(7));
    let mut left = 5;
    let sum = crew.run(1, move || {
        left -= 1;
        (left == 0).then_some("all")
    });
    assert_eq!(sum.await, Ok("all"));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_runs_when_nothing_else_does() {
    let crew = Crew::of(1, true).unwrap();
    let policy = crew
        .once(1, || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields = stat.rsplit(')').next().unwrap();
            // Field 41 of proc_pid_stat(5), of which two are before the bracket.
            fields.split_whitespace().nth(38).map(str::to_owned)
        })
        .await;
    assert_eq!(policy, Ok(Some("5".into())), "SCHED_IDLE is 5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_one_works_and_the_thread_goes_on() {
    let crew = Crew::of(1, true).unwrap();
    for number in 0..4 {
        let mut slices = 0;
        let failed: Result<(), Failed> = crew
            .run(number, move || {
                slices += 1;
                assert!(slices < 3, "a bug");
                None
            })
            .await;
        assert_eq!(failed, Err(Failed));
        assert_eq!(crew.once(number, || 1).await, Ok(1));
    }
}

/// One connection has a hundred pieces of work, the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_take_turns() {
    let (crew, free, mut waiting) = occupied().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut give = |connection: u64, number: usize| {
        let (crew, order) = (Arc::clone(&crew), Arc::clone(&order));
        waiting.spawn(async move {
            let mut slices = 0;
            let work = move || {
                slices += 1;
                order.lock().unwrap().push((connection, number));
                (slices == 2).then_some(())
            };
            crew.run(connection, work).await.unwrap();
        });
    };
    for number in 0..100 {
        give(1, number);
    }
    give(2, 0);
    // All of them wait, and none has been done in place.
    timeout(PATIENCE, async {
        while crew
            .0
            .queue()
            .rows
            .values()
            .map(VecDeque::len)
            .sum::<usize>()
            < 101
        {
            never_late(&crew);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
    drop(free);
    // Nor is any where its thread gets no processor for a while.
    loop {
        match timeout(Duration::from_millis(1), waiting.join_next()).await {
            Ok(Some(ended)) => ended.unwrap(),
            Ok(None) => break,
            Err(_) => {}
        }
        never_late(&crew);
    }
    let order = order.lock().unwrap();
    let of_two: Vec<usize> = (0..order.len()).filter(|at| order[*at].0 == 2).collect();
    assert!(
        of_two[1] <= 4,
        "its slices were at {of_two:?} of {}",
        order.len()
    );
    assert!(crew.0.queue().rows.is_empty() && crew.0.queue().turns.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_takes_his_work_with_him() {
    let (crew, free, mut waiting) = occupied().await;
    let touched = Arc::new(());
    let mut left = JoinSet::new();
    for connection in 0..8 {
        let (crew, own) = (Arc::clone(&crew), Arc::clone(&touched));
        left.spawn(async move {
            let work = move || drop(Arc::clone(&own));
            crew.once(connection % 2, work).await.unwrap();
        });
    }
    while Arc::strong_count(&touched) < 9 || crew.0.queue().rows.len() < 2 {
        never_late(&crew);
        tokio::task::yield_now().await;
    }
    left.shutdown().await;
    // While the thread is still busy.
    assert_eq!(Arc::strong_count(&touched), 1);
    assert!(crew.0.queue().rows.is_empty() && crew.0.queue().turns.is_empty());
    drop(free);
    waiting.join_next().await.unwrap().unwrap();
    assert_eq!(crew.once(1, || 1).await, Ok(1));
}

/// Its one thread does nothing, as one does that gets no processor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_done_by_whoever_waits_where_the_crew_gets_nothing_done() {
    let (crew, free, mut waiting) = occupied().await;
    let begun = std::time::Instant::now();
    for _ in 0..=IN_PLACE {
        let mut slices = 0;
        let work = move || {
            slices += 1;
            (slices == 3).then(std::thread::current)
        };
        let by = crew.run(1, work).await.unwrap();
        assert_ne!(by.name(), Some("crew"));
    }
    let took = begun.elapsed();
    assert!(took >= LATE, "{took:?}");
    assert!(
        took < LATE * 10,
        "one wait for all of them, and not {took:?}"
    );
    drop(free);
    waiting.join_next().await.unwrap().unwrap();
    // On a machine with other things to do its thread may be late some more times.
    timeout(PATIENCE, async {
        loop {
            let again = crew.once(1, || std::thread::current().name() == Some("crew"));
            if again.await == Ok(true) {
                break;
            }
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_alone_waits_for_no_thread() {
    for workers in [true, false] {
        let crew = Crew::of(1, workers).unwrap();
        let by_crew = || std::thread::current().name() == Some("crew");
        let first = crew.burden();
        let mut slices = Vec::new();
        let scan = crew.scan(&first, 1, move || {
            slices.push(by_crew());
            (slices.len() == 3).then(|| slices.clone())
        });
        assert_eq!(scan.await, Ok(vec![!workers; 3]));
        let second = crew.burden();
        assert_eq!(
            crew.scan(&first, 1, move || Some(by_crew())).await,
            Ok(true)
        );
        assert_eq!(
            crew.scan(&second, 2, move || Some(by_crew())).await,
            Ok(true)
        );
        drop(first);
        assert_eq!(
            crew.scan(&second, 2, move || Some(by_crew())).await,
            Ok(!workers)
        );
    }
}

/// The other comes while it is at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_not_alone_any_more_goes_on_with_the_crew() {
    let crew = Arc::new(Crew::of(1, true).unwrap());
    let (first, own) = (crew.burden(), Arc::clone(&crew));
    let (mut slices, mut second) = (Vec::new(), None);
    let scan = crew.scan(&first, 1, move || {
        slices.push(std::thread::current().name() == Some("crew"));
        second.get_or_insert_with(|| own.burden());
        (slices.len() == 3).then(|| slices.clone())
    });
    assert_eq!(scan.await, Ok(vec![false, true, true]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_threads_end_with_it() {
    let shared = {
        let crew = Crew::of(3, true).unwrap();
        assert_eq!(crew.once(1, || 1).await, Ok(1));
        Arc::downgrade(&crew.0)
    };
    timeout(PATIENCE, async {
        while shared.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
}
