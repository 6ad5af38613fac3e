//! Where this backend can be: the one place in it that asks for the platform.

use crate::backend::Missing;

/// Set to 1 it leaves the question to whatever `container` is on PATH, which has to answer as Apple's does.
const SKIP: &str = "BOT_BOTTLE_SKIP_MACOS_CHECK";

pub fn missing() -> Option<Missing> {
    let skipped = std::env::var(SKIP).is_ok_and(|wanted| wanted == "1");
    look(std::env::consts::OS, skipped)
}

fn look(os: &str, skipped: bool) -> Option<Missing> {
    if os == "macos" || skipped {
        return None;
    }
    Some(Missing {
        what: format!("it is Apple's `container`, which is for macOS, and this is {os}"),
        remedy: "use --backend local, or smolmachines or docker where `launcher doctor` finds them"
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elsewhere_it_says_what_to_use() {
        let linux = look("linux", false).unwrap().to_string();
        assert!(
            linux.contains("this is linux") && linux.contains("--backend local"),
            "{linux}"
        );
        assert!(look("macos", false).is_none());
    }
}
