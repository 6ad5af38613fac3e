//! What connections took is given back to the system when they have ended.
//!
//! The allocator keeps what was freed below anything that lives on. After a thousand tunnels that is most of what they
//! took, and a sidecar lives as long as its bottle.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

/// The least time between two times: where connections come and go all the time, what is freed is soon used again.
pub const PAUSE: Duration = Duration::from_secs(2);

/// Gives memory back a moment after connections have ended, for ever.
pub async fn give_back(ended: Arc<Notify>) {
    loop {
        ended.notified().await;
        tokio::time::sleep(PAUSE).await;
        // It takes milliseconds where there is much.
        let _ended = tokio::task::spawn_blocking(trim).await;
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no safe crate offers this one call")]
fn trim() {
    // SAFETY: it takes no pointer, may be called from any thread at any time, and touches only memory that is free
    // (malloc_trim(3)).
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators do it by themselves, or not at all.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
