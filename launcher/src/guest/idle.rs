//! `__machine-idle`: what a machine runs by itself, so that it runs nothing of its image's: it does nothing.
//!
//! In most versions of smolvm it is the first process of the image's container, and everything that is orphaned in there is its child.

use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{WaitOptions, wait};

/// Between two looks while there is nobody to wait for.
const PAUSE: Duration = Duration::from_secs(1);

/// Until the machine is stopped.
#[expect(
    clippy::disallowed_methods,
    reason = "it has one thread and no runtime"
)]
pub fn main() -> ExitCode {
    loop {
        if wait(WaitOptions::empty()).is_err() {
            std::thread::sleep(PAUSE);
        }
    }
}
