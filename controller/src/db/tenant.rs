//! SQL of table `tenants`. Tenants are made, looked up and ended before anybody is bound to one: by the system role.

use jiff::Timestamp;
use tokio_postgres::Row;
use trustfleet_model::field::ObjectName;
use trustfleet_model::ids::TenantId;

use super::column::Columns;
use super::tx::Id;
use super::{DbError, SystemTx, TenantTx};
use crate::quota::Limit;

/// Who shares this installation without seeing each other.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name in URLs.
    pub name: ObjectName,
    /// Its name for people.
    pub display_name: String,
    /// HMAC-SHA1 and the like may be configured (S8).
    pub allow_weak_algorithms: bool,
    /// Changes of CA servers need another administrator's approval.
    pub four_eyes: bool,
    /// Days that transcripts of exchanges are kept after the end of their job.
    pub transcript_days: u16,
    /// Days that other things are kept when they are over.
    pub keeps: Keeps,
    /// Whether it lives.
    pub state: TenantState,
    /// Why it is suspended or deleted.
    pub state_reason: Option<String>,
    /// Since when it is in this state, if it was ever in another one.
    pub state_since: Option<Timestamp>,
    /// When a deleted tenant may be purged.
    pub purge_at: Option<Timestamp>,
    /// How much it may have.
    pub quota: Quota,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Days that things are kept when they are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeps {
    /// Jobs, after their end.
    pub jobs: u16,
    /// Certificates, after their end.
    pub certificates: u16,
    /// Join tokens, rejected applicants and ended leases.
    pub joining: u16,
    /// Rows of the audit log; 0: as the configuration says.
    pub audit: u16,
}

/// Whether a tenant lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantState {
    /// It does.
    Active,
    /// Everything can be read, nothing changed or published.
    Suspended,
    /// Only the platform sees it, until it is purged.
    Deleted,
}

impl TenantState {
    /// The word in SQL and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleted => "deleted",
        }
    }
}

/// How much a tenant may have; none: any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Devices.
    pub devices: Option<u32>,
    /// Trustpoints.
    pub trustpoints: Option<u32>,
    /// Jobs asked for within an hour.
    pub jobs_per_hour: Option<u32>,
    /// Jobs under way.
    pub jobs_in_flight: Option<u32>,
    /// Its share of a CA's budget while several tenants wait for it, 1 to 100.
    pub ca_weight: u8,
}

impl Default for Quota {
    fn default() -> Self {
        Self { devices: None, trustpoints: None, jobs_per_hour: None, jobs_in_flight: None, ca_weight: 1 }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Devices.
    Devices,
    /// Trustpoints.
    Trustpoints,
    /// Jobs asked for within the last hour.
    JobsPerHour,
    /// Jobs under way.
    JobsInFlight,
}

impl Counted {
    /// The statement that counts them up to `$2` for the tenant `$1`; `$3` is the first job of the last hour.
    pub(crate) const fn sql(self) -> &'static str {
        match self {
            Self::Devices => {
                "/* quota_used devices */ SELECT count(*) FROM \
                 (SELECT FROM devices WHERE tenant_id = $1 AND $3::uuid IS NOT NULL LIMIT $2) AS few"
            }
            Self::Trustpoints => {
                "/* quota_used trustpoints */ SELECT count(*) FROM \
                 (SELECT FROM trustpoints WHERE tenant_id = $1 AND $3::uuid IS NOT NULL LIMIT $2) AS few"
            }
            Self::JobsPerHour => {
                "/* quota_used jobs_per_hour */ SELECT count(*) FROM \
                 (SELECT FROM jobs WHERE tenant_id = $1 AND job_id > $3 LIMIT $2) AS few"
            }
            Self::JobsInFlight => {
                "/* quota_used jobs_in_flight */ SELECT count(*) FROM \
                 (SELECT FROM jobs WHERE tenant_id = $1 AND finished_at IS NULL AND $3::uuid IS NOT NULL LIMIT $2) AS few"
            }
        }
    }
}

impl Quota {
    /// Those of `wanted` that are limited.
    pub fn limits(&self, wanted: &[Counted]) -> Vec<Limit> {
        wanted.iter().filter_map(|counted| Some(Limit { counted: *counted, most: self.of(*counted)? })).collect()
    }

    /// The limit of one of them.
    pub const fn of(&self, counted: Counted) -> Option<u32> {
        match counted {
            Counted::Devices => self.devices,
            Counted::Trustpoints => self.trustpoints,
            Counted::JobsPerHour => self.jobs_per_hour,
            Counted::JobsInFlight => self.jobs_in_flight,
        }
    }
}

macro_rules! columns {
    () => {
        "t.tenant_id, t.name, t.display_name, t.allow_weak_algorithms, t.four_eyes, t.transcript_days, t.state, t.state_reason, \
         t.job_days, t.certificate_days, t.join_days, t.audit_days, t.state_since, t.purge_at, t.max_devices, t.max_trustpoints, t.max_jobs_per_hour, t.max_jobs_in_flight, t.ca_weight, \
         t.created_at AS tenant_created_at, t.updated_at"
    };
}
pub(super) use columns as tenant_columns;

impl SystemTx {
    /// Makes a tenant.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the name is taken.
    pub async fn tenant_insert(&self, tenant: &Tenant) -> Result<(), DbError> {
        let sql = "/* tenant_insert */ INSERT INTO tenants \
                   (tenant_id, name, display_name, allow_weak_algorithms, four_eyes, created_at, updated_at, updated_by, \
                   transcript_days, job_days, certificate_days, join_days, audit_days) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
        let count = self
            .execute(
                sql,
                &[
                    &Id(tenant.id),
                    &tenant.name.as_str(),
                    &tenant.display_name,
                    &tenant.allow_weak_algorithms,
                    &tenant.four_eyes,
                    &tenant.created_at,
                    &tenant.updated_at,
                    &self.name(),
                    &i32::from(tenant.transcript_days),
                    &i32::from(tenant.keeps.jobs),
                    &i32::from(tenant.keeps.certificates),
                    &i32::from(tenant.keeps.joining),
                    &i32::from(tenant.keeps.audit),
                ],
            )
            .await?;
        DbError::one_row(count, "tenant")
    }

    /// The tenant of this name.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn tenant_by_name(&self, name: &ObjectName) -> Result<Tenant, DbError> {
        let sql = concat!("/* tenant_by_name */ SELECT ", columns!(), " FROM tenants t WHERE t.name = $1");
        let row = self.query_opt(sql, &[&name.as_str()]).await?.ok_or(DbError::NotFound { kind: "tenant" })?;
        read(&row)
    }

    /// The tenant of this name, locked until the transaction ends.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn tenant_lock(&self, name: &ObjectName) -> Result<Tenant, DbError> {
        let sql = concat!("/* tenant_lock */ SELECT ", columns!(), " FROM tenants t WHERE t.name = $1 FOR UPDATE");
        let row = self.query_opt(sql, &[&name.as_str()]).await?.ok_or(DbError::NotFound { kind: "tenant" })?;
        read(&row)
    }

    /// At most `limit` tenants by name, beginning after `after`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn tenant_list(&self, after: Option<&str>, limit: i64) -> Result<Vec<Tenant>, DbError> {
        let sql = concat!(
            "/* tenant_list */ SELECT ",
            columns!(),
            " FROM tenants t WHERE $1::text IS NULL OR t.name > $1 ORDER BY t.name LIMIT $2"
        );
        self.query(sql, &[&after, &limit]).await?.iter().map(read).collect()
    }

    /// Writes everything of a tenant but its id and name.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn tenant_update(&self, tenant: &Tenant) -> Result<(), DbError> {
        let sql = "/* tenant_update */ UPDATE tenants SET display_name = $2, allow_weak_algorithms = $3, four_eyes = $4, \
                   state = $5, state_reason = $6, state_since = $7, purge_at = $8, max_devices = $9, max_trustpoints = $10, \
                   max_jobs_per_hour = $11, max_jobs_in_flight = $12, updated_at = $13, updated_by = $14, transcript_days = $15, \
                   ca_weight = $16, job_days = $17, certificate_days = $18, join_days = $19, audit_days = $20 \
                   WHERE tenant_id = $1";
        let number = |limit: Option<u32>| limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX));
        let Quota { devices, trustpoints, jobs_per_hour, jobs_in_flight, ca_weight } = tenant.quota;
        let count = self
            .execute(
                sql,
                &[
                    &Id(tenant.id),
                    &tenant.display_name,
                    &tenant.allow_weak_algorithms,
                    &tenant.four_eyes,
                    &tenant.state.as_str(),
                    &tenant.state_reason,
                    &tenant.state_since,
                    &tenant.purge_at,
                    &number(devices),
                    &number(trustpoints),
                    &number(jobs_per_hour),
                    &number(jobs_in_flight),
                    &tenant.updated_at,
                    &self.name(),
                    &i32::from(tenant.transcript_days),
                    &i32::from(ca_weight),
                    &i32::from(tenant.keeps.jobs),
                    &i32::from(tenant.keeps.certificates),
                    &i32::from(tenant.keeps.joining),
                    &i32::from(tenant.keeps.audit),
                ],
            )
            .await?;
        DbError::one_row(count, "tenant")
    }

    /// Deleted tenants whose grace time is over.
    ///
    /// # Errors
    /// The database's own.
    pub async fn tenants_to_purge(&self) -> Result<Vec<(TenantId, String)>, DbError> {
        let sql = "/* tenants_to_purge */ SELECT tenant_id, name FROM tenants WHERE purge_at <= now() LIMIT 100";
        let rows = self.query(sql, &[]).await?;
        rows.iter().map(|row| Ok((row.try_get::<_, Id<TenantId>>("tenant_id")?.0, row.try_get("name")?))).collect()
    }

    /// Removes at most `most` rows of a tenant whose grace time is over; how many: 0 when nothing is left to do.
    ///
    /// # Errors
    /// The database's own.
    pub async fn tenant_purge(&self, tenant: TenantId, most: i64) -> Result<i64, DbError> {
        let sql = "/* tenant_purge */ SELECT purge_tenant($1, $2)";
        let row = self.query_opt(sql, &[&Id(tenant), &most]).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
    }
}

impl TenantTx {
    /// How many there are, counted up to `most`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn quota_used(&self, counted: Counted, most: u32, now: Timestamp) -> Result<u32, DbError> {
        let (most, since) = (i64::from(most), Id(crate::quota::hour_ago(now)));
        let row = self.query_opt(counted.sql(), &[&most, &since]).await?;
        let count: i64 = row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

/// The tenant in the columns of [`tenant_columns`].
pub(super) fn read(row: &Row) -> Result<Tenant, DbError> {
    let columns = Columns::new(row, "tenants", "tenant_id");
    let number = |column| -> Result<Option<u32>, DbError> { columns.parse_opt::<i32, u32>(column) };
    let state = match columns.read::<&str>("state")? {
        "active" => TenantState::Active,
        "suspended" => TenantState::Suspended,
        "deleted" => TenantState::Deleted,
        other => return Err(columns.wrong("state", format!("{other:?} is unknown"))),
    };
    Ok(Tenant {
        id: columns.read::<Id<TenantId>>("tenant_id")?.0,
        name: columns.parse::<String, _>("name")?,
        display_name: columns.read("display_name")?,
        allow_weak_algorithms: columns.read("allow_weak_algorithms")?,
        four_eyes: columns.read("four_eyes")?,
        transcript_days: columns.parse::<i32, u16>("transcript_days")?,
        keeps: Keeps {
            jobs: columns.parse::<i32, u16>("job_days")?,
            certificates: columns.parse::<i32, u16>("certificate_days")?,
            joining: columns.parse::<i32, u16>("join_days")?,
            audit: columns.parse::<i32, u16>("audit_days")?,
        },
        state,
        state_reason: columns.read("state_reason")?,
        state_since: columns.read("state_since")?,
        purge_at: columns.read("purge_at")?,
        quota: Quota {
            devices: number("max_devices")?,
            trustpoints: number("max_trustpoints")?,
            jobs_per_hour: number("max_jobs_per_hour")?,
            jobs_in_flight: number("max_jobs_in_flight")?,
            ca_weight: columns.parse::<i32, u8>("ca_weight")?,
        },
        created_at: columns.read("tenant_created_at")?,
        updated_at: columns.read("updated_at")?,
    })
}
