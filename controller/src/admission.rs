//! Admission to CAs, decided: how many exchanges may begin at an endpoint now.
//!
//! Pure: a token bucket for the rate, a count of exchanges under way, and a circuit breaker. The budget belongs to the
//! endpoint, whichever tenants and replicas use it; the state lies in the database and is changed by whoever holds its
//! row.

/// What an endpoint may be burdened with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Exchanges that may begin in a second.
    pub rate_per_s: f64,
    /// Exchanges that may begin at once after a pause.
    pub burst: u32,
    /// Exchanges under way at a time; those that the CA lets wait do not count.
    pub concurrency: u32,
}

/// An endpoint as it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Endpoint {
    /// Its budget.
    pub budget: Budget,
    /// Exchanges that might have begun when that was last counted; none: a whole burst; below zero: what agents began by
    /// themselves, which nothing held up.
    pub tokens: Option<f64>,
    /// Seconds since then.
    pub idle_s: f64,
    /// Exchanges under way, and those whose agents are about to begin.
    pub in_use: u32,
    /// Its breaker.
    pub breaker: Breaker,
}

/// A circuit breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Breaker {
    /// Exchanges in a row that brought no answer.
    pub failures: u32,
    /// Seconds until something is sent again; negative: since then one job may try. None: it is closed.
    pub open_for_s: Option<f64>,
    /// A job tries: until it has ended, or its time is over, nothing else goes.
    pub probing: bool,
}

/// How a breaker stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything goes.
    Closed,
    /// Nothing goes.
    Open,
    /// One job tries.
    HalfOpen,
}

impl BreakerState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word in the API and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Exchanges in a row without an answer that open a breaker.
pub const FAILURES: u32 = 5;
/// First time that it stays open, seconds; it doubles with each further failure.
const OPEN_FIRST_S: f64 = 15.0;
/// Longest time, seconds.
const OPEN_MOST_S: f64 = 600.0;
/// How long the one that tries may take before another one may, seconds.
pub const PROBE_S: f64 = 60.0;

/// What may begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grant {
    /// How many exchanges.
    pub jobs: u32,
    /// Tokens there are, before any of them is taken.
    pub tokens: f64,
    /// It is the one that tries whether the CA is back.
    pub is_probe: bool,
}

impl Breaker {
    /// How it stands.
    pub fn state(&self) -> BreakerState {
        match self.open_for_s {
            None => BreakerState::Closed,
            Some(seconds) if seconds > 0.0 => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// After an exchange that brought no answer; those that were under way when it opened tell nothing new.
    #[must_use]
    pub fn after_failure(self) -> Self {
        if self.state() == BreakerState::Open && !self.probing {
            return self;
        }
        let failures = self.failures.saturating_add(1);
        let open_for_s = failures.checked_sub(FAILURES).map(|more| {
            let doublings = i32::try_from(more.min(16)).unwrap_or(16);
            (OPEN_FIRST_S * 2_f64.powi(doublings)).min(OPEN_MOST_S)
        });
        Self { failures, open_for_s, probing: false }
    }
}

impl Endpoint {
    /// How many exchanges may begin now, at most `most`.
    pub fn grant(&self, most: u32) -> Grant {
        let burst = f64::from(self.budget.burst).max(1.0);
        let tokens = self.tokens.map_or(burst, |left| left + self.idle_s.max(0.0) * self.budget.rate_per_s);
        let tokens = tokens.clamp(-burst, burst);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a burst")]
        let whole = tokens.max(0.0).floor() as u32;
        let free = whole.min(self.budget.concurrency.saturating_sub(self.in_use)).min(most);
        match self.breaker.state() {
            BreakerState::Closed => Grant { jobs: free, tokens, is_probe: false },
            BreakerState::Open => Grant { jobs: 0, tokens, is_probe: false },
            BreakerState::HalfOpen => Grant { jobs: free.min(1), tokens, is_probe: free > 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        let budget = Budget { rate_per_s: 200.0, burst: 50, concurrency: 100 };
        Endpoint { budget, tokens: Some(0.0), idle_s: 0.0, in_use: 0, breaker: Breaker::default() }
    }

    #[test]
    fn an_endpoint_gets_its_rate_and_after_a_pause_no_more_than_a_burst() {
        assert_eq!(Endpoint { tokens: None, ..endpoint() }.grant(1_000).jobs, 50, "at first a burst");
        assert_eq!(endpoint().grant(1_000).jobs, 0);
        assert_eq!(Endpoint { idle_s: 0.1, ..endpoint() }.grant(1_000).jobs, 20);
        assert_eq!(Endpoint { idle_s: 3_600.0, ..endpoint() }.grant(1_000).jobs, 50);
        assert_eq!(Endpoint { idle_s: -5.0, ..endpoint() }.grant(1_000).jobs, 0, "a clock that was set back");
    }

    #[test]
    fn in_no_second_more_begin_than_rate_and_burst_together_and_over_a_minute_the_rate() {
        let (mut state, mut begun) = (Endpoint { tokens: None, ..endpoint() }, Vec::new());
        for tick in 0..1_200_u32 {
            let grant = Endpoint { idle_s: if tick == 0 { 0.0 } else { 0.05 }, ..state }.grant(1_000);
            state.tokens = Some(grant.tokens - f64::from(grant.jobs));
            begun.push(grant.jobs);
        }
        let most = begun.windows(20).map(|second| second.iter().sum::<u32>()).max().unwrap();
        assert!(most <= 250, "{most} began in one second");
        let all: u32 = begun.iter().sum();
        assert!((12_000..=12_050).contains(&all), "{all} began in a minute");
    }

    #[test]
    fn what_began_without_being_asked_for_is_worked_off_before_anything_else_begins() {
        let debt = Endpoint { tokens: Some(-20.0), ..endpoint() };
        assert_eq!(debt.grant(1_000).jobs, 0);
        assert_eq!(Endpoint { idle_s: 0.1, ..debt }.grant(1_000).jobs, 0, "20 of the 20 that are owed");
        assert_eq!(Endpoint { idle_s: 0.15, ..debt }.grant(1_000).jobs, 10);
        let deep = Endpoint { tokens: Some(-1_000_000.0), ..endpoint() };
        assert_eq!(deep.grant(1_000).tokens, -50.0, "no more than a burst is owed");
    }

    #[test]
    fn no_more_are_under_way_than_may_be() {
        let busy = Endpoint { tokens: None, in_use: 97, ..endpoint() };
        assert_eq!(busy.grant(1_000).jobs, 3);
        assert_eq!(Endpoint { in_use: 5_000, ..busy }.grant(1_000).jobs, 0);
        assert_eq!(Endpoint { in_use: 0, ..busy }.grant(7).jobs, 7);
    }

    #[test]
    fn five_failures_in_a_row_open_the_breaker_ever_longer_and_then_one_job_tries() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            breaker = breaker.after_failure();
            assert_eq!(breaker.state(), BreakerState::Closed);
        }
        breaker = breaker.after_failure();
        assert_eq!((breaker.state(), breaker.open_for_s), (BreakerState::Open, Some(15.0)));
        assert_eq!(breaker.after_failure(), breaker, "those that were under way tell nothing new");
        let full = Endpoint { tokens: None, ..endpoint() };
        assert_eq!(Endpoint { breaker, ..full }.grant(1_000).jobs, 0);
        let due = Breaker { open_for_s: Some(-0.1), ..breaker };
        let probe = Endpoint { breaker: due, ..full }.grant(1_000);
        assert_eq!((probe.jobs, probe.is_probe), (1, true));
        let probing = Breaker { open_for_s: Some(40.0), probing: true, ..breaker };
        assert_eq!(Endpoint { breaker: probing, ..full }.grant(1_000).jobs, 0, "one at a time");
        assert_eq!(probing.after_failure().open_for_s, Some(30.0));
        let long = Breaker { failures: 40, open_for_s: Some(-1.0), probing: false };
        assert_eq!(long.after_failure().open_for_s, Some(600.0));
    }
}
