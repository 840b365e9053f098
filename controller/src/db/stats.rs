//! Numbers for the gauges, read in the background and never by a scrape.

use jiff::Timestamp;

use super::{DbError, SystemTx};

/// How much there is of everything, over all tenants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Jobs by state, in the words of column `jobs.state`.
    pub jobs: Vec<(String, i64)>,
    /// Certificates by slot, in the words of column `certificates.slot`.
    pub certificates: Vec<(String, i64)>,
    /// The first end of a certificate in use.
    pub nearest_expiry: Option<Timestamp>,
    /// Rows of the outbox.
    pub outbox: i64,
    /// Age of the oldest row of the outbox, seconds.
    pub outbox_age_s: f64,
}

impl SystemTx {
    /// Counts everything once.
    ///
    /// # Errors
    /// The database's own.
    pub async fn stats_fetch(&self) -> Result<Stats, DbError> {
        let pairs = async |sql: &str| -> Result<Vec<(String, i64)>, DbError> {
            let rows = self.query(sql, &[]).await?;
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
        };
        let jobs = pairs("/* stats_fetch: jobs */ SELECT state, count(*) FROM jobs GROUP BY state").await?;
        let certificates =
            pairs("/* stats_fetch: certificates */ SELECT slot, count(*) FROM certificates GROUP BY slot").await?;
        let rows = self
            .query(
                "/* stats_fetch: rest */ SELECT
                     (SELECT min(not_after) FROM trustpoints),
                     (SELECT count(*) FROM outbox),
                     (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 FROM outbox)",
                &[],
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(Stats { jobs, certificates, ..Stats::default() }) };
        let outbox_age_s: f64 = row.try_get(2)?;
        Ok(Stats {
            jobs,
            certificates,
            nearest_expiry: row.try_get(0)?,
            outbox: row.try_get(1)?,
            outbox_age_s: outbox_age_s.max(0.0),
        })
    }
}
