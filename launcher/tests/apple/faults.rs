//! Faults at every call of `container`: it fails, it does it and fails, it does not answer, the launcher is told to end
//! meanwhile, the launcher is killed meanwhile. Whatever happens, no container was ever started unlocked, and nothing is
//! left.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::Running;
use crate::fake::{Fake, is_locked};

fn start(fake: &Fake) -> (i32, String) {
    let child = fake
        .host
        .command(&[
            "start",
            "sh",
            "--headless",
            "--prompt",
            "echo the agent ran",
        ])
        .spawn()
        .unwrap();
    // `env` and `setpriv` become the launcher, with their number.
    fake.launcher_is(child.id());
    let ran = Running::of(child).finish();
    (ran.code, format!("{}{}", ran.stdout, ran.stderr))
}

/// `BOT_BOTTLE_FAULTS=all` takes the slow ones at every call too.
#[test]
fn a_fault_at_any_call_leaves_nothing_and_starts_nothing_unlocked() {
    let mut fake = Fake::new();
    fake.env("BOT_BOTTLE_CONTAINER_TIMEOUT", "5");
    let (code, said) = start(&fake);
    assert_eq!(code, 0, "{said}");
    fake.is_clean();
    let calls = fake.verbs();
    assert!(calls.len() >= 12, "{calls:?}");

    let all = std::env::var("BOT_BOTTLE_FAULTS").is_ok_and(|wanted| wanted == "all");
    let mut injected = 0;
    for fault in ["error", "error-after", "signal", "kill", "no-answer"] {
        for (at, call) in calls.iter().enumerate() {
            let slow = match fault {
                "no-answer" => at % 4 != 1,
                "error-after" => at % 2 != 0,
                _ => false,
            };
            if slow && !all {
                continue;
            }
            let code = inject(&mut fake, fault, at, call);
            println!("{fault} at {call}: {code}, nothing left");
            injected += 1;
        }
    }
    fixtures::tell!("{injected} faults at {} calls, nothing left", calls.len());
    assert!(injected >= if all { 60 } else { 40 }, "{injected}");
}

/// A start with a fault at one call; its exit code. No machine has started unlocked, and nothing is left.
fn inject(fake: &mut Fake, fault: &str, at: usize, call: &str) -> i32 {
    fake.forget();
    fake.wish("fault", json!(fault)).wish("fault_at", json!(at));
    let (code, said) = start(fake);
    let what = format!("{fault} at call {at} ({call}): {code} {said}");
    assert!(
        !said.contains("the agent ran") || said.contains("probe passed 11/11"),
        "{what}"
    );
    if fault == "error" && !said.contains("the agent ran") {
        assert!(
            code != 0 && said.contains("error: "),
            "the cause is not said: {what}"
        );
    }
    let unlocked: Vec<Value> = fake
        .started()
        .into_iter()
        .filter(|container| !is_locked(container))
        .collect();
    assert!(unlocked.is_empty(), "{unlocked:?} by {what}");
    fake.wish("fault", Value::Null)
        .wish("fault_at", Value::Null);
    nothing_is_left(fake, &what);
    code
}

fn nothing_is_left(fake: &Fake, what: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let cleanup = fake.host.run(&["cleanup"]);
        assert_eq!(cleanup.code, 0, "{what}: {}", cleanup.stderr);
        let left = fake.left();
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "{left:?} is left by {what}");
        pause(Duration::from_millis(100));
    }
    let logs = fake.host.state.join("logs");
    if logs.exists() {
        fs::remove_dir_all(logs).unwrap();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no runtime whose worker this would block"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
