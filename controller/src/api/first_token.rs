//! The first platform token, so that a new installation has somebody who may enter.
//!
//! It is written to a file that only its owner can read, and never anywhere else. Once any platform token is in force
//! nothing happens any more. A file that a start left behind before its token was stored is taken over.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use trustfleet_model::ids::TokenId;
use trustfleet_model::secret::SecretText;
use zeroize::Zeroizing;

use super::access::Role;
use super::auth::{new_token, token_hash};
use crate::app::Services;
use crate::db::ApiTokenInsert;
use crate::entropy;
use crate::error::AppError;

/// Longest token file that is read, bytes.
const FILE_MAX: u64 = 1024;

/// Makes the first platform token in the file that the configuration names, when there is none in force.
///
/// # Errors
/// The file cannot be written or holds something else; the database's own.
pub async fn ensure_first_token(services: &Services) -> Result<(), AppError> {
    let Some(path) = &services.config.first_token_file else { return Ok(()) };
    let now = services.clock.now();
    let fresh = new_token(&Zeroizing::new(entropy::random()?));
    let id = services.fresh(TokenId::fresh)?;
    let made = services
        .store
        .system_tx("first_token", async |tx| {
            if tx.platform_token_exists(now, None).await? {
                return Ok(false);
            }
            // Stored on disk before it is in force: a token that nobody can read would lock everybody out.
            let token = write_or_take_over(path, &fresh)?;
            let hash = token_hash(token.expose()).ok_or_else(|| foreign(path))?;
            let insert = ApiTokenInsert {
                id,
                tenant_id: None,
                hash: &hash,
                role: Role::PlatformAdmin.as_str(),
                scopes: &[],
                description: "first token",
                created_by: "controller",
                person: &format!("token:{id}"),
                created_at: now,
                expires_at: None,
            };
            tx.api_token_insert(&insert).await?;
            Ok::<_, AppError>(true)
        })
        .await?;
    if made {
        tracing::info!(token.id = %id, file = %path.display(), "first platform token made");
    }
    Ok(())
}

fn write_or_take_over(path: &Path, token: &SecretText) -> Result<SecretText, AppError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let failed = |error: std::io::Error| {
        let what = format!("the first token cannot be written to {}", path.display());
        AppError::Internal { source: Box::new(std::io::Error::new(error.kind(), format!("{what}: {error}"))) }
    };
    match opened {
        Ok(mut file) => {
            let line = Zeroizing::new(format!("{}\n", token.expose()));
            file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            Ok(token.clone())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if fs::metadata(path).map_err(failed)?.len() > FILE_MAX {
                return Err(foreign(path));
            }
            let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
            Ok(SecretText::new(text.trim().to_owned()))
        }
        Err(error) => Err(failed(error)),
    }
}

fn foreign(path: &Path) -> AppError {
    AppError::internal(format!(
        "{} holds something other than a token: move it away, or name another file as first_token_file",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_first_token_is_readable_by_its_owner_alone_and_taken_over_by_a_second_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("platform.token");
        let first = write_or_take_over(&path, &new_token(&[1; 32])).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = write_or_take_over(&path, &new_token(&[2; 32])).unwrap();
        assert_eq!(first.expose(), second.expose());
    }
}
