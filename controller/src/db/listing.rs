//! SQL of lists that operators look at: trustpoints, jobs and certificates of one tenant, with the names of what they
//! refer to. Nothing is written here.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::certificate::{CertificateFacts, Slot};
use trustfleet_model::dry_run::DryRun;
use trustfleet_model::field::{ObjectName, TrustpointName};
use trustfleet_model::ids::{CertificateId, DeviceId, JobId};
use trustfleet_model::job::{Failure, JobState};
use trustfleet_model::renewal::AutoUpdate;
use trustfleet_model::service::InService;
use trustfleet_model::trustpoint::Trustpoint;

use super::column::Columns;
use super::lease::{LEASE, ShownLease, shown};
use super::tx::Id;
use super::{DbError, TenantTx};
use crate::device::JobKind;

/// A trustpoint with the names of what it refers to.
#[derive(Clone, Debug)]
pub struct ListedTrustpoint {
    /// The trustpoint.
    pub trustpoint: Trustpoint,
    /// Name of its device.
    pub device: ObjectName,
    /// Name of its entity.
    pub entity: ObjectName,
    /// Name of its CA server.
    pub ca_server: ObjectName,
    /// Name of its policy.
    pub policy: ObjectName,
    /// When something is to be done without being asked.
    pub next_action_at: Option<Timestamp>,
    /// What its policy says of renewal.
    pub auto_update: AutoUpdate,
    /// Its lease.
    pub lease: Option<ShownLease>,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A job with the names of what it refers to.
#[derive(Clone, Debug)]
pub struct ListedJob {
    /// Its id.
    pub id: JobId,
    /// Its device.
    pub device_id: DeviceId,
    /// Name of its device.
    pub device: ObjectName,
    /// Name of its trustpoint, unless that is gone.
    pub trustpoint: Option<TrustpointName>,
    /// Name of the agent it is for; of one that is deleted its id.
    pub agent: ObjectName,
    /// What it asks.
    pub kind: JobKind,
    /// Where it stands.
    pub state: JobState,
    /// Who asked for it.
    pub requested_by: String,
    /// Its agent began it by itself.
    pub autonomous: bool,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Public-key fingerprint.
    pub public_key_sha256: Option<String>,
    /// transactionID of the CMP exchange, hex.
    pub transaction_id: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When an operator wanted it to end.
    pub stop_requested_at: Option<Timestamp>,
    /// End of the freeze window that holds it.
    pub held_until: Option<Timestamp>,
    /// When it was last published.
    pub published_at: Option<Timestamp>,
    /// When the agent started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What the agent said of the services.
    pub in_service: Option<InService>,
    /// What a dry run found.
    pub dry_run: Option<DryRun>,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A certificate with the names of what it refers to.
#[derive(Clone, Debug)]
pub struct ListedCertificate {
    /// What can be read in it.
    pub facts: CertificateFacts,
    /// Name of its device.
    pub device: ObjectName,
    /// Name of its trustpoint, unless that is gone.
    pub trustpoint: Option<TrustpointName>,
    /// The job that brought it.
    pub job_id: JobId,
    /// Where it stands.
    pub slot: Slot,
    /// Kind and size of its key, as policies spell them; none: not looked at yet.
    pub key_type: Option<String>,
    /// When the controller learned of it.
    pub issued_at: Timestamp,
}

/// A certificate with its bytes.
#[derive(Clone, Debug)]
pub struct CertificateWithBytes {
    /// As in lists.
    pub listed: ListedCertificate,
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// CA certificates that came with it, DER.
    pub chain: Vec<Vec<u8>>,
}

/// Which jobs are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct JobFilter<'a> {
    /// Only of the device of this name.
    pub device: Option<&'a str>,
    /// Only of trustpoints of this name.
    pub trustpoint: Option<&'a str>,
    /// Only in this state.
    pub state: Option<&'a str>,
    /// Before this one: lists begin with the newest.
    pub before: Option<JobId>,
}

pub(super) const TRUSTPOINT: &str = "t.trustpoint_id, t.state, t.next_action_at, t.updated_at, d.name AS device, e.name AS entity, \
    c.name AS ca_server, p.name AS policy, p.spec -> 'auto_update' AS policy_auto_update";

pub(super) const TRUSTPOINT_FROM: &str = "FROM trustpoints t \
    JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id \
    JOIN entities e ON e.tenant_id = t.tenant_id AND e.entity_id = t.entity_id \
    JOIN ca_servers c ON c.tenant_id = t.tenant_id AND c.ca_server_id = t.ca_server_id \
    JOIN policies p ON p.tenant_id = t.tenant_id AND p.policy_id = t.policy_id";

const JOB: &str = "j.job_id, j.kind, j.state, j.requested_by, j.failure, j.public_key_sha256, j.transaction_id, \
    j.created_at, j.lease_id IS NOT NULL AS autonomous, j.stop_requested_at, j.device_id, j.published_at, j.started_at, j.finished_at, j.in_service, j.dry_run, j.updated_at, d.name AS device, \
    (SELECT o.held_until FROM outbox o WHERE o.tenant_id = j.tenant_id AND o.job_id = j.job_id \
        AND o.held_until > clock_timestamp()) AS held_until, \
    t.name AS trustpoint, coalesce(a.name, j.agent_id::text) AS agent FROM jobs j \
    JOIN devices d ON d.tenant_id = j.tenant_id AND d.device_id = j.device_id \
    LEFT JOIN agents a ON a.tenant_id = j.tenant_id AND a.agent_id = j.agent_id \
    LEFT JOIN trustpoints t ON t.tenant_id = j.tenant_id AND t.trustpoint_id = j.trustpoint_id";

pub(super) const CERTIFICATE: &str = "c.certificate_id, c.job_id, c.slot, c.serial, c.subject, c.issuer, c.not_before, \
    c.not_after, c.sha256, c.public_key_sha256, c.file, c.issued_at, c.revocation, c.key_type, d.name AS device, t.name AS trustpoint";

pub(super) const CERTIFICATE_FROM: &str = "FROM certificates c \
    JOIN devices d ON d.tenant_id = c.tenant_id AND d.device_id = c.device_id \
    LEFT JOIN trustpoints t ON t.tenant_id = c.tenant_id AND t.trustpoint_id = c.trustpoint_id";

impl TenantTx {
    /// The trustpoint of this name on a device.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn listed_trustpoint_fetch(
        &self,
        device: DeviceId,
        name: &TrustpointName,
    ) -> Result<ListedTrustpoint, DbError> {
        let (lease, lease_from) = LEASE;
        let sql = format!(
            "/* listed_trustpoint_fetch */ SELECT {TRUSTPOINT}, {lease} {TRUSTPOINT_FROM} {lease_from} \
             WHERE t.tenant_id = $1 AND t.device_id = $2 AND t.name = $3"
        );
        let row = self.query_opt(&sql, &[&Id(device), &name.as_str()]).await?;
        read_trustpoint(&row.ok_or(DbError::NotFound { kind: "trustpoint" })?)
    }

    /// The trustpoint of this name on the device of this name, with the device's id, in one statement; none: one of them is not
    /// there.
    ///
    /// # Errors
    /// The database's own.
    pub async fn listed_trustpoint_by_names(
        &self,
        device: &ObjectName,
        name: &TrustpointName,
    ) -> Result<Option<(DeviceId, ListedTrustpoint)>, DbError> {
        let (lease, lease_from) = LEASE;
        let sql = format!(
            "/* listed_trustpoint_by_names */ SELECT d.device_id, {TRUSTPOINT}, {lease} {TRUSTPOINT_FROM} {lease_from} \
             WHERE t.tenant_id = $1 AND d.name = $2 AND t.name = $3"
        );
        let Some(row) = self.query_opt(&sql, &[&device.as_str(), &name.as_str()]).await? else { return Ok(None) };
        let Id(device) = row.try_get("device_id")?;
        Ok(Some((device, read_trustpoint(&row)?)))
    }

    /// The job of this id.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn listed_job_fetch(&self, id: JobId) -> Result<ListedJob, DbError> {
        let sql = format!("/* listed_job_fetch */ SELECT {JOB} WHERE j.tenant_id = $1 AND j.job_id = $2");
        let row = self.query_opt(&sql, &[&Id(id)]).await?;
        read_job(&row.ok_or(DbError::NotFound { kind: "job" })?)
    }

    /// At most `limit` jobs, newest first.
    ///
    /// # Errors
    /// The database's own.
    pub async fn listed_job_list(&self, filter: JobFilter<'_>, limit: i64) -> Result<Vec<ListedJob>, DbError> {
        let sql = format!(
            "/* listed_job_list */ SELECT {JOB} WHERE j.tenant_id = $1 \
             AND ($2::text IS NULL OR d.name = $2) AND ($3::text IS NULL OR t.name = $3) \
             AND ($4::text IS NULL OR j.state = $4) AND ($5::uuid IS NULL OR j.job_id < $5) \
             ORDER BY j.job_id DESC LIMIT $6"
        );
        let before = filter.before.map(Id);
        let rows = self.query(&sql, &[&filter.device, &filter.trustpoint, &filter.state, &before, &limit]).await?;
        rows.iter().map(read_job).collect()
    }

    /// The certificate of this id, with its bytes.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn listed_certificate_fetch(&self, id: CertificateId) -> Result<CertificateWithBytes, DbError> {
        let sql = format!(
            "/* listed_certificate_fetch */ SELECT {CERTIFICATE}, c.der, c.chain {CERTIFICATE_FROM} \
             WHERE c.tenant_id = $1 AND c.certificate_id = $2"
        );
        let row = self.query_opt(&sql, &[&Id(id)]).await?.ok_or(DbError::NotFound { kind: "certificate" })?;
        let columns = Columns::new(&row, "certificates", "certificate_id");
        Ok(CertificateWithBytes {
            listed: read_certificate(&row)?,
            der: columns.read("der")?,
            chain: columns.read("chain")?,
        })
    }
}

pub(super) fn read_trustpoint(row: &Row) -> Result<ListedTrustpoint, DbError> {
    let columns = Columns::new(row, "trustpoints", "trustpoint_id");
    Ok(ListedTrustpoint {
        trustpoint: super::row::trustpoint(row)?,
        device: columns.parse::<String, _>("device")?,
        entity: columns.parse::<String, _>("entity")?,
        ca_server: columns.parse::<String, _>("ca_server")?,
        policy: columns.parse::<String, _>("policy")?,
        next_action_at: columns.read("next_action_at")?,
        auto_update: columns.json_opt("policy_auto_update")?.unwrap_or_default(),
        lease: shown(row)?,
        updated_at: columns.read("updated_at")?,
    })
}

fn read_job(row: &Row) -> Result<ListedJob, DbError> {
    let columns = Columns::new(row, "jobs", "job_id");
    let kind: &str = columns.read("kind")?;
    let state: &str = columns.read("state")?;
    let unknown = |column, word: &str| columns.wrong(column, format!("the word {word:?} is unknown"));
    Ok(ListedJob {
        id: columns.read::<Id<JobId>>("job_id")?.0,
        device_id: columns.read::<Id<DeviceId>>("device_id")?.0,
        stop_requested_at: columns.read("stop_requested_at")?,
        device: columns.parse::<String, _>("device")?,
        trustpoint: columns.parse_opt::<String, _>("trustpoint")?,
        agent: columns.parse::<String, _>("agent")?,
        kind: JobKind::from_word(kind).ok_or_else(|| unknown("kind", kind))?,
        state: JobState::ALL.into_iter().find(|s| s.as_str() == state).ok_or_else(|| unknown("state", state))?,
        requested_by: columns.read("requested_by")?,
        autonomous: columns.read("autonomous")?,
        failure: columns.json_opt("failure")?,
        public_key_sha256: columns.read("public_key_sha256")?,
        transaction_id: columns.read("transaction_id")?,
        created_at: columns.read("created_at")?,
        held_until: columns.read("held_until")?,
        published_at: columns.read("published_at")?,
        started_at: columns.read("started_at")?,
        finished_at: columns.read("finished_at")?,
        in_service: columns.json_opt("in_service")?,
        dry_run: columns.json_opt("dry_run")?,
        updated_at: columns.read("updated_at")?,
    })
}

pub(super) fn read_certificate(row: &Row) -> Result<ListedCertificate, DbError> {
    let columns = Columns::new(row, "certificates", "certificate_id");
    let slot: &str = columns.read("slot")?;
    let known = Slot::ALL.into_iter().find(|known| known.as_str() == slot);
    Ok(ListedCertificate {
        facts: CertificateFacts {
            id: columns.read::<Id<CertificateId>>("certificate_id")?.0,
            serial: columns.read("serial")?,
            subject: columns.read("subject")?,
            issuer: columns.read("issuer")?,
            not_before: columns.read("not_before")?,
            not_after: columns.read("not_after")?,
            sha256: columns.read("sha256")?,
            public_key_sha256: columns.read("public_key_sha256")?,
            file: columns.read("file")?,
            revocation: columns.json_opt("revocation")?,
        },
        device: columns.parse::<String, _>("device")?,
        trustpoint: columns.parse_opt::<String, _>("trustpoint")?,
        job_id: columns.read::<Id<JobId>>("job_id")?.0,
        slot: known.ok_or_else(|| columns.wrong("slot", format!("the word {slot:?} is unknown")))?,
        key_type: columns.read("key_type")?,
        issued_at: columns.read("issued_at")?,
    })
}
