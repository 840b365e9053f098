//! SQL of table `secrets` as the API needs it: MAC secrets come in encrypted and are never read back here (S13).

use jiff::Timestamp;
use trustfleet_model::ids::SecretId;

use super::tx::Id;
use super::{DbError, TenantTx};

impl TenantTx {
    /// Stores a secret, encrypted under the key `kek_id` for exactly this row.
    ///
    /// # Errors
    /// The database's own.
    pub async fn mac_secret_insert(
        &self,
        id: SecretId,
        kek_id: &str,
        ciphertext: &[u8],
        now: Timestamp,
    ) -> Result<(), DbError> {
        let sql = "/* mac_secret_insert */ INSERT INTO secrets (tenant_id, secret_id, kek_id, ciphertext, created_at) \
                   VALUES ($1, $2, $3, $4, $5)";
        DbError::one_row(self.execute(sql, &[&Id(id), &kek_id, &ciphertext, &now]).await?, "secret")
    }

    /// Deletes a secret that no trustpoint came to use.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn mac_secret_delete(&self, id: SecretId) -> Result<(), DbError> {
        let sql = "/* mac_secret_delete */ DELETE FROM secrets WHERE tenant_id = $1 AND secret_id = $2";
        DbError::one_row(self.execute(sql, &[&Id(id)]).await?, "secret")
    }
}
