//! Moving secrets from one key-encryption key to the next while controllers run: `trustfleet keys status, rotate, remove`.
//!
//! The order: every controller is started with the new key among its further ones; then with the new one first and the old
//! one further; then secrets are moved; then the old key goes. At each step every controller can read every secret.

use std::{path::Path, sync::Arc};

use jiff::Timestamp;
use tokio::runtime::Handle;
use trustfleet_model::clock::{Clock as _, SystemClock};

use crate::{
    app::{self, StartError},
    audit::{PLATFORM, Requester, Sealer},
    config::Config,
    db::{DbError, KekUse, Note, Store, StoredSecret},
    keys::Keys,
    metrics::Metrics,
    secrets::{AtRestError, KeyRing},
};

/// Secrets moved in one transaction.
const BATCH: i64 = 500;

/// Why a key could not be rotated or removed.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Configuration, keys or database.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The database's own.
    #[error("the database did not do it")]
    Database(#[from] DbError),
    /// A secret cannot be read or written.
    #[error("secret {secret} of tenant {tenant} cannot be moved")]
    Secret {
        /// Its tenant.
        tenant: String,
        /// Its id.
        secret: String,
        /// Why.
        #[source]
        source: AtRestError,
    },
    /// The key encrypts what is new.
    #[error(
        "{0} is the key that this configuration encrypts with (keys.key_encryption_key_file): name another one there first"
    )]
    First(String),
    /// Secrets are under the key.
    #[error(
        "{id} is in use by {secrets} secret(s): nothing was removed; `trustfleet keys rotate` moves them to the first key"
    )]
    InUse {
        /// The key.
        id: String,
        /// How many.
        secrets: i64,
    },
    /// Nobody knows the key.
    #[error(
        "no controller has started with the key {0}, and nothing is encrypted under it; see `trustfleet keys status`"
    )]
    Unknown(String),
}

/// Registers the ring's keys, and refuses to go on when secrets are under keys that it has not.
///
/// # Errors
/// [`StartError::MissingKey`]; the database's own.
pub async fn check(store: &Store, ring: &KeyRing, now: Timestamp) -> Result<(), StartError> {
    let ids: Vec<String> = ring.ids().into_iter().map(str::to_owned).collect();
    let missing: Result<Vec<String>, DbError> = store
        .system_tx("kek_check", async move |tx| {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            tx.kek_register(&ids, now).await?;
            tx.kek_missing(&ids).await
        })
        .await;
    match missing?.as_slice() {
        [] => Ok(()),
        missing => Err(StartError::MissingKey(missing.join(", "))),
    }
}

/// A configuration's keys and its database, without a controller.
#[derive(Debug)]
pub struct Rotation {
    /// The database.
    pub store: Store,
    /// The keys.
    pub keys: Arc<Keys>,
}

impl Rotation {
    /// Reads the configuration and the keys.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open(config: &Path, backend: &Handle) -> Result<Self, StartError> {
        let config = Config::load(config)?;
        let keys = Arc::new(Keys::load(&config.keys)?);
        let process = |error: Box<dyn std::error::Error + Send + Sync>| StartError::Process(error);
        let metrics = Arc::new(Metrics::new(0).map_err(|error| process(error.into()))?);
        let sealer = Sealer::new(&keys.signing).map_err(|error| process(error.into()))?;
        let tls = if config.database.encrypts_any() { Some(Arc::new(app::database_roots(&config)?)) } else { None };
        Ok(Self { store: Store::new(&config.database, tls, backend, metrics, sealer)?, keys })
    }

    /// Every key that is known or used, with whether this configuration has it.
    ///
    /// # Errors
    /// The database's own.
    pub async fn status(&self) -> Result<Vec<(KekUse, &'static str)>, RotationError> {
        let uses: Result<Vec<KekUse>, DbError> =
            self.store.system_tx("kek_status", async |tx| tx.kek_uses().await).await;
        let mut uses = uses?;
        let ids = self.keys.at_rest.ids();
        for id in &ids {
            if !uses.iter().any(|known| known.kek_id == *id) {
                uses.push(KekUse { kek_id: (*id).to_owned(), secrets: 0, newest: None });
            }
        }
        let role = |kek_use: &KekUse| match ids.iter().position(|id| *id == kek_use.kek_id) {
            Some(0) => "encrypts",
            Some(_) => "decrypts",
            None => "missing here",
        };
        Ok(uses.into_iter().map(|kek_use| (role(&kek_use), kek_use)).map(|(role, kek_use)| (kek_use, role)).collect())
    }

    /// Moves all secrets to the first key, some hundred in a transaction. When it is interrupted, what was moved stays moved;
    /// several may run. Returns how many it moved.
    ///
    /// # Errors
    /// A secret that cannot be read, whose transaction is undone; the database's own.
    pub async fn rotate(&self) -> Result<u64, RotationError> {
        check(&self.store, &self.keys.at_rest, SystemClock.now()).await?;
        let mut moved = 0;
        loop {
            let keys = Arc::clone(&self.keys);
            let batch: Result<u64, RotationError> =
                self.store.system_tx("kek_rotate", async move |tx| move_batch(tx, &keys.at_rest).await).await;
            match batch? {
                0 => return Ok(moved),
                count => moved += count,
            }
        }
    }

    /// Forgets a key that nothing is encrypted under; from then on nothing can be. Its file is the operator's to delete.
    ///
    /// # Errors
    /// [`RotationError::First`], [`RotationError::InUse`], [`RotationError::Unknown`].
    pub async fn remove(&self, id: &str) -> Result<(), RotationError> {
        if id == self.keys.at_rest.id() {
            return Err(RotationError::First(id.to_owned()));
        }
        let (id, now) = (id.to_owned(), SystemClock.now());
        self.store
            .system_tx("kek_remove", async move |tx| {
                let uses = tx.kek_uses().await?;
                let secrets = uses.iter().find(|known| known.kek_id == id).map_or(0, |known| known.secrets);
                if secrets > 0 {
                    return Err(RotationError::InUse { id: id.clone(), secrets });
                }
                match tx.kek_forget(&id).await {
                    Ok(()) => {}
                    Err(DbError::NotFound { .. }) => return Err(RotationError::Unknown(id.clone())),
                    // Stored by a controller at this very moment.
                    Err(DbError::Conflict { .. }) => return Err(RotationError::InUse { id: id.clone(), secrets: 1 }),
                    Err(error) => return Err(error.into()),
                }
                let detail = serde_json::json!({ "kek_id": id });
                let requester = Requester::controller();
                let note = Note::new(now, &requester, "key_removed", "keys", PLATFORM.as_uuid(), detail);
                Ok(tx.audit_note(PLATFORM, &note).await?)
            })
            .await
    }
}

async fn move_batch(tx: &crate::db::SystemTx, ring: &KeyRing) -> Result<u64, RotationError> {
    let secrets = tx.secrets_not_under(ring.id(), BATCH).await?;
    let mut moved = 0;
    for secret in &secrets {
        let failed =
            |source| RotationError::Secret { tenant: secret.tenant.to_string(), secret: secret.id.to_string(), source };
        let plain = ring.open(secret.tenant, secret.id, &secret.kek_id, &secret.ciphertext).map_err(failed)?;
        let ciphertext = ring.seal(secret.tenant, secret.id, plain.expose()).map_err(failed)?;
        let anew = StoredSecret { kek_id: ring.id().to_owned(), ciphertext, ..secret.clone() };
        tx.secret_move(&anew, &secret.kek_id).await?;
        moved += 1;
    }
    if moved > 0 {
        let mut from: Vec<&str> = secrets.iter().map(|secret| secret.kek_id.as_str()).collect();
        from.dedup();
        let detail = serde_json::json!({ "to": ring.id(), "from": from, "secrets": moved });
        let requester = Requester::controller();
        let note = Note::new(SystemClock.now(), &requester, "secrets_moved", "keys", PLATFORM.as_uuid(), detail);
        tx.audit_note(PLATFORM, &note).await?;
    }
    Ok(moved)
}
