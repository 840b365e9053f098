//! SQL that removes what is over: a small batch at a time, the oldest first, of active tenants alone. Rows that another
//! replica is about to remove are passed over.

use jiff::Timestamp;

use trustfleet_model::ids::{CertificateId, TenantId};
use trustfleet_pki::certificate::Certificate;

use super::tx::Id;
use super::{DbError, SystemTx};

/// What is removed when its time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// Transcripts of jobs; the job stays.
    Transcripts,
    /// Certificates that ended and are of no use on a trustpoint any more.
    Certificates,
    /// Jobs that ended; one that brought a certificate goes after that.
    Jobs,
    /// Join tokens that ended or were used up.
    JoinTokens,
    /// Applicants that were rejected.
    Applicants,
    /// Leases that ended and whose trustpoint is gone.
    Leases,
}

impl Chore {
    /// All, in the order in which they are done: a certificate goes before its job.
    pub const ALL: [Self; 6] =
        [Self::Transcripts, Self::Certificates, Self::Jobs, Self::JoinTokens, Self::Applicants, Self::Leases];

    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transcripts => "transcripts",
            Self::Certificates => "certificates",
            Self::Jobs => "jobs",
            Self::JoinTokens => "join_tokens",
            Self::Applicants => "applicants",
            Self::Leases => "leases",
        }
    }

    /// `$1` is now, `$2` the size of the batch, `$3` the most days that anything is kept.
    const fn sql(self) -> &'static str {
        match self {
            Self::Transcripts => {
                "/* housekeeping: transcripts */ WITH old AS (
                     SELECT o.tenant_id, o.job_id FROM tenants t CROSS JOIN LATERAL (
                         SELECT j.tenant_id, j.job_id FROM jobs j
                         WHERE j.tenant_id = t.tenant_id AND j.transcript IS NOT NULL
                               AND j.finished_at < $1::timestamptz - make_interval(days => LEAST(t.transcript_days, $3::int))
                         ORDER BY j.finished_at LIMIT $2 FOR UPDATE SKIP LOCKED
                     ) o LIMIT $2
                 )
                 UPDATE jobs j SET transcript = NULL FROM old
                 WHERE j.tenant_id = old.tenant_id AND j.job_id = old.job_id"
            }
            Self::Certificates => {
                "/* housekeeping: certificates */ WITH old AS (
                     SELECT o.tenant_id, o.certificate_id FROM tenants t CROSS JOIN LATERAL (
                         SELECT c.tenant_id, c.certificate_id FROM certificates c
                         WHERE c.tenant_id = t.tenant_id AND c.revocation_due_at IS NULL
                               AND c.not_after < $1::timestamptz - make_interval(days => LEAST(t.certificate_days, $3::int))
                               AND (c.slot = 'retired' OR NOT EXISTS (
                                   SELECT FROM trustpoints p WHERE p.tenant_id = c.tenant_id AND p.trustpoint_id = c.trustpoint_id))
                         ORDER BY c.not_after LIMIT $2 FOR UPDATE SKIP LOCKED
                     ) o WHERE t.state = 'active' LIMIT $2
                 )
                 DELETE FROM certificates c USING old
                 WHERE c.tenant_id = old.tenant_id AND c.certificate_id = old.certificate_id"
            }
            Self::Jobs => {
                "/* housekeeping: jobs */ WITH old AS (
                     SELECT o.tenant_id, o.job_id FROM tenants t CROSS JOIN LATERAL (
                         SELECT j.tenant_id, j.job_id FROM jobs j
                         WHERE j.tenant_id = t.tenant_id AND NOT j.stop_pending
                               AND j.finished_at < $1::timestamptz - make_interval(days => LEAST(t.job_days, $3::int))
                               AND NOT EXISTS (SELECT FROM certificates c
                                               WHERE c.tenant_id = j.tenant_id AND c.job_id = j.job_id)
                               AND NOT EXISTS (SELECT FROM outbox x WHERE x.tenant_id = j.tenant_id AND x.job_id = j.job_id)
                         ORDER BY j.finished_at LIMIT $2 FOR UPDATE SKIP LOCKED
                     ) o WHERE t.state = 'active' LIMIT $2
                 )
                 DELETE FROM jobs j USING old WHERE j.tenant_id = old.tenant_id AND j.job_id = old.job_id"
            }
            Self::JoinTokens => {
                "/* housekeeping: join tokens */ WITH old AS (
                     SELECT j.tenant_id, j.token_id FROM tenants t JOIN join_tokens j ON j.tenant_id = t.tenant_id
                     WHERE t.state = 'active'
                           AND (j.expires_at < $1::timestamptz - make_interval(days => LEAST(t.join_days, $3::int))
                                OR j.uses_left = 0
                                   AND j.created_at < $1::timestamptz - make_interval(days => LEAST(t.join_days, $3::int)))
                     LIMIT $2 FOR UPDATE OF j SKIP LOCKED
                 )
                 DELETE FROM join_tokens j USING old WHERE j.tenant_id = old.tenant_id AND j.token_id = old.token_id"
            }
            Self::Applicants => {
                "/* housekeeping: applicants */ WITH old AS (
                     SELECT a.tenant_id, a.applicant_id FROM tenants t JOIN agent_applicants a ON a.tenant_id = t.tenant_id
                     WHERE t.state = 'active' AND a.state = 'rejected'
                           AND a.last_seen_at < $1::timestamptz - make_interval(days => LEAST(t.join_days, $3::int))
                     LIMIT $2 FOR UPDATE OF a SKIP LOCKED
                 )
                 DELETE FROM agent_applicants a USING old
                 WHERE a.tenant_id = old.tenant_id AND a.applicant_id = old.applicant_id"
            }
            Self::Leases => {
                "/* housekeeping: leases */ WITH old AS (
                     SELECT o.tenant_id, o.trustpoint_id FROM tenants t CROSS JOIN LATERAL (
                         SELECT l.tenant_id, l.trustpoint_id FROM leases l
                         WHERE l.tenant_id = t.tenant_id AND l.due_at IS NULL
                               AND l.expires_at < $1::timestamptz - make_interval(days => LEAST(t.join_days, $3::int))
                               AND NOT EXISTS (SELECT FROM trustpoints p WHERE p.tenant_id = l.tenant_id
                                               AND p.trustpoint_id = l.trustpoint_id)
                         LIMIT $2 FOR UPDATE SKIP LOCKED
                     ) o WHERE t.state = 'active' LIMIT $2
                 )
                 DELETE FROM leases l USING old WHERE l.tenant_id = old.tenant_id AND l.trustpoint_id = old.trustpoint_id"
            }
        }
    }
}

impl SystemTx {
    /// Removes at most `most` of what is over at `now`, and nothing later than `days_max` days after its end; returns how
    /// many.
    ///
    /// # Errors
    /// The database's own.
    pub async fn housekeeping_remove(
        &self,
        chore: Chore,
        most: i64,
        days_max: u16,
        now: Timestamp,
    ) -> Result<u64, DbError> {
        self.execute(chore.sql(), &[&now, &most, &i32::from(days_max)]).await
    }

    /// Looks at the keys of at most `most` certificates that were issued before this was done at once; returns how many.
    ///
    /// # Errors
    /// The database's own.
    pub async fn key_types_fill(&self, most: i64) -> Result<u64, DbError> {
        let sql = "/* key_types_fill: read */ SELECT tenant_id, certificate_id, der FROM certificates WHERE key_type IS NULL \
                   ORDER BY certificate_id LIMIT $1 FOR UPDATE SKIP LOCKED";
        let rows = self.query(sql, &[&most]).await?;
        let (mut tenants, mut ids, mut types) = (Vec::new(), Vec::new(), Vec::new());
        for row in &rows {
            let (Id(tenant), Id(id)): (Id<TenantId>, Id<CertificateId>) = (row.try_get(0)?, row.try_get(1)?);
            tenants.push(tenant.as_uuid());
            ids.push(id.as_uuid());
            types.push(key_type(row.try_get(2)?));
        }
        let sql = "/* key_types_fill */ UPDATE certificates c SET key_type = k.key_type \
                   FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS k(tenant_id, certificate_id, key_type) \
                   WHERE c.tenant_id = k.tenant_id AND c.certificate_id = k.certificate_id";
        self.execute(sql, &[&tenants, &ids, &types]).await
    }
}

/// Kind and size of a certificate's key, in one word; of one that cannot be read, `unknown`.
pub(crate) fn key_type(der: &[u8]) -> String {
    Certificate::from_der(der).map_or_else(|_| "unknown".to_owned(), |found| found.public_key().algorithm().word())
}
