//! How often a credential may be used, and how often an address may come with a wrong one. Counted in each replica.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::config::HttpConfig;
use crate::error::AppError;

/// Keys that are kept before those that are back at their full budget are forgotten.
const KEYS_MAX: usize = 10_000;

type Keyed<K> = RateLimiter<K, HashMapStateStore<K>, DefaultClock>;

/// The limits of one replica.
pub(super) struct Limits {
    credentials: Option<Keyed<[u8; 32]>>,
    failures: Option<Keyed<IpAddr>>,
    /// Addresses that have used their failures up, and until when.
    blocked: Mutex<HashMap<IpAddr, Instant>>,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Limits")
    }
}

impl Limits {
    /// What the configuration says; 0 is no limit.
    pub(super) fn new(config: &HttpConfig) -> Self {
        let burst =
            |least: NonZeroU32| NonZeroU32::new(config.rate_limit_burst).map_or(least, |burst| burst.max(least));
        let rate = NonZeroU32::new(config.rate_limit_per_s);
        let credentials = rate.map(|rate| RateLimiter::hashmap(Quota::per_second(rate).allow_burst(burst(rate))));
        let failures = NonZeroU32::new(config.failed_limit_per_min);
        let failures = failures.map(|failures| RateLimiter::hashmap(Quota::per_minute(failures)));
        Self { credentials, failures, blocked: Mutex::default() }
    }

    /// Counts a request with a valid credential.
    ///
    /// # Errors
    /// [`AppError::TooMany`].
    pub(super) fn used(&self, credential: [u8; 32]) -> Result<(), AppError> {
        let Some(limiter) = &self.credentials else { return Ok(()) };
        match ask(limiter, credential) {
            Ok(()) => Ok(()),
            Err(wait) => Err(too_many("this credential has made more requests than it may", wait)),
        }
    }

    /// Whether an address may try a credential that is not known to be valid.
    ///
    /// # Errors
    /// [`AppError::TooMany`].
    pub(super) fn may_try(&self, source: Option<IpAddr>) -> Result<(), AppError> {
        let Some(source) = source.map(network) else { return Ok(()) };
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = blocked.get(&source) else { return Ok(()) };
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            blocked.remove(&source);
            return Ok(());
        }
        Err(too_many("too many wrong credentials came from this address", wait))
    }

    /// Counts a wrong credential.
    pub(super) fn failed(&self, source: Option<IpAddr>) {
        let (Some(limiter), Some(source)) = (&self.failures, source.map(network)) else { return };
        if let Err(wait) = ask(limiter, source) {
            let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
            if blocked.len() >= KEYS_MAX {
                let now = Instant::now();
                blocked.retain(|_, until| *until > now);
            }
            blocked.insert(source, Instant::now() + wait);
        }
    }
}

fn ask<K: Hash + Eq + Clone>(limiter: &Keyed<K>, key: K) -> Result<(), Duration> {
    if limiter.len() >= KEYS_MAX {
        limiter.retain_recent();
    }
    limiter.check_key(&key).map_err(|refused| refused.wait_time_from(DefaultClock::default().now()))
}

fn too_many(what: &'static str, wait: Duration) -> AppError {
    let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
    AppError::TooMany {
        code: "too_many_requests",
        detail: format!("{what}: repeat it in {seconds} s"),
        retry_after_s: seconds,
    }
}

/// Whoever has one address of IPv6 has its whole network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(per_s: u32, burst: u32, failed: u32) -> Limits {
        let http = HttpConfig {
            rate_limit_per_s: per_s,
            rate_limit_burst: burst,
            failed_limit_per_min: failed,
            ..HttpConfig::default()
        };
        Limits::new(&http)
    }

    #[test]
    fn one_credential_over_its_rate_is_told_when_to_come_back_and_takes_nothing_from_another() {
        let limits = limits(1, 3, 0);
        for _ in 0..3 {
            limits.used([1; 32]).unwrap();
        }
        let Err(AppError::TooMany { retry_after_s, .. }) = limits.used([1; 32]) else { panic!("not limited") };
        assert!((1..=2).contains(&retry_after_s), "{retry_after_s}");
        limits.used([2; 32]).unwrap();
    }

    #[test]
    fn an_address_with_too_many_failures_waits_and_its_neighbours_do_not() {
        let limits = limits(0, 0, 2);
        let (one, neighbour): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let other: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..3 {
            limits.may_try(Some(one)).unwrap();
            limits.failed(Some(one));
        }
        assert!(limits.may_try(Some(one)).is_err());
        assert!(limits.may_try(Some(neighbour)).is_err(), "the same network of 64 bits is the same client");
        limits.may_try(Some(other)).unwrap();
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = limits(0, 0, 0);
        for _ in 0..1000 {
            limits.used([1; 32]).unwrap();
            limits.failed(Some("192.0.2.1".parse().unwrap()));
        }
        limits.may_try(Some("192.0.2.1".parse().unwrap())).unwrap();
    }
}
