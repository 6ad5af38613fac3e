//! What connections took is given back to the system when they have ended.
//!
//! The allocator keeps what was freed below anything that lives on. After a thousand tunnels that is most of what they
//! took, and a sidecar lives as long as its bottle.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::rooms;

/// The least time between two times: where connections come and go all the time, what is freed is soon used again.
pub const PAUSE: Duration = Duration::from_secs(2);

/// What a thread may keep of what it freed last, and from which size on a buffer is the system's own. Left alone, the allocator
/// raises both to some tens of megabytes once it saw a large buffer, and keeps as much for each thread. Rooms of bodies are
/// mostly the system's own, so that one that is given up is no part of what a thread keeps.
const KEPT: i32 = 2 * 1024 * 1024;
const OWN: i32 = rooms::ROOM as i32;

/// Bounds what the allocator keeps; before there is a second thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no safe crate offers this one call")]
pub fn bound() {
    for (parameter, value) in [
        (libc::M_TRIM_THRESHOLD, KEPT),
        (libc::M_MMAP_THRESHOLD, OWN),
    ] {
        // SAFETY: it takes two numbers and keeps them (mallopt(3)); where it refuses, all is as it was.
        unsafe { libc::mallopt(parameter, value) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn bound() {}

/// Gives memory back a moment after connections have ended, for ever.
pub async fn give_back(ended: Arc<Notify>) {
    loop {
        ended.notified().await;
        tokio::time::sleep(PAUSE).await;
        rooms::clear();
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
