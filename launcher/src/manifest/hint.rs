//! "Did you mean …?"

/// At most this many names are listed when none is near.
const MAX_LISTED: usize = 20;

/// The known name that is nearest to what was written, or all of them.
pub fn instead<S: AsRef<str>>(written: &str, known: &[S]) -> String {
    match nearest(written, known) {
        Some(name) => format!("did you mean `{name}`?"),
        None => {
            let names: Vec<_> = known
                .iter()
                .take(MAX_LISTED)
                .map(|name| format!("`{}`", name.as_ref()))
                .collect();
            format!("known here: {}", names.join(", "))
        }
    }
}

pub fn nearest<'k, S: AsRef<str>>(written: &str, known: &'k [S]) -> Option<&'k str> {
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(written, name.as_ref()), name.as_ref()))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_or_all() {
        assert_eq!(
            instead("egres", &["env", "egress"]),
            "did you mean `egress`?"
        );
        assert_eq!(
            instead("zzz", &["env", "egress"]),
            "known here: `env`, `egress`"
        );
    }
}
