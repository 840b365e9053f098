//! SQL of the key-encryption keys: which there are, what is encrypted under each, and moving secrets from one to another.

use jiff::Timestamp;
use trustfleet_model::ids::{SecretId, TenantId};

use super::tx::Id;
use super::{DbError, SystemTx};

/// How much is encrypted under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekUse {
    /// The key.
    pub kek_id: String,
    /// Secrets under it.
    pub secrets: i64,
    /// When the newest of them was stored.
    pub newest: Option<Timestamp>,
}

/// A secret as it is stored.
#[derive(Clone, Debug)]
pub struct StoredSecret {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its id.
    pub id: SecretId,
    /// The key.
    pub kek_id: String,
    /// Nonce, ciphertext, tag.
    pub ciphertext: Vec<u8>,
}

impl SystemTx {
    /// Notes that a controller starts with these keys.
    ///
    /// # Errors
    /// The database's own.
    pub async fn kek_register(&self, ids: &[&str], now: Timestamp) -> Result<(), DbError> {
        let sql = "/* kek_register */ INSERT INTO key_encryption_keys (kek_id, registered_at) \
                   SELECT kek_id, $2 FROM unnest($1::text[]) AS k(kek_id) ON CONFLICT (kek_id) DO NOTHING";
        self.execute(sql, &[&ids, &now]).await.map(drop)
    }

    /// What is encrypted under each key, of those that are registered or used.
    ///
    /// # Errors
    /// The database's own.
    pub async fn kek_uses(&self) -> Result<Vec<KekUse>, DbError> {
        let sql = "/* kek_uses */ SELECT coalesce(k.kek_id, s.kek_id) AS kek_id, coalesce(s.secrets, 0) AS secrets, s.newest \
                   FROM key_encryption_keys k FULL JOIN (SELECT kek_id, count(*) AS secrets, max(created_at) AS newest \
                   FROM secrets GROUP BY kek_id) s ON s.kek_id = k.kek_id ORDER BY 1";
        self.query(sql, &[])
            .await?
            .iter()
            .map(|row| {
                Ok(KekUse {
                    kek_id: row.try_get("kek_id")?,
                    secrets: row.try_get("secrets")?,
                    newest: row.try_get("newest")?,
                })
            })
            .collect()
    }

    /// Keys other than these that secrets are encrypted under.
    ///
    /// # Errors
    /// The database's own.
    pub async fn kek_missing(&self, known: &[&str]) -> Result<Vec<String>, DbError> {
        let sql = "/* kek_missing */ SELECT DISTINCT kek_id FROM secrets WHERE NOT (kek_id = ANY($1)) ORDER BY kek_id LIMIT 10";
        self.query(sql, &[&known]).await?.iter().map(|row| Ok(row.try_get("kek_id")?)).collect()
    }

    /// At most `limit` secrets that are not under the key `to`, locked until the transaction ends; those that somebody else
    /// holds are left out.
    ///
    /// # Errors
    /// The database's own.
    pub async fn secrets_not_under(&self, to: &str, limit: i64) -> Result<Vec<StoredSecret>, DbError> {
        let sql = "/* secrets_not_under */ SELECT tenant_id, secret_id, kek_id, ciphertext FROM secrets WHERE kek_id <> $1 \
                   ORDER BY kek_id, tenant_id, secret_id LIMIT $2 FOR UPDATE SKIP LOCKED";
        self.query(sql, &[&to, &limit])
            .await?
            .iter()
            .map(|row| {
                let (Id(tenant), Id(id)) = (row.try_get("tenant_id")?, row.try_get("secret_id")?);
                Ok(StoredSecret { tenant, id, kek_id: row.try_get("kek_id")?, ciphertext: row.try_get("ciphertext")? })
            })
            .collect()
    }

    /// Stores a secret under another key; `former`: the one that it is under.
    ///
    /// # Errors
    /// [`DbError::NotFound`] when it is gone, or under another key by now.
    pub async fn secret_move(&self, secret: &StoredSecret, former: &str) -> Result<(), DbError> {
        let sql = "/* secret_move */ UPDATE secrets SET kek_id = $3, ciphertext = $4 \
                   WHERE tenant_id = $1 AND secret_id = $2 AND kek_id = $5";
        let StoredSecret { tenant, id, kek_id, ciphertext } = secret;
        DbError::one_row(self.execute(sql, &[&Id(*tenant), &Id(*id), kek_id, ciphertext, &former]).await?, "secret")
    }

    /// Forgets a key: from then on nothing can be stored under it.
    ///
    /// # Errors
    /// [`DbError::NotFound`], or [`DbError::Conflict`] while a secret is under it.
    pub async fn kek_forget(&self, id: &str) -> Result<(), DbError> {
        let sql = "/* kek_forget */ DELETE FROM key_encryption_keys WHERE kek_id = $1";
        DbError::one_row(self.execute(sql, &[&id]).await?, "key-encryption key")
    }
}
