//! The rows of the table, by the providers' names.

mod a_f;
mod g_o;
mod generic;
mod p_z;

use super::{TokenRule, check, rule};

/// All rows: those of a provider before those that say only how a credential is carried.
pub(super) fn all() -> Vec<TokenRule> {
    let generic = generic::ROWS.iter().map(|row| TokenRule {
        generic: true,
        ..*row
    });
    [a_f::ROWS, g_o::ROWS, p_z::ROWS]
        .concat()
        .into_iter()
        .chain(generic)
        .collect()
}
