//! What the targets share.

use std::future::Future;

/// How many bytes come at a time, and the rest of an input: its first byte says so.
pub fn stepped(input: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = input.split_first()?;
    Some((1 + usize::from(first % 64), rest))
}

/// Runs it where timers can be made. None of them is ever waited for.
pub fn run<T>(what: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(what))
}
