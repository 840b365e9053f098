//! SQL of a trustpoint's history: its certificates, each with the job that brought it and the one that took its place.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::certificate::Slot;
use trustfleet_model::ids::{CertificateId, JobId, TrustpointId};

use super::column::Columns;
use super::tx::Id;
use super::{DbError, TenantTx};
use crate::device::JobKind;

/// How a request came about, as its job tells.
#[derive(Clone, Debug)]
pub struct AskedBy {
    /// What was asked.
    pub kind: JobKind,
    /// Who asked, in the words of the audit log.
    pub requested_by: String,
    /// Nobody has asked for it by hand.
    pub automatic: bool,
}

/// One certificate of a trustpoint's history.
#[derive(Clone, Debug)]
pub struct PastCertificate {
    /// Its id.
    pub id: CertificateId,
    /// Its serial number, upper-case hex.
    pub serial: String,
    /// Its end.
    pub not_after: Timestamp,
    /// Where it stands.
    pub slot: Slot,
    /// The job that brought it.
    pub job_id: JobId,
    /// How that came about.
    pub asked: AskedBy,
    /// The binding that its trustpoint came by, and has still.
    pub binding: Option<String>,
    /// Revision of the policy that it was asked for by.
    pub policy_revision: Option<u32>,
    /// When the controller learned of it.
    pub issued_at: Timestamp,
    /// When the controller learned that it is in use.
    pub activated_at: Option<Timestamp>,
    /// The certificate that took its place: id, serial number, when, and how that one came about.
    pub replaced: Option<(CertificateId, String, Timestamp, AskedBy)>,
}

impl TenantTx {
    /// At most `limit` certificates of a trustpoint, newest first, beginning before `before`.
    ///
    /// # Errors
    /// The database's own; rows that cannot be read.
    pub async fn trustpoint_history(
        &self,
        trustpoint: TrustpointId,
        before: Option<CertificateId>,
        limit: i64,
    ) -> Result<Vec<PastCertificate>, DbError> {
        let sql =
            "/* trustpoint_history */ SELECT c.certificate_id, c.serial, c.not_after, c.slot, c.job_id, c.issued_at,
                          c.activated_at, c.replaced_by, c.replaced_at, j.kind, j.requested_by,
                          coalesce((j.task ->> 'automatic')::boolean, false) AS automatic,
                          (j.task ->> 'policy_revision')::int AS policy_revision, b.name AS binding,
                          r.serial AS next_serial, n.kind AS next_kind, n.requested_by AS next_requested_by,
                          coalesce((n.task ->> 'automatic')::boolean, false) AS next_automatic
                   FROM certificates c
                   JOIN jobs j ON j.tenant_id = c.tenant_id AND j.job_id = c.job_id
                   LEFT JOIN trustpoints t ON t.tenant_id = c.tenant_id AND t.trustpoint_id = c.trustpoint_id
                   LEFT JOIN bindings b ON b.tenant_id = t.tenant_id AND b.binding_id = t.binding_id
                   LEFT JOIN certificates r ON r.tenant_id = c.tenant_id AND r.certificate_id = c.replaced_by
                   LEFT JOIN jobs n ON n.tenant_id = r.tenant_id AND n.job_id = r.job_id
                   WHERE c.tenant_id = $1 AND c.trustpoint_id = $2 AND ($3::uuid IS NULL OR c.certificate_id < $3)
                   ORDER BY c.certificate_id DESC LIMIT $4";
        self.query(sql, &[&Id(trustpoint), &before.map(Id), &limit]).await?.iter().map(read).collect()
    }
}

fn read(row: &Row) -> Result<PastCertificate, DbError> {
    let columns = Columns::new(row, "certificates", "certificate_id");
    let slot: &str = columns.read("slot")?;
    let known = Slot::ALL.into_iter().find(|known| known.as_str() == slot);
    let kind = |column, word: &str| {
        JobKind::from_word(word).ok_or_else(|| columns.wrong(column, format!("the word {word:?} is unknown")))
    };
    let (next, at): (Option<Id<CertificateId>>, Option<Timestamp>) =
        (columns.read("replaced_by")?, columns.read("replaced_at")?);
    let (serial, word): (Option<String>, Option<&str>) = (columns.read("next_serial")?, columns.read("next_kind")?);
    let replaced = match (next, at, serial, word) {
        (Some(Id(id)), Some(at), Some(serial), Some(word)) => {
            let asked = AskedBy {
                kind: kind("next_kind", word)?,
                requested_by: columns.read("next_requested_by")?,
                automatic: columns.read("next_automatic")?,
            };
            Some((id, serial, at, asked))
        }
        _ => None,
    };
    Ok(PastCertificate {
        id: columns.read::<Id<CertificateId>>("certificate_id")?.0,
        serial: columns.read("serial")?,
        not_after: columns.read("not_after")?,
        slot: known.ok_or_else(|| columns.wrong("slot", format!("the word {slot:?} is unknown")))?,
        job_id: columns.read::<Id<JobId>>("job_id")?.0,
        asked: AskedBy {
            kind: kind("kind", columns.read("kind")?)?,
            requested_by: columns.read("requested_by")?,
            automatic: columns.read("automatic")?,
        },
        binding: columns.read("binding")?,
        policy_revision: columns.parse_opt::<i32, u32>("policy_revision")?,
        issued_at: columns.read("issued_at")?,
        activated_at: columns.read("activated_at")?,
        replaced,
    })
}
