//! `force_allowlist`: a machine has exactly this list, or it is not started.
//!
//! Equal is not written again. What differs is written under `BEGIN IMMEDIATE`, the list and the keys that were lost with
//! it alone, as the BLOB that smolvm reads, and read back through a connection of its own. Any doubt is an error, which leaves the machine where
//! it is: not started.

use rusqlite::{TransactionBehavior, params};
use serde_json::{Map, Value, json};

use super::demand::{check_cidr, differs};
use super::row::{Database, RowError};

const LIST: &str = "allowed_cidrs";

/// What had to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    WasEqual,
    Patched,
}

/// Sees to it that the machine's list is `cidrs`, in this order and nothing else, and that each key of `beside` has its
/// value: what `create` of some versions loses with the list, or cannot be told. All of it in one transaction, so that
/// there is never a network without its list.
pub fn force_allowlist(
    database: &Database,
    machine: &str,
    cidrs: &[String],
    beside: &[(&'static str, Value)],
) -> Result<Done, RowError> {
    let list = json!(cidrs);
    let refuse = |why: String| RowError::Differs {
        machine: machine.to_owned(),
        key: LIST.into(),
        found: list.to_string(),
        wanted: why,
    };
    // An empty list is no policy at all for smolvm.
    if cidrs.is_empty() {
        return Err(refuse("one address: an empty list opens everything".into()));
    }
    for cidr in cidrs {
        check_cidr(cidr).map_err(&refuse)?;
    }
    let mut wanted = vec![(LIST, list)];
    wanted.extend(beside.iter().cloned());
    let row = database.read(machine)?;
    if check(machine, &row, &wanted).is_ok() {
        return Ok(Done::WasEqual);
    }
    patch(database, machine, &wanted)?;
    // Through a new connection: what another program sees, not what this one believes.
    check(machine, &database.read(machine)?, &wanted)?;
    Ok(Done::Patched)
}

fn check(
    machine: &str,
    row: &Map<String, Value>,
    wanted: &[(&'static str, Value)],
) -> Result<(), RowError> {
    for (key, value) in wanted {
        let found = row.get(*key).unwrap_or(&Value::Null);
        if found != value {
            return Err(differs(machine, key, found, &value.to_string()));
        }
    }
    Ok(())
}

fn patch(
    database: &Database,
    machine: &str,
    wanted: &[(&'static str, Value)],
) -> Result<(), RowError> {
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
    for (key, value) in wanted {
        row.insert((*key).to_owned(), value.clone());
    }
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
