//! Whose an exported file is. Behind one agent can be many devices, and a path that forgets to name the device would give
//! them one file, and one key, in turn.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::export::Written;
use crate::order::Place;
use crate::slots::Slots;
use crate::store::{self, Store, StoreError};

/// The trustpoint that has a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    device: String,
    trustpoint: String,
    path: PathBuf,
}

/// Takes the files of a set for a trustpoint. One that another trustpoint has written, and has not given up, is refused.
///
/// # Errors
/// A sentence: whose it is, or that of the disk.
pub(super) fn take(store: &Store, place: &Place, paths: &[&Path]) -> Result<(), String> {
    for path in paths {
        let file = store.claim_file(path);
        let text = |error: StoreError| error.to_string();
        let wanted = Claim {
            device: place.device.to_string(),
            trustpoint: place.trustpoint.to_string(),
            path: path.to_path_buf(),
        };
        let found: Option<Claim> = store::load_json(&file).map_err(text)?;
        if found.as_ref() == Some(&wanted) {
            continue;
        }
        if let Some(holder) = found.filter(|holder| still_has(store, holder)) {
            return Err(format!(
                "{} belongs to the trustpoint {} of device {}: put {{device}} and {{trustpoint}} into its path",
                path.display(),
                holder.trustpoint,
                holder.device
            ));
        }
        store::save_json(&file, &wanted).map_err(text)?;
    }
    Ok(())
}

/// A claim counts while the holder's own list has the file: that one goes when an activation is taken back.
fn still_has(store: &Store, holder: &Claim) -> bool {
    let (Ok(device), Ok(trustpoint)) = (holder.device.parse(), holder.trustpoint.parse()) else { return false };
    let slots = Slots::new(store.trustpoint(&device, &trustpoint));
    let written: Option<Vec<Written>> = store::load_json(&slots.exports_file()).ok().flatten();
    written.is_some_and(|written| written.iter().any(|file| file.path == holder.path))
}
