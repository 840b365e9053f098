//! When an agent that is cut off from its controller renews a certificate by itself.
//!
//! Pure: the moment follows from the lease, the certificate and the trustpoint's id. The agent looks at it again and again;
//! the controller shows the same moment.

use jiff::{SignedDuration, Timestamp};

use crate::ids::TrustpointId;
use crate::renewal::{again_at, fraction, plus};

/// A link that is away for no longer is no reason to act; less for certificates that are valid for hours only.
const CUT_OFF_LONG: SignedDuration = SignedDuration::from_mins(10);
/// The part of a certificate's validity that a link must have been away at least.
const CUT_OFF_PART: i32 = 50;
/// No certificate is renewed again before this part of its validity has passed since the last try that succeeded.
const AGAIN_PART: i32 = 20;

/// What of a certificate decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held<'a> {
    /// First moment of validity.
    pub not_before: Timestamp,
    /// Last moment of validity.
    pub not_after: Timestamp,
    /// SHA-256, lower-case hex: spreads those that were issued together.
    pub sha256: &'a str,
}

/// How a trustpoint stands on the device.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// How long there has been no link to the controller; none: there is one.
    pub cut_off_for: Option<SignedDuration>,
    /// A job for the trustpoint has not ended.
    pub job_open: bool,
    /// A certificate is issued and waits to be put into use.
    pub staged: bool,
    /// Its node of a pair is known to stand by (S47).
    pub standby: bool,
    /// The certificate in use, where there is one.
    pub held: Option<Held<'a>>,
    /// When it was last renewed by itself with success.
    pub renewed_at: Option<Timestamp>,
    /// Failures since then, and when the last one was.
    pub failed: Option<(u32, Timestamp)>,
}

/// The lease, as far as it decides.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The trustpoint.
    pub trustpoint_id: TrustpointId,
    /// Emergency mark, percent elapsed.
    pub emergency_percent: u8,
    /// The lease holds until then.
    pub expires_at: Timestamp,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Autonomy {
    /// Renew now.
    Renew,
    /// Not before this moment, if nothing changes until then.
    At(Timestamp),
    /// Nothing, until something changes.
    No(Why),
}

/// Why nothing is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The controller can be reached: it decides.
    Linked,
    /// A job for the trustpoint is open.
    JobOpen,
    /// A certificate waits to be put into use.
    Staged,
    /// The standby of a pair never applies.
    Standby,
    /// There is no certificate in use, or it has ended: it cannot sign an update.
    NoCertificate,
    /// The lease has ended, or ends before the moment comes.
    NoLease,
}

impl Why {
    /// In words, for `status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Linked => "the controller is reachable",
            Self::JobOpen => "a job for the trustpoint is open",
            Self::Staged => "a certificate waits to be put into use",
            Self::Standby => "the node stands by",
            Self::NoCertificate => "there is no valid certificate in use",
            Self::NoLease => "the lease ends before",
        }
    }
}

/// The trustpoint's own emergency moment: the mark, and up to a quarter of what is left then, always the same for the same
/// certificate.
pub fn emergency_moment(percent: u8, trustpoint: TrustpointId, held: Held<'_>) -> Timestamp {
    let validity = validity(held);
    let mark = plus(held.not_before, validity.mul_f64(f64::from(percent.min(100)) / 100.0));
    let left = held.not_after.duration_since(mark).max(SignedDuration::ZERO);
    let text = format!("emergency {}", held.sha256);
    plus(mark, left.mul_f64(fraction(trustpoint, &text) / 4.0))
}

/// Whether the agent renews by itself.
pub fn decide(terms: Terms, standing: Standing<'_>, now: Timestamp) -> Autonomy {
    let Some(cut_off_for) = standing.cut_off_for else { return Autonomy::No(Why::Linked) };
    if standing.job_open {
        return Autonomy::No(Why::JobOpen);
    }
    if standing.standby {
        return Autonomy::No(Why::Standby);
    }
    if standing.staged {
        return Autonomy::No(Why::Staged);
    }
    let Some(held) = standing.held.filter(|held| held.not_after > now) else {
        return Autonomy::No(Why::NoCertificate);
    };
    let mut moment = emergency_moment(terms.emergency_percent, terms.trustpoint_id, held);
    if let Some(renewed_at) = standing.renewed_at {
        // A CA that dates certificates back would otherwise be asked again and again.
        moment = moment.max(plus(renewed_at, validity(held) / AGAIN_PART));
    }
    if let Some((failures, failed_at)) = standing.failed {
        moment = moment.max(again_at(terms.trustpoint_id, failures, failed_at, Some(held.not_after)));
    }
    let patience = CUT_OFF_LONG.min(validity(held) / CUT_OFF_PART);
    let moment = moment.max(plus(now, patience - cut_off_for.min(patience)));
    if moment >= terms.expires_at {
        return Autonomy::No(Why::NoLease);
    }
    if moment >= held.not_after {
        return Autonomy::No(Why::NoCertificate);
    }
    if moment <= now { Autonomy::Renew } else { Autonomy::At(moment) }
}

fn validity(held: Held<'_>) -> SignedDuration {
    held.not_after.duration_since(held.not_before).max(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    /// Valid for 100,000 seconds: it is cut off after ten minutes, and its emergency begins at 90,000.
    const HELD: &str = "00";

    fn held() -> Held<'static> {
        Held { not_before: at(0), not_after: at(100_000), sha256: HELD }
    }

    fn terms() -> Terms {
        Terms { trustpoint_id: uuid::Uuid::from_u128(1).into(), emergency_percent: 90, expires_at: at(1_000_000) }
    }

    fn alone() -> Standing<'static> {
        Standing {
            cut_off_for: Some(SignedDuration::from_hours(1)),
            job_open: false,
            staged: false,
            standby: false,
            held: Some(held()),
            renewed_at: None,
            failed: None,
        }
    }

    #[test]
    fn a_certificate_past_its_mark_is_renewed_by_an_agent_that_is_cut_off_and_by_no_other() {
        let moment = emergency_moment(90, terms().trustpoint_id, held());
        assert!(moment >= at(90_000) && moment <= at(92_500), "{moment}");
        assert_eq!(decide(terms(), alone(), at(10)), Autonomy::At(moment));
        assert_eq!(decide(terms(), alone(), moment), Autonomy::Renew);
        for (why, standing) in [
            (Why::Linked, Standing { cut_off_for: None, ..alone() }),
            (Why::JobOpen, Standing { job_open: true, ..alone() }),
            (Why::Staged, Standing { staged: true, ..alone() }),
            (Why::Standby, Standing { standby: true, ..alone() }),
            (Why::NoCertificate, Standing { held: None, ..alone() }),
        ] {
            assert_eq!(decide(terms(), standing, at(95_000)), Autonomy::No(why));
        }
        assert_eq!(decide(terms(), alone(), at(100_000)), Autonomy::No(Why::NoCertificate), "it has ended");
    }

    #[test]
    fn nothing_happens_when_the_lease_has_ended_or_ends_before_the_mark() {
        for ends in [0, 1_000, 89_000] {
            let terms = Terms { expires_at: at(ends), ..terms() };
            assert_eq!(decide(terms, alone(), at(10)), Autonomy::No(Why::NoLease));
            assert_eq!(decide(terms, alone(), at(95_000)), Autonomy::No(Why::NoLease));
        }
    }

    #[test]
    fn a_link_that_is_away_for_minutes_is_no_reason() {
        let since = |seconds| Standing { cut_off_for: Some(SignedDuration::from_secs(seconds)), ..alone() };
        assert_eq!(decide(terms(), since(0), at(95_000)), Autonomy::At(at(95_600)));
        assert_eq!(decide(terms(), since(599), at(95_000)), Autonomy::At(at(95_001)));
        assert_eq!(decide(terms(), since(600), at(95_000)), Autonomy::Renew);
        let short = Held { not_after: at(120), ..held() };
        let standing = Standing { held: Some(short), ..since(3) };
        assert_eq!(decide(terms(), standing, at(117)), Autonomy::Renew, "of two minutes, 2.4 seconds are enough");
    }

    #[test]
    fn what_failed_is_tried_again_later_and_what_was_renewed_not_at_once() {
        let failed = Standing { failed: Some((1, at(95_000))), ..alone() };
        let Autonomy::At(again) = decide(terms(), failed, at(95_000)) else { panic!("at once again") };
        assert!(again >= at(95_300) && again <= at(95_400), "{again}");
        assert_eq!(decide(terms(), failed, again), Autonomy::Renew);
        let renewed = Standing { renewed_at: Some(at(94_000)), ..alone() };
        assert_eq!(decide(terms(), renewed, at(95_000)), Autonomy::At(at(99_000)));
    }

    #[test]
    fn a_fleet_whose_certificates_pass_their_mark_together_does_not_come_together() {
        let mut moments: Vec<Timestamp> =
            (0..1_000_u128).map(|n| emergency_moment(90, uuid::Uuid::from_u128(n << 64 | n).into(), held())).collect();
        moments.sort();
        let spread = moments[900].duration_since(moments[100]);
        assert!(spread > SignedDuration::from_secs(1_800), "{spread:?}");
    }
}
