//! The one place that asks what the CPU can do.

/// Runs `work`, compiled for AVX2 where the CPU has it: for loops without branches, which the compiler then does
/// 32 bytes at a time. The result is the same either way; `work` must be `#[inline(always)]` to gain by it.
#[cfg(target_arch = "x86_64")]
pub(super) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    #[target_feature(enable = "avx2")]
    fn with_avx2<R>(work: impl FnOnce() -> R) -> R {
        work()
    }

    if is_x86_feature_detected!("avx2") {
        #[expect(
            unsafe_code,
            reason = "only a call of safe code that was compiled for more than every x86-64 has"
        )]
        // SAFETY: AVX2 was just seen to be there, and nothing else is asked of the caller.
        return unsafe { with_avx2(work) };
    }
    work()
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    work()
}
