//! A transaction kept in a file (`--state`), so that an interrupted command can go on with it.
//!
//! The file holds the last message and so a MAC, from which a weak secret could be found: it has mode 0600.

use std::path::Path;

use serde::{Deserialize, Serialize};
use trustfleet_cmp::TransactionRecord;
use url::Url;

use super::exit::Exit;
use super::fault::Fault;
use super::files;
use crate::store;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    /// The transaction stays at one URL (T7).
    url: String,
    transaction: TransactionRecord,
}

const VERSION: u32 = 1;

/// Keeps a transaction.
///
/// # Errors
/// The disk's.
pub(super) fn save(path: &Path, url: &str, transaction: TransactionRecord) -> Result<(), Fault> {
    let kept = Kept { version: VERSION, url: url.to_owned(), transaction };
    let json = serde_json::to_vec(&kept);
    let json = json.map_err(|error| Fault::new(Exit::Local, "state_not_saved", error.to_string()))?;
    files::write(path, &json, 0o600)
}

/// The transaction kept in the file, if it is there; it must be at the same server.
///
/// # Errors
/// Not a kept transaction, one that others can read, or one of another server.
pub(super) fn load(path: &Path, url: &Url) -> Result<Option<TransactionRecord>, Fault> {
    if !path.exists() {
        files::check_target("--state", path)?;
        return Ok(None);
    }
    let wrong = |why: String| Fault::usage(format!("--state {}: {why}", path.display()));
    store::check_private(path, 0o600).map_err(|error| wrong(error.to_string()))?;
    let bytes = files::read("--state", path)?;
    let kept: Kept = serde_json::from_slice(&bytes)
        .map_err(|error| wrong(format!("holds no transaction ({error}): name another file")))?;
    if kept.version != VERSION {
        return Err(wrong(format!("its form {} is not known here", kept.version)));
    }
    if kept.url != url.as_str() {
        return Err(wrong(format!("its transaction is at {}, which a transaction cannot leave", kept.url)));
    }
    Ok(Some(kept.transaction))
}

/// The transaction is over.
///
/// # Errors
/// The disk's.
pub(super) fn remove(path: &Path) -> Result<(), Fault> {
    store::remove(&files::placed(path)).map_err(|error| Fault::of_store(&error))
}
