//! Removing a container and its image, whoever does it: the undo of a start, or a sweep.

use std::io;

use serde_json::Value;

use super::image;
use super::note;
use super::program::{CallError, Caller, patience};
use crate::state::Slug;

/// Done is when it is not listed. `NotFound` where there was nothing to remove.
pub fn remove(caller: &Caller, slug: &Slug) -> io::Result<()> {
    let _turn = caller.turn();
    let container = note::container(slug);
    let existed = is_listed(caller, &container)?;
    if existed {
        // Also one that runs: its machine ends with it.
        let deleted = caller.call(
            "delete the container",
            &["delete", "--force", &container],
            patience(),
        );
        // Somebody may have been faster, and then it is gone whatever was said.
        if is_listed(caller, &container)? {
            deleted?;
            return Err(io::Error::other(format!(
                "Apple's `container` says that {container} is deleted, and lists it"
            )));
        }
    }
    // One that is not there is no error.
    caller.call(
        "delete the image",
        &["image", "delete", "--force", &image::reference(slug)],
        patience(),
    )?;
    if existed {
        Ok(())
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn is_listed(caller: &Caller, container: &str) -> Result<bool, CallError> {
    let id = |entry: &Value| entry.get("id").and_then(Value::as_str) == Some(container);
    Ok(caller.list()?.iter().any(id))
}
