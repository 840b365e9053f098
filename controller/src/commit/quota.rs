//! Quotas in a group commit: what counts against one is counted under the lock of its tenant, in the transaction that
//! writes it.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::Object;
use trustfleet_model::ids::TenantId;

use super::Entry;
use crate::{
    db::{Counted, DbError, Id, QUOTA_LOCK},
    quota::{Limit, hour_ago},
};

/// What becomes of a decision by its tenant's quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be written.
    Fits,
    /// Only if nothing before it in this batch is written: to be decided anew.
    Later,
    /// A quota is used up.
    Exceeded(Limit),
}

/// Whether any decision of the batch counts against a quota.
pub(super) fn is_counted(batch: &[Entry]) -> bool {
    batch.iter().any(|entry| counts(entry).next().is_some())
}

/// The limits that a decision counts against: those of jobs only when it makes one, the other ones when it writes a
/// trustpoint.
fn counts(entry: &Entry) -> impl Iterator<Item = Limit> + '_ {
    entry.limits.iter().copied().filter(|limit| match limit.counted {
        Counted::JobsPerHour | Counted::JobsInFlight => !entry.changes.jobs.is_empty(),
        Counted::Devices | Counted::Trustpoints => !entry.changes.trustpoints.is_empty(),
    })
}

/// Locks the tenants, counts, and says of each decision whether it may be written. Inside of a transaction that is read
/// committed: the counts are as of after the locks.
///
/// # Errors
/// The database's own.
pub(super) async fn verdicts(client: &Object, batch: &[Entry]) -> Result<Vec<Verdict>, DbError> {
    let counted: Vec<&Entry> = batch.iter().filter(|entry| counts(entry).next().is_some()).collect();
    let tenants: HashSet<TenantId> = counted.iter().map(|entry| entry.tenant).collect();
    let tenants: Vec<uuid::Uuid> = tenants.into_iter().map(|tenant| tenant.as_uuid()).collect();
    // By the locks' own order: two that wait for each other would be a deadlock.
    let sql = "/* quota_lock */ SELECT pg_advisory_xact_lock($1, n) FROM \
               (SELECT DISTINCT hashtext(tenant::text) AS n FROM unnest($2::uuid[]) AS tenant ORDER BY n) AS locks";
    client.query(&client.prepare_cached(sql).await?, &[&QUOTA_LOCK, &tenants]).await?;
    let mut used = HashMap::new();
    for entry in counted {
        for limit in counts(entry) {
            let key = (entry.tenant, limit);
            if used.contains_key(&key) {
                continue;
            }
            let statement = client.prepare_cached(limit.counted.sql()).await?;
            let (most, since) = (i64::from(limit.most), Id(hour_ago(entry.changes.at)));
            let row = client.query_one(&statement, &[&Id(entry.tenant), &most, &since]).await?;
            let count: i64 = row.try_get(0)?;
            used.insert(key, u32::try_from(count).unwrap_or(u32::MAX));
        }
    }
    let decisions: Vec<Vec<(TenantId, Limit)>> =
        batch.iter().map(|entry| counts(entry).map(|limit| (entry.tenant, limit)).collect()).collect();
    Ok(allot(&decisions, &used))
}

/// Gives each decision its share, in their order; `used`: what there is of each already.
fn allot(decisions: &[Vec<(TenantId, Limit)>], used: &HashMap<(TenantId, Limit), u32>) -> Vec<Verdict> {
    let mut given: HashMap<(TenantId, Counted), u32> = HashMap::new();
    let verdict = |limits: &Vec<(TenantId, Limit)>| {
        let there = |key: &(TenantId, Limit)| used.get(key).copied().unwrap_or(0);
        if let Some((_, limit)) = limits.iter().find(|key| there(key) >= key.1.most) {
            return Verdict::Exceeded(*limit);
        }
        let so_far = |given: &HashMap<_, u32>, key: &(TenantId, Limit)| {
            there(key).saturating_add(given.get(&(key.0, key.1.counted)).copied().unwrap_or(0))
        };
        if limits.iter().any(|key| so_far(&given, key) >= key.1.most) {
            return Verdict::Later;
        }
        for (tenant, limit) in limits {
            *given.entry((*tenant, limit.counted)).or_insert(0) += 1;
        }
        Verdict::Fits
    };
    decisions.iter().map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_given_in_order_and_what_may_fall_alone_is_decided_anew() {
        let (acme, other) = (TenantId::from(uuid::Uuid::from_u128(1)), TenantId::from(uuid::Uuid::from_u128(2)));
        let hour = Limit { counted: Counted::JobsPerHour, most: 3 };
        let flight = Limit { counted: Counted::JobsInFlight, most: 2 };
        let full = Limit { counted: Counted::Trustpoints, most: 5 };
        let job = vec![(acme, hour), (acme, flight)];
        let used = HashMap::from([((acme, hour), 1), ((acme, flight), 1), ((other, full), 5)]);
        let decisions = [job.clone(), vec![(other, full)], job, Vec::new()];
        let expected = [Verdict::Fits, Verdict::Exceeded(full), Verdict::Later, Verdict::Fits];
        assert_eq!(allot(&decisions, &used), expected);
    }
}
