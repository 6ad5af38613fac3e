//! `force_allowlist`: a machine has exactly this list, or it is not started.
//!
//! Equal is not written again. What differs is written under `BEGIN IMMEDIATE`, that one key alone, as the BLOB that
//! smolvm reads, and read back through a connection of its own. Any doubt is an error, which leaves the machine where
//! it is: not started.

use rusqlite::{TransactionBehavior, params};
use serde_json::{Value, json};

use super::demand::{check_cidr, differs};
use super::row::{Database, RowError};

const LIST: &str = "allowed_cidrs";

/// What had to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    WasEqual,
    Patched,
}

/// Sees to it that the machine's list is `cidrs`, in this order and nothing else.
pub fn force_allowlist(
    database: &Database,
    machine: &str,
    cidrs: &[String],
) -> Result<Done, RowError> {
    let wanted = json!(cidrs);
    let refuse = |why: String| RowError::Differs {
        machine: machine.to_owned(),
        key: LIST.into(),
        found: wanted.to_string(),
        wanted: why,
    };
    // An empty list is no policy at all for smolvm.
    if cidrs.is_empty() {
        return Err(refuse("one address: an empty list opens everything".into()));
    }
    for cidr in cidrs {
        check_cidr(cidr).map_err(&refuse)?;
    }
    let row = database.read(machine)?;
    if row.get(LIST) == Some(&wanted) {
        return Ok(Done::WasEqual);
    }
    patch(database, machine, &wanted)?;
    // Through a new connection: what another program sees, not what this one believes.
    let now = database.read(machine)?;
    let found = now.get(LIST).unwrap_or(&Value::Null);
    if found != &wanted {
        return Err(differs(machine, LIST, found, &wanted.to_string()));
    }
    Ok(Done::Patched)
}

fn patch(database: &Database, machine: &str, wanted: &Value) -> Result<(), RowError> {
    let mut connection = database.open(true)?;
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(database.sql())?;
    // Once more, now that nobody else can write.
    let mut row = database.row(&transaction, machine)?;
    let state = row.get("state").unwrap_or(&Value::Null);
    if ![json!("created"), json!("stopped")].contains(state) {
        return Err(differs(machine, "state", state, "created or stopped"));
    }
    row.insert(LIST.to_owned(), wanted.clone());
    let bytes = serde_json::to_vec(&row).map_err(|error| RowError::Row {
        machine: machine.to_owned(),
        why: format!("cannot be written: {error}"),
    })?;
    let changed = transaction
        .execute(
            "UPDATE vms SET data = ?1 WHERE name = ?2",
            params![bytes, machine],
        )
        .map_err(database.sql())?;
    if changed != 1 {
        return Err(RowError::NoRow(machine.to_owned()));
    }
    transaction.commit().map_err(database.sql())
}
