//! What differs between Linux and macOS, for smolvm. Nothing else in this backend asks for the platform.

use std::path::{Path, PathBuf};

use crate::backend::Missing;

/// Whether smolvm reads `SMOLVM_DATA_DIR`.
pub const HAS_DATA_DIR: bool = cfg!(target_os = "linux");

/// Set to 1 it leaves the look at KVM to smolvm, where that has a hypervisor that we do not know.
const SKIP: &str = "BOT_BOTTLE_SKIP_KVM_CHECK";

/// `dirs::data_local_dir()`: macOS knows no XDG.
pub fn data_directory(home: &Path, xdg: Option<&Path>) -> PathBuf {
    if cfg!(target_os = "macos") {
        return home.join("Library/Application Support");
    }
    xdg.map_or_else(|| home.join(".local/share"), Path::to_owned)
}

/// `dirs::cache_dir()` without `XDG_CACHE_HOME`.
pub fn cache_directory(home: &Path) -> PathBuf {
    if cfg!(target_os = "macos") {
        home.join("Library/Caches")
    } else {
        home.join(".cache")
    }
}

/// What the hypervisor lacks. macOS has one in every kernel that smolvm runs on.
pub fn hypervisor() -> Vec<Missing> {
    let skipped = std::env::var(SKIP).is_ok_and(|wanted| wanted == "1");
    if cfg!(target_os = "macos") || skipped {
        return Vec::new();
    }
    super::kvm::missing().into_iter().collect()
}
