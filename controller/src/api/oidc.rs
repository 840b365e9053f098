//! JWTs of identity providers (OpenID Connect): from a token to who asks and what it may.
//!
//! The provider's keys are cached. They are fetched again when they are old or a token names one that is not there, but
//! not more often than every [`RETRY_AFTER`]: tokens with invented key ids make no traffic. While the provider is away
//! its former keys stay in use for [`STALE_MAX`] at most.

mod check;
mod fetch;

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::Jwk;

pub(super) use self::check::Verified;
use self::check::{Refusal, verified};
use self::fetch::Fetcher;
use crate::config::OidcConfig;
use crate::error::AppError;
use crate::tls::TlsError;

/// Least time between two questions to a provider.
const RETRY_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// Longest time that keys are believed without a new word of the provider.
const STALE_MAX: SignedDuration = SignedDuration::from_hours(24);

/// All identity providers of the configuration.
#[derive(Debug)]
pub(super) struct Issuers(Vec<Issuer>);

#[derive(Debug)]
struct Issuer {
    config: OidcConfig,
    fetcher: Arc<Fetcher>,
    keys: Mutex<Keys>,
    /// Who holds this asks the provider.
    asking: tokio::sync::Mutex<()>,
}

/// What is known of a provider's keys.
#[derive(Clone, Debug, Default)]
struct Keys {
    keys: Arc<Vec<Jwk>>,
    fetched_at: Option<Timestamp>,
    tried_at: Option<Timestamp>,
}

/// What to do for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Plan {
    /// It is here and fresh.
    Use,
    /// It is here; the provider should be asked again, but nobody needs to wait for it.
    UseAndRefresh,
    /// It is not here, and the provider should be asked.
    Ask,
    /// It is not here, and the provider was asked a moment ago.
    Refuse,
}

impl Keys {
    /// What to do at `now` for a token whose key is among these (`known`) or not.
    fn plan(&self, known: bool, now: Timestamp, max_age: SignedDuration) -> Plan {
        let elapsed = |since: Option<Timestamp>| since.map(|since| now.duration_since(since));
        let may_ask = elapsed(self.tried_at).is_none_or(|ago| ago >= RETRY_AFTER || ago < SignedDuration::ZERO);
        let age = elapsed(self.fetched_at).unwrap_or(SignedDuration::MAX);
        match (known && age < STALE_MAX, may_ask) {
            (true, true) if age >= max_age => Plan::UseAndRefresh,
            (true, _) => Plan::Use,
            (false, true) => Plan::Ask,
            (false, false) => Plan::Refuse,
        }
    }
}

impl Issuers {
    /// The providers of the configuration; nobody is asked yet.
    ///
    /// # Errors
    /// A file of roots that cannot be used.
    pub(super) fn new(configs: &[OidcConfig]) -> Result<Self, TlsError> {
        let issuer = |config: &OidcConfig| {
            Ok(Issuer {
                config: config.clone(),
                fetcher: Arc::new(Fetcher::new(config)?),
                keys: Mutex::default(),
                asking: tokio::sync::Mutex::default(),
            })
        };
        configs.iter().map(issuer).collect::<Result<_, _>>().map(Self)
    }

    /// Who presents this JWT; none: it is not good, or no JWT at all.
    ///
    /// # Errors
    /// [`AppError::Unavailable`] when the keys that it needs cannot be had.
    pub(super) async fn verify(&self, token: &str, now: Timestamp) -> Result<Option<Verified>, AppError> {
        match self.try_verify(token, now).await {
            Ok(verified) => Ok(Some(verified)),
            Err(Refusal::Away) => Err(AppError::Unavailable { what: "the identity provider", source: None }),
            Err(Refusal::Wrong(reason)) => {
                tracing::debug!(reason, "a JWT is refused");
                Ok(None)
            }
        }
    }

    async fn try_verify(&self, token: &str, now: Timestamp) -> Result<Verified, Refusal> {
        let named = check::issuer_of(token).ok_or(Refusal::Wrong("it is no JWT with an issuer"))?;
        let issuer = self.0.iter().find(|issuer| issuer.config.issuer == named);
        let issuer = issuer.ok_or(Refusal::Wrong("its issuer is none of ours"))?;
        let head = check::head(token, &issuer.config)?;
        let key = issuer.key(&head, now).await?;
        verified(token, &head, &key, &issuer.config, now)
    }
}

impl Issuer {
    async fn key(&self, head: &check::Head, now: Timestamp) -> Result<Jwk, Refusal> {
        let max_age = SignedDuration::from_secs(self.config.keys_max_age_s.into());
        let look = || {
            let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            let found = head.choose(&keys.keys).cloned();
            (keys.plan(found.is_some(), now, max_age), found, keys.fetched_at.is_some())
        };
        let (plan, found, _) = look();
        match plan {
            Plan::Use => {}
            Plan::UseAndRefresh => {
                if let Ok(asking) = self.asking.try_lock() {
                    self.ask(now).await;
                    drop(asking);
                    return look().1.ok_or(Refusal::Wrong("its key is one of the issuer's no more"));
                }
            }
            Plan::Ask => {
                let _asking = self.asking.lock().await;
                // Whoever was before may have brought it.
                if look().0 == Plan::Ask {
                    self.ask(now).await;
                }
                let (_, found, ever_fetched) = look();
                return found.ok_or(if ever_fetched { UNKNOWN_KEY } else { Refusal::Away });
            }
            Plan::Refuse => {
                return Err(if look().2 { UNKNOWN_KEY } else { Refusal::Away });
            }
        }
        found.ok_or(UNKNOWN_KEY)
    }

    async fn ask(&self, now: Timestamp) {
        let fetcher = Arc::clone(&self.fetcher);
        let fetched = tokio::task::spawn_blocking(move || fetcher.keys()).await;
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.tried_at = Some(now);
        match fetched {
            Ok(Ok(fresh)) => {
                tracing::info!(issuer = self.config.issuer, keys = fresh.len(), "keys of an identity provider fetched");
                keys.keys = Arc::new(fresh);
                keys.fetched_at = Some(now);
            }
            Ok(Err(error)) => {
                tracing::warn!(issuer = self.config.issuer, error, "keys of an identity provider not fetched");
            }
            Err(_) => tracing::error!(issuer = self.config.issuer, "fetching keys ended by a panic"),
        }
    }
}

const UNKNOWN_KEY: Refusal = Refusal::Wrong("its key is unknown");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_key_ids_make_no_traffic_and_old_keys_are_renewed_without_waiting() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let max_age = SignedDuration::from_secs(60);
        let never = Keys::default();
        assert_eq!(never.plan(false, at(0), max_age), Plan::Ask);
        let keys = Keys { keys: Arc::default(), fetched_at: Some(at(100)), tried_at: Some(at(100)) };
        assert_eq!(keys.plan(true, at(101), max_age), Plan::Use);
        assert_eq!(keys.plan(false, at(109), max_age), Plan::Refuse);
        assert_eq!(keys.plan(false, at(110), max_age), Plan::Ask);
        assert_eq!(keys.plan(true, at(160), max_age), Plan::UseAndRefresh);
        let failed = Keys { tried_at: Some(at(160)), ..keys };
        assert_eq!(failed.plan(true, at(165), max_age), Plan::Use);
        assert_eq!(failed.plan(true, at(100 + 86_400), max_age), Plan::Ask, "what is too old is believed no more");
    }
}
